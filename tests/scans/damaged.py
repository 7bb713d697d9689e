"""Damaged files: small sound ones of every format, and what bad disks, bad lines and bad people make of them.

As a program, which ``read_damaged`` starts, it reads them under a memory limit and a clock.
"""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

MEMORY = 3 * 2**30  # bytes that reading one file may take beyond the loaded libraries
SECONDS = 10  # before a file counts as a hang
LIMIT = 2**28  # decoded bytes, given to the readers


def seeds(folder: Path) -> list[Path]:
    """Sound files of every format, some hundred bytes to a few kilobytes each."""
    import nibabel as nib
    import SimpleITK as sitk
    import tifffile
    from PIL import Image

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (12, 15), dtype=np.uint8)
    volume = rng.integers(-900, 900, (6, 7, 8), dtype=np.int16)
    for name, image in {
        "grey.png": picture,
        "deep.png": picture.astype(np.uint16) * 257,
        "colour.png": np.stack([picture] * 3, axis=-1),
        "grey.jpg": picture,
        "colour.jpg": np.stack([picture] * 3, axis=-1),
        "grey.bmp": picture,
        "lzw.tif": picture,
        "grey.pgm": picture,
    }.items():
        options = {"compression": "tiff_lzw"} if name == "lzw.tif" else {}
        Image.fromarray(image).save(folder / name, **options)
    affine = np.array([[0, -1, 0, 9], [0.8, 0, 0, -5], [0, 0, 2.5, 7], [0, 0, 0, 1]])
    for name in ("one.nii", "one.nii.gz"):
        nib.save(nib.Nifti1Image(volume, affine), folder / name)
    nib.save(nib.Nifti2Image(volume.astype(np.float32), affine), folder / "two.nii")
    nib.save(nib.MGHImage(volume, affine), folder / "brain.mgz")
    image = sitk.GetImageFromArray(volume)
    image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))
    for name, zipped in (("raw.mha", False), ("zip.mha", True), ("raw.nrrd", False), ("zip.nrrd", True)):
        sitk.WriteImage(image, str(folder / name), zipped)
    tifffile.imwrite(folder / "plain.tif", picture.astype(np.float32))
    tifffile.imwrite(folder / "zip.tif", volume, compression="zlib", photometric="minisblack")
    tifffile.imwrite(folder / "imagej.tif", volume, imagej=True, metadata={"axes": "ZYX", "unit": "mm", "spacing": 2})
    tifffile.imwrite(folder / "ome.ome.tif", volume, metadata={"axes": "ZYX", "PhysicalSizeX": 0.5})
    np.save(folder / "array.npy", volume)
    _dicom(folder / "slice.dcm", picture)
    _zarr(folder / "image.zarr", volume, 2)
    _zarr(folder / "other.zarr", volume, 3)
    return sorted(folder.iterdir())


def _dicom(path: Path, picture: np.ndarray) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    data = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = CTImageStorage, "1.2.3", "CT"
    data.Rows, data.Columns = picture.shape
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 7, 0, 1
    data.PhotometricInterpretation, data.PixelSpacing = "MONOCHROME2", [0.5, 0.7]
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelData = picture.tobytes()
    data.save_as(path, enforce_file_format=True)


def _zarr(path: Path, volume: np.ndarray, version: int) -> None:
    """An OME-Zarr image of one level, (z, y, x)."""
    import tensorstore as ts

    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [2.0, 0.5, 0.5]}]}
    axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]
    image = {"axes": axes, "datasets": [level]}
    path.mkdir()
    if version == 2:
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps({"multiscales": [{"version": "0.4", **image}]}))
        driver = "zarr"
        about = {"compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}, "chunks": [3, 7, 8]}
    else:
        group = {"zarr_format": 3, "node_type": "group"}
        ome = {"ome": {"version": "0.5", "multiscales": [image]}}
        (path / "zarr.json").write_text(json.dumps({**group, "attributes": ome}))
        driver = "zarr3"
        grid = {"name": "regular", "configuration": {"chunk_shape": [3, 7, 8]}}
        codecs = [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "zstd", "configuration": {"level": 3}},
        ]
        about = {"chunk_grid": grid, "codecs": codecs}
    store = {"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/0/"}, "metadata": about}
    opened = ts.open(store, create=True, dtype=ts.int16, shape=volume.shape, fill_value=0).result()
    opened.write(volume).result()


