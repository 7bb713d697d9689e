"""DICOM through pydicom: single images, series of slices, and multi-frame objects with positions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from scanlearn.catalog.dicom_file import HEADER_BYTES, open_dicom, quiet
from scanlearn.catalog.dicom_tags import word
from scanlearn.errors import FileError
from scanlearn.scans.dicom_frames import Frame, naming, read_description, read_frames, several_volumes
from scanlearn.scans.dicom_pixels import data_tags, describe, grey_frames, to_grey
from scanlearn.scans.dicom_stack import flat_affine, stack
from scanlearn.scans.formats.limits import byte_limit, check_size

__all__ = ["DicomScan", "read_dicom", "read_dicom_header", "read_dicom_scan", "to_grey"]


@dataclass
class DicomScan:
    """What ``read_dicom_scan`` gives.

    array: (1, row, column) of a single image, (1, i = column, j = row, k = slice) else. affine: indices -> RAS+ mm.
    notes: sentences without a subject that a person should see ("was taken with a tilted gantry ..."), free of
    identifiers. located: False where the file does not say where in the patient it lies.
    """

    array: np.ndarray
    affine: np.ndarray
    modality: str = ""
    notes: list[str] = field(default_factory=list)
    located: bool = True


def read_dicom(paths: Sequence[Path], *, limit_bytes: int | None = None) -> tuple[np.ndarray, np.ndarray, str]:
    """(array (1, *S), affine RAS+, modality): ``read_dicom_scan`` without its notes."""
    scan = read_dicom_scan(paths, limit_bytes=limit_bytes)
    return scan.array, scan.affine, scan.modality


def read_dicom_scan(paths: Sequence[Path], *, limit_bytes: int | None = None) -> DicomScan:
    """Read one file, or the slices of one series in any order.

    One image -> 2D. A series or a multi-frame object -> 3D, sorted along the normal of its planes. Slope and intercept
    (of each slice, each frame) or a modality table are applied: whole numbers stay integers (HU as int16), else
    float32. Colours become luminance. MONOCHROME1 is inverted so that more signal is brighter, except in CT, MR, PET
    and nuclear medicine, whose values are measurements. Padding outside the field of view (PixelPaddingValue) becomes
    the lowest other value of the scan.

    Raises FileError for what is damaged or no scan, decodes to more than the limit (``byte_limit``), has missing or
    contradicting slices, or holds several volumes.
    """
    limit = byte_limit(limit_bytes)
    with quiet(pixels=True):
        paths = list(dict.fromkeys(map(Path, paths)))
        frames = [frame for path in paths for frame in read_frames(path)]
        first, count = frames[0], len(frames)
        check_size(first.path, (count, first.plane.rows, first.plane.columns), max(f.itemsize for f in frames), limit)
        located = first.plane.position is not None and first.plane.cosines is not None
        notes = list(dict.fromkeys(note for frame in frames for note in frame.notes))
        if count == 1:
            values, _ = _fill([[0]], frames, limit)
            return DicomScan(values, flat_affine(first.plane), first.modality, notes, located)
        if 1 < len(paths) < count:
            raise FileError(first.path, "mixes files of several frames; give each of them as its own scan.")
        volume = stack([frame.plane for frame in frames], first.path)
        if len(paths) == 1 and len(volume.slots) < count:
            raise FileError(first.path, several_volumes(frames, len(volume.slots)))
        values, dropped = _fill(volume.slots, frames, limit)
        if dropped:
            notes.append(f"had {dropped} slices twice, pixel for pixel; one of each is kept.")
        array = values.transpose(2, 1, 0)[None]  # from (k, j, i)
        return DicomScan(array, volume.affine, first.modality, notes + volume.notes, located)


def read_dicom_header(paths: Sequence[Path]) -> tuple[tuple[int, ...], str]:
    """(spatial shape as ``read_dicom`` gives it, modality) without reading pixels; duplicates are counted."""
    with quiet():
        data, told = read_description(Path(paths[0]))
        count = len(paths) if len(paths) > 1 else told["frames"]
        rows, columns = told["rows"], told["columns"]
        return (rows, columns) if count == 1 else (columns, rows, count), word(data, "Modality")


def _fill(slots: list[list[int]], frames: list[Frame], limit: int) -> tuple[np.ndarray, int]:
    """(physical values (slot, row, column), how many duplicates were dropped), one file in memory at a time.

    Duplicates that differ are refused. Padding becomes the lowest other value of all slots.
    """
    slot_of = {n: k for k, slot in enumerate(slots) for n in slot}
    out = np.zeros(0)
    filled: set[int] = set()
    outside: dict[int, np.ndarray] = {}  # packed bits
    lows = []
    for path, group in groupby(enumerate(frames), key=lambda pair: pair[1].path):
        of_file = list(group)
        for (n, frame), raw in zip(of_file, _raw_frames(of_file[0][1], len(of_file), limit), strict=True):
            with naming(path):
                values, padded = frame.transform.apply(raw), frame.transform.padded(raw)
            if not filled:
                out = np.empty((len(slots), *raw.shape), values.dtype)
            elif out.dtype != values.dtype:
                floats = "f" in (out.dtype.kind, values.dtype.kind)
                out = out.astype(np.float32 if floats else np.result_type(out, values), copy=False)
            if (k := slot_of[n]) in filled:
                _check_same(out[k], values, slots, path)
                continue
            out[k] = values
            filled.add(k)
            if padded is not None:
                outside[k] = np.packbits(padded)
            if padded is None or not padded.all():
                lows.append(values.min() if padded is None else values[~padded].min())
    for k, bits in outside.items():
        if lows:
            out[k][np.unpackbits(bits, count=out[k].size).reshape(out[k].shape).astype(bool)] = min(lows)
    return out, len(frames) - len(slots)


def _raw_frames(first: Frame, count: int, limit: int) -> Iterator[np.ndarray]:
    """The frames of the file whose first one is given, ``count`` by its header."""
    path = first.path
    with naming(path):
        if path.stat().st_size > limit + HEADER_BYTES:
            raise FileError(path, f"is a file of more than the limit of {limit / 2**30:.3g} GiB.")
        data = open_dicom(path, data_tags(), pixels_up_to=limit)
        if "Rows" not in data:  # pydicom gives nothing at all where compressed pixels have no end
            raise FileError(path, "is cut off within its pixels.")
        told = describe(data)
        if (told["rows"], told["columns"], told["frames"]) != (first.plane.rows, first.plane.columns, count):
            raise FileError(path, "changed while it was read.")
        yield from grey_frames(data, path)


def _check_same(kept: np.ndarray, values: np.ndarray, slots: list[list[int]], path: Path) -> None:
    if not np.array_equal(kept, values):
        crowded = sum(len(slot) > 1 for slot in slots)
        raise FileError(
            path,
            f"has different images at one place ({crowded} of {len(slots)} places have several); "
            "give each of its volumes as its own scan.",
        )
