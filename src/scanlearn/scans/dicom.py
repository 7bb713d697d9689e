"""DICOM through pydicom: single images, series of slices, and multi-frame files with positions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scanlearn.errors import ScanlearnError
from scanlearn.scans.geometry import LPS_TO_RAS, affine_from, swap_first_axes

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Neighbouring slices may lie this much closer or farther apart than the median before slices count as missing.
GAP_TOLERANCE = 0.5


def read_dicom(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray, str]:
    """(array (1, *S), affine RAS+, modality) of one file or of the slices of one series, in any order.

    One plain file -> 2D (row, column). A series or a multi-frame file -> 3D (i = column, j = row, k = slice along
    the normal). Slope and intercept are applied: whole numbers stay integers (HU as int16), else float32.
    MONOCHROME1 is inverted so that more signal is always brighter.
    """
    headers = [_load(path) for path in paths]
    first = headers[0]
    frames = int(first.get("NumberOfFrames", 1) or 1)
    if len(headers) == 1 and frames == 1:
        directions, spacing, origin = _plane(first, first)
        affine = LPS_TO_RAS @ affine_from(directions, (*spacing, 1.0), origin)
        return values(first)[None], swap_first_axes(affine), str(first.get("Modality", ""))
    if len(headers) == 1:
        return _stack(_frames(first, frames), str(paths[0]))
    if any(int(h.get("NumberOfFrames", 1) or 1) > 1 for h in headers):
        raise ScanlearnError(f"The series of {paths[0]} mixes multi-frame files; give each of them as its own scan.")
    return _stack([(h, h, None) for h in headers], str(paths[0]))


def read_dicom_header(paths: Sequence[Path]) -> tuple[tuple[int, ...], str]:
    """(spatial shape as ``read_dicom`` gives it, modality) without reading pixels."""
    header = _load(paths[0], pixels=False)
    count = len(paths) if len(paths) > 1 else int(header.get("NumberOfFrames", 1) or 1)
    rows, columns = int(header.Rows), int(header.Columns)
    return (rows, columns) if count == 1 else (columns, rows, count), str(header.get("Modality", ""))


def _load(path: Path, pixels: bool = True) -> Dataset:
    from pydicom import dcmread

    # force: the files of some archives lack the preamble; what is no DICOM has no Rows.
    header = dcmread(path, force=True, stop_before_pixels=not pixels)
    if "Rows" not in header or "Columns" not in header:
        raise ScanlearnError(f"{path} holds no DICOM image; remove it or give the folder of the images alone.")
    return header


def values(header: Dataset) -> np.ndarray:
    """The pixels of one file with slope and intercept applied, (row, column) or (frame, row, column), grey."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

    try:
        # raw=False turns YBR into RGB.
        raw = pixel_array(header) if header.get("SamplesPerPixel", 1) == 1 else pixel_array(header, raw=False)
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        syntax = header.file_meta.TransferSyntaxUID.name if "TransferSyntaxUID" in header.get("file_meta", {}) else "?"
        raise ScanlearnError(
            f"{header.filename} cannot be decoded ({syntax}: {str(error).splitlines()[0]}); for compressed DICOM "
            "install pylibjpeg, pylibjpeg-libjpeg and pylibjpeg-openjpeg."
        ) from error
    photometric = header.get("PhotometricInterpretation", "MONOCHROME2")
    if photometric == "PALETTE COLOR":
        raw = apply_color_lut(raw, header)
    if raw.ndim > 2 and raw.shape[-1] == 3 and photometric not in ("MONOCHROME1", "MONOCHROME2"):
        return to_grey(raw)
    if photometric == "MONOCHROME1":
        bits, signed = int(header.BitsStored), int(header.get("PixelRepresentation", 0))
        raw = (-1 if signed else 2**bits - 1) - raw.astype(np.int32)
    if "ModalityLUTSequence" in header:
        return apply_modality_lut(raw, header)
    return rescale(raw, float(header.get("RescaleSlope", 1) or 1), float(header.get("RescaleIntercept", 0) or 0))