def damaged(sound: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """One damaged copy: bits flipped, cut off, another file's beginning, bytes put in or numbers made huge."""
    data = bytearray(sound)
    kind = rng.integers(6)
    early = min(len(data), 400)  # headers are where damage hurts most
    if kind == 0:
        for at in rng.integers(0, rng.choice([early, len(data)]), rng.integers(1, 9)):
            data[at] ^= 1 << rng.integers(8)
    elif kind == 1:
        data = data[: rng.integers(0, len(data))]
    elif kind == 2:
        cut = int(rng.integers(4, 200))
        data[:cut] = other[:cut]
    elif kind == 3:
        at = int(rng.integers(0, early))
        data[at:at] = rng.bytes(int(rng.integers(1, 40)))
    elif kind == 4:
        at = int(rng.integers(0, early))
        huge = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\0\x80", b"99999999")
        new = huge[rng.integers(len(huge))]
        data[at : at + len(new)] = new
    else:
        at, size = int(rng.integers(0, early)), int(rng.integers(1, 30))
        del data[at : at + size]
    return bytes(data)


def write_damaged(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """``count`` damaged files below ``folder``, the seeds in turn; of a Zarr folder one of its files is damaged."""
    sound = seeds(folder / "sound")
    rng = np.random.default_rng(seed)
    heads = [file.read_bytes() for file in sound if file.is_file()]
    written = []
    for number in range(count):
        source = sound[number % len(sound)]
        target = folder / "damaged" / f"{number:05d}" / source.name
        target.parent.mkdir(parents=True)
        victim = target
        if source.is_dir():
            shutil.copytree(source, target)
            inner = sorted(file for file in target.rglob("*") if file.is_file())
            victim = inner[rng.integers(len(inner))]
        original = victim.read_bytes() if source.is_dir() else source.read_bytes()
        victim.write_bytes(damaged(original, heads[rng.integers(len(heads))], rng))
        written.append(target)
    return written


@dataclass
class Outcome:
    """How reading one damaged file ended.

    ends: of read_header, read_scan and read_mask, each "read", "named: REASON" or "raised: EXCEPTION"; empty where the
    process died or hung, which ``killed`` describes. printed: on stdout and stderr, C libraries included.
    """

    path: Path
    ends: list[str] = field(default_factory=list)
    killed: str = ""
    seconds: float = 0.0
    grown: int = 0  # bytes of memory at the highest, over what the libraries alone take
    printed: str = ""


def read_damaged(folder: Path) -> list[Outcome]:
    """Read what ``write_damaged`` wrote, in processes of their own: one that dies is replaced behind its last file."""
    count = sum(1 for _ in (folder / "damaged").iterdir())
    outcomes: list[Outcome] = []
    while len(outcomes) < count:
        command = [sys.executable, __file__, str(folder), str(len(outcomes))]
        with (folder / "printed").open("w+b") as printed:
            child = subprocess.run(command, stdout=subprocess.PIPE, stderr=printed, text=True, check=False)
        before = len(outcomes)
        for line in child.stdout.splitlines():
            found = json.loads(line)
            if "path" in found:
                outcomes.append(Outcome(Path(found["path"]), killed=f"exit code {child.returncode}"))
            else:
                outcomes[-1] = Outcome(outcomes[-1].path, **found)
        if len(outcomes) == before:
            raise RuntimeError("The process that reads damaged files does not start:\n" + _tail(folder / "printed"))
    return outcomes


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-2000:]


def read_all(folder: Path, start: int) -> None:
    """Read the damaged files from number ``start`` on and write a JSON line before and after each."""
    from scanlearn.scans.read import read_header, read_mask, read_scan

    for path in sorted((folder / "sound").iterdir()):  # loads every library before memory is limited
        read_scan(path)
    limit_memory()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, also within a C library
    warnings.simplefilter("error")
    base = peak()
    for file in sorted((folder / "damaged").iterdir())[start:]:
        (path,) = file.iterdir()
        print(json.dumps({"path": str(path)}), flush=True)
        signal.alarm(SECONDS)
        begin, before = time.perf_counter(), (folder / "printed").stat().st_size
        ends = [ended(reader, path) for reader in (read_header, read_scan, read_mask)]
        signal.alarm(0)
        sys.stderr.flush()
        with (folder / "printed").open("rb") as printed:
            printed.seek(before)
            words = printed.read().decode(errors="replace")
        seconds = time.perf_counter() - begin
        about = {"ends": ends, "seconds": seconds, "grown": peak() - base, "printed": words}
        print(json.dumps(about), flush=True)


def ended(reader: Callable[..., Any], path: Path) -> str:
    """How one reader ended on one file."""
    from scanlearn.errors import FileError

    try:
        reader(path, limit_bytes=LIMIT)
    except FileError as error:
        return f"named: {error.reason}"
    except Exception as error:
        return f"raised: {type(error).__name__}: {error}"
    return "read"


def peak() -> int:
    """The most memory in bytes that this process ever took."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_memory() -> None:
    """No more address space than this process has now and MEMORY."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))


if __name__ == "__main__":
    read_all(Path(sys.argv[1]), int(sys.argv[2]))
