"""OME-Zarr (NGFF 0.4 on Zarr v2, 0.5 on Zarr v3): level 0 of the first multiscale image, through tensorstore."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.errors import FileError
from scanlearn.scans.formats.inside import inside
from scanlearn.scans.formats.limits import check_affine, check_channels, check_size
from scanlearn.scans.formats.raw import native
from scanlearn.scans.formats.scan import Scan
from scanlearn.scans.formats.units import millimetres
from scanlearn.scans.geometry import swap_first_axes

METADATA = (".zattrs", "zarr.json")
VERSIONS = ("0.4", "0.5")
LARGEST_METADATA = 2**24
MOST_CHUNKS = 1_000_000
CODECS_V2: tuple[str, ...] = ("blosc", "bz2", "gzip", "zlib", "zstd")
CODECS_V3: tuple[str, ...] = ("blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "zstd")
# Where an axis leads in RAS. Without an orientation (RFC-4) they lead as ITK lays them: left, back, up.
_WAYS = {
    "right-to-left": (-1, 0, 0),
    "left-to-right": (1, 0, 0),
    "anterior-to-posterior": (0, -1, 0),
    "posterior-to-anterior": (0, 1, 0),
    "inferior-to-superior": (0, 0, 1),
    "superior-to-inferior": (0, 0, -1),
}
_USUAL = {"x": "right-to-left", "y": "anterior-to-posterior", "z": "inferior-to-superior"}


@dataclass
class _Plan:
    """The array of level 0 and how its axes are laid."""

    folder: Path
    driver: str
    shape: tuple[int, ...]
    order: tuple[int, ...]  # axes of the array: [channel,] then (x, y, z) or (y, x)
    affine: np.ndarray  # of (x, y, z) or (y, x)
    located: bool
    channel: bool

    @property
    def spatial(self) -> tuple[int, ...]:
        """The spatial shape S."""
        return tuple(self.shape[axis] for axis in self.order[self.channel :])


def read(path: Path, limit: int) -> Scan:
    """A picture (row, column), or a volume (i = x, j = y, k = z); up to eight channels come first.

    Scale and translation with their units give the affine; anatomical orientations of the axes (RFC-4) are kept.
    """
    import tensorstore as ts

    plan = _plan(path, limit)
    spec = {"driver": plan.driver, "kvstore": {"driver": "file", "path": f"{plan.folder}/"}}
    try:
        array = ts.open(spec, open=True, read=True).result().read().result()
    except ValueError as error:
        # tensorstore's own words name paths.
        raise FileError(
            path, "has level 0 in a form, or with a damaged chunk, that tensorstore cannot read."
        ) from error
    if array.shape != plan.shape:
        raise FileError(path, "has level 0 in another shape than its metadata says.")
    array = array.transpose([*plan.order, *(a for a in range(array.ndim) if a not in plan.order)])
    array = array.reshape(array.shape[: len(plan.order)])
    return Scan(native(array) if plan.channel else native(array)[None], plan.affine, located=plan.located)


def header(path: Path, limit: int) -> tuple[int, ...]:
    """The spatial shape."""
    return _plan(path, limit).spatial


def _plan(path: Path, limit: int) -> _Plan:
    image = _multiscale(path)
    level = _first(path, image.get("datasets"))
    folder = inside(path, path, str(level.get("path", "")))
    shape, driver = _array(path, folder, limit)
    axes = image.get("axes")
    if not (isinstance(axes, list) and len(axes) == len(shape) and all(isinstance(axis, dict) for axis in axes)):
        raise FileError(path, f"describes not all of the {len(shape)} axes of its level 0.")
    scale, shift = np.ones(len(shape)), np.zeros(len(shape))
    for steps in (level.get("coordinateTransformations"), image.get("coordinateTransformations")):
        scale, shift = _transformed(path, scale, shift, steps or [])
    space, channel = _roles(path, axes, shape)
    affine, located = _affine(path, axes, space, scale, shift)
    if len(space) == 3 and shape[space[2]] == 1:
        space = space[:2]
    if len(space) == 2:
        space, affine = space[::-1], swap_first_axes(affine)
    affine = check_affine(path, affine, len(space))
    return _Plan(folder, driver, shape, (*channel, *space), affine, located, bool(channel))


def _json(path: Path, file: Path) -> dict[str, Any]:
    if file.stat().st_size > LARGEST_METADATA:
        raise FileError(path, "has metadata of an absurd size.")
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FileError(path, f"has a {file.name} that is no JSON.") from error
    if not isinstance(found, dict):
        raise FileError(path, f"has a {file.name} that is no Zarr metadata.")
    return found


def _multiscale(path: Path) -> dict[str, Any]:
    """The metadata of the first multiscale image."""
    if (path / "zarr.json").is_file():
        about: Any = _json(path, path / "zarr.json").get("attributes")
        about = about.get("ome") if isinstance(about, dict) else None
        version = about.get("version") if isinstance(about, dict) else None
    elif (path / ".zattrs").is_file():
        about, version = _json(path, path / ".zattrs"), None
    else:
        raise FileError(path, "is a folder without the metadata of an OME-Zarr image.")
    if not isinstance(about, dict) or "multiscales" not in about:
        raise FileError(path, "holds no multiscale image; give the folder within it that does (often 0).")
    image = _first(path, about["multiscales"])
    version = image.get("version", version or "0.4")
    if version not in VERSIONS:
        raise FileError(path, f"is of another NGFF version than {' and '.join(VERSIONS)}.")
    return image


def _first(path: Path, found: Any) -> dict[str, Any]:
    if not (isinstance(found, list) and found and isinstance(found[0], dict)):
        raise FileError(path, "has multiscales metadata without an image or a level.")
    return found[0]


def _array(path: Path, folder: Path, limit: int) -> tuple[tuple[int, ...], str]:
    """(shape, tensorstore's driver) of level 0, sizes and codecs judged."""
    if (folder / "zarr.json").is_file():
        found, driver = _json(path, folder / "zarr.json"), "zarr3"
        grid = found.get("chunk_grid")
        chunks = (grid.get("configuration") or {}).get("chunk_shape") if isinstance(grid, dict) else None
        codecs, known = list(_names(found.get("codecs"))), CODECS_V3
        dtype = _dtype(path, found.get("data_type"))
    elif (folder / ".zarray").is_file():
        found, driver = _json(path, folder / ".zarray"), "zarr"
        chunks = found.get("chunks")
        codecs, known = [c.get("id") for c in (found.get("compressor"),) if isinstance(c, dict)], CODECS_V2
        dtype = _dtype(path, found.get("dtype"))
    else:
        raise FileError(path, "lacks the array of level 0 that its metadata names.")
    if not all(codec in known for codec in codecs):
        raise FileError(path, f"uses a codec that cannot be read; known are {', '.join(known)}.")
    shape = found.get("shape")
    for sides in (shape, chunks):
        if not (isinstance(sides, list) and all(type(n) is int for n in sides) and 2 <= len(sides) <= 5):
            raise FileError(path, "has level 0 without a shape, or chunks, of two to five whole numbers.")
    assert isinstance(shape, list) and isinstance(chunks, list)
    check_size(path, shape, dtype.itemsize, limit)
    check_size(path, chunks, dtype.itemsize, limit)  # a chunk is unpacked whole
    if len(chunks) != len(shape) or math.prod(-(-n // c) for n, c in zip(shape, chunks, strict=True)) > MOST_CHUNKS:
        raise FileError(path, f"is cut into more than {MOST_CHUNKS} chunks, or into chunks of other axes.")
    return tuple(shape), driver


def _names(codecs: Any) -> list[Any]:
    """The names of the codecs of a Zarr v3 array, those within shards included."""
    names: list[Any] = []
    for codec in codecs if isinstance(codecs, list) else []:
        name = codec.get("name") if isinstance(codec, dict) else codec
        names.append(name)
        about = codec.get("configuration") if isinstance(codec, dict) else None
        if name == "sharding_indexed" and isinstance(about, dict):
            names += _names(about.get("codecs")) + _names(about.get("index_codecs"))
    return names


def _dtype(path: Path, name: Any) -> np.dtype:
    try:
        dtype = np.dtype(name) if isinstance(name, str) else None
    except TypeError:
        dtype = None
    if dtype is None or dtype.kind not in "biuf":
        raise FileError(path, "holds other things than real numbers.")
    return dtype


def _transformed(path: Path, scale: np.ndarray, shift: np.ndarray, steps: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scale and translation after further steps, each of which holds one number for each axis."""
    for given in steps if isinstance(steps, list) else [None]:
        step: dict[str, Any] = given if isinstance(given, dict) else {}
        kind = step.get("type")
        if kind == "identity":
            continue
        numbers = step.get(kind) if kind in ("scale", "translation") else None
        if not (isinstance(numbers, list) and all(isinstance(n, int | float) for n in numbers)):
            raise FileError(path, "has a coordinate transformation that is neither a scale nor a translation.")
        if len(numbers) != len(scale):
            raise FileError(path, f"has a {kind} of {len(numbers)} numbers for {len(scale)} axes.")
        values = np.array(numbers, float)
        scale, shift = (scale * values, shift * values) if kind == "scale" else (scale, shift + values)
    return scale, shift


def _roles(path: Path, axes: list[dict[str, Any]], shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(the axes of the array that are x, y[, z], the one that is the channel or none)."""
    kinds = [axis.get("type") for axis in axes]
    space = [n for n, kind in enumerate(kinds) if kind == "space"]
    names = [axes[n].get("name") for n in space]
    if sorted(map(str, names)) not in (["x", "y"], ["x", "y", "z"]):
        raise FileError(path, "has other axes in space than (z, y, x) or (y, x).")
    for n, kind in enumerate(kinds):
        if kind == "time" and shape[n] > 1:
            raise FileError(path, f"has {shape[n]} time points; save each as its own image.")
        if kind not in ("space", "time", "channel") and shape[n] > 1:
            raise FileError(path, f"has an axis of {shape[n]} that is neither space, time nor channel.")
    channel = [n for n, kind in enumerate(kinds) if kind == "channel"]
    if len(channel) > 1:
        raise FileError(path, "has more than one axis of channels.")
    for n in channel:
        check_channels(path, shape[n], "channels")
    return tuple(space[names.index(name)] for name in sorted(map(str, names))), tuple(channel)


def _affine(
    path: Path, axes: list[dict[str, Any]], space: tuple[int, ...], scale: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, bool]:
    """(affine of (x, y[, z]), whether the file says where these lead in the patient)."""
    given = [axes[n].get("orientation") for n in space]
    ways = [str(way.get("value")) if isinstance(way, dict) else "" for way in given]
    located = len(space) == 3 and all(way in _WAYS for way in ways)
    affine = np.eye(4)
    for column, (n, way) in enumerate(zip(space, ways, strict=True)):
        length = millimetres(1.0, str(axes[n].get("unit") or ""))
        if length is None:
            raise FileError(path, "gives an axis in space a unit that is none of length.")
        if not scale[n] > 0:
            raise FileError(path, "gives an axis in space a scale that is not above zero.")
        direction = np.array(_WAYS[way if located else _USUAL[axes[n]["name"]]], float)
        affine[:3, column] = direction * scale[n] * length
        affine[:3, 3] += direction * shift[n] * length
    return affine, located