def rescale(raw: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """raw * slope + intercept: the dtype is kept for (1, 0), an integer for whole numbers, else float32."""
    if (slope, intercept) == (1.0, 0.0) and raw.dtype.itemsize <= 2:
        return raw
    if raw.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer():
        wide = raw.astype(np.int64) * int(slope) + int(intercept)
        for dtype in (np.int16, np.uint16, np.int32):
            if np.iinfo(dtype).min <= wide.min() and wide.max() <= np.iinfo(dtype).max:
                return wide.astype(dtype)
    return (raw.astype(np.float64) * slope + intercept).astype(np.float32)


def to_grey(rgb: np.ndarray) -> np.ndarray:
    """Luminance (ITU-R 601, the integer formula of Pillow) of (..., 3), same dtype; equal channels are kept exactly."""
    weights = np.array([19595, 38470, 7471], np.int64)
    if rgb.dtype.kind == "f":
        return (rgb @ (weights / 65536)).astype(rgb.dtype)
    return ((rgb.astype(np.int64) @ weights + 32768) >> 16).astype(rgb.dtype)


def _plane(orientation: Any, position: Any) -> tuple[np.ndarray, tuple[float, float], np.ndarray]:
    """(directions (3, 3) with columns i, j, normal; spacing of i and j; centre of the first pixel), LPS mm."""
    cosines = np.array(orientation.get("ImageOrientationPatient") or [1, 0, 0, 0, 1, 0], float).reshape(2, 3)
    directions = np.stack([cosines[0], cosines[1], np.cross(cosines[0], cosines[1])], axis=1)
    spacing = orientation.get("PixelSpacing") or orientation.get("ImagerPixelSpacing") or [1.0, 1.0]
    origin = np.array(position.get("ImagePositionPatient") or [0, 0, 0], float)
    # PixelSpacing is (between rows, between columns); i counts columns.
    return directions, (float(spacing[1]), float(spacing[0])), origin


class _Frame(dict):
    """The geometry of one frame of a multi-frame file, under the names that a single file uses."""


def _frames(header: Dataset, count: int) -> list[tuple[Any, Dataset, int | None]]:
    shared = header.get("SharedFunctionalGroupsSequence") or [{}]
    each = header.get("PerFrameFunctionalGroupsSequence") or []
    if len(each) != count:
        raise ScanlearnError(
            f"{header.filename} holds {count} frames without positions (a film?); give its frames as single images."
        )
    frames: list[tuple[Any, Dataset, int | None]] = []
    for index, own in enumerate(each):
        frame = _Frame()
        for group, key in (
            ("PlaneOrientationSequence", "ImageOrientationPatient"),
            ("PlanePositionSequence", "ImagePositionPatient"),
            ("PixelMeasuresSequence", "PixelSpacing"),
            ("PixelValueTransformationSequence", "RescaleSlope"),
            ("PixelValueTransformationSequence", "RescaleIntercept"),
        ):
            found = own.get(group) or shared[0].get(group)
            if found and key in found[0]:
                frame[key] = found[0][key].value
        frames.append((frame, header, index))
    return frames


def _stack(frames: list[tuple[Any, Dataset, int | None]], name: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Order the planes along their normal and build the volume (1, i, j, k)."""
    if any(not plane.get("ImagePositionPatient") for plane, _, _ in frames):
        raise ScanlearnError(f"The series of {name} has images without a position; give them as single images.")
    directions, spacing, _ = _plane(frames[0][0], frames[0][0])
    positions = []
    for plane, header, _ in frames:
        other, other_spacing, origin = _plane(plane, plane)
        same = np.allclose(other, directions, atol=1e-3) and np.allclose(other_spacing, spacing, rtol=1e-3)
        if not same or (header.Rows, header.Columns) != (frames[0][1].Rows, frames[0][1].Columns):
            raise ScanlearnError(f"The series of {name} mixes planes of different direction, spacing or size.")
        positions.append(origin)
    along = np.array(positions) @ directions[:, 2]
    order = np.argsort(along, kind="stable")
    gap = _even_gap(along[order], name)
    first, last = (np.array(positions)[order[i]] for i in (0, -1))
    # The step from slice to slice, not the normal: a tilted gantry shears the volume.
    step = (last - first) / max(len(frames) - 1, 1) if len(frames) > 1 else directions[:, 2] * gap
    affine = affine_from(directions, (*spacing, gap), first)
    affine[:3, 2] = step
    planes = _planes([frames[i] for i in order])
    volume = np.stack([p.T for p in planes], axis=-1)
    return volume[None], LPS_TO_RAS @ affine, str(frames[0][1].get("Modality", ""))


def _planes(frames: list[tuple[Any, Dataset, int | None]]) -> list[np.ndarray]:
    if frames[0][2] is None:
        return [values(header) for _, header, _ in frames]
    whole = values(frames[0][1])
    return [
        rescale(whole[index], float(plane.get("RescaleSlope", 1)), float(plane.get("RescaleIntercept", 0)))
        for plane, _, index in frames
    ]


def _even_gap(along: np.ndarray, name: str) -> float:
    """The mean distance of the ordered slices in mm; gaps that tell of missing or doubled slices are refused."""
    gaps = np.diff(along)
    if len(gaps) == 0:
        return 1.0
    median = float(np.median(gaps))
    if gaps.min() < 1e-3:
        raise ScanlearnError(f"The series of {name} has two slices at one position; give each of its volumes alone.")
    if gaps.max() > (1 + GAP_TOLERANCE) * median or gaps.min() < (1 - GAP_TOLERANCE) * median:
        raise ScanlearnError(
            f"The series of {name} has slices {gaps.min():.3g} to {gaps.max():.3g} mm apart; some are missing."
        )
    return float(gaps.mean())
