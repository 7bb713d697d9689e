"""How long a random patch of a CT takes: from the store, .nii.gz, blosc2 as nnssl writes it, and a raw memmap.

    python bench/patch_reads.py

Four made-up chest CTs (256x256x192, int16) that compress like a real one. Every way reads the same batches as one
array, in turns; outputs are compared first. Files are in the page cache, and the store has no room to keep decoded
chunks, as with many scans. Ratios are medians of paired repeats; CPU time counts all threads, so a busy machine
disturbs it little. Needs the extra ``bench``.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import blosc2
import nibabel as nib
import numpy as np
from scipy import ndimage

from scanlearn.scans.prepare import prepare
from scanlearn.scans.store import Store, open_store

SHAPE, SCANS = (256, 256, 192), 4
SIZES = {(64, 64, 32): 16, (96, 96, 96): 4}  # patch: patches in a batch
REPEATS, BATCHES = 7, 8
SMALL_CACHE, LARGE_CACHE = 8 << 20, 512 << 20  # holds indexes of shards and little else; holds all volumes
NNSSL_PATCH = (160, 160, 160)
# How many times as long as the store a way should take at least: for the smaller and for the larger patch.
AIMS = {"nii.gz, nibabel": (50.0, 50.0), "blosc2, nnssl": (1.0, 3.0), "memmap": (1 / 6, 1 / 6)}

Batch = Sequence[tuple[int, tuple[slice, ...]]]
Reader = Callable[[Batch], np.ndarray]


def chest(seed: int) -> np.ndarray:
    """A made-up chest in Hounsfield units, int16: air, body, lungs, spine, slow texture and correlated noise."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, s, dtype=np.float32) for s in SHAPE], indexing="ij", sparse=True)
    body = (x / 0.9) ** 2 + (y / 0.7) ** 2 < 1
    texture = ndimage.zoom(rng.normal(size=[s // 8 for s in SHAPE]).astype(np.float32), 8, order=1)
    noise = ndimage.gaussian_filter(rng.standard_normal(SHAPE, dtype=np.float32), 0.7)
    hu = np.where(body, 40 + 30 * texture, -1000)
    for side in (-1, 1):
        lung = ((x - side * 0.42) / 0.33) ** 2 + (y / 0.5) ** 2 + (z / 0.9) ** 2 < 1
        hu = np.where(lung, -870 + 80 * np.abs(texture), hu)
    hu = np.where((x / 0.12) ** 2 + ((y - 0.5) / 0.12) ** 2 < 1, 350 + 150 * texture, hu)
    hu += np.where(body, 25, 20) * noise / noise.std()
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def nnssl_blocks(shape: Sequence[int], patch: Sequence[int], itemsize: int = 4) -> tuple[tuple[int, ...], ...]:
    """(block, chunk) by the rule of nnU-Net v2 and nnssl for 3D arrays with one channel.

    A block begins as half the patch, rounded down to powers of 2, and the axis that is largest beside the patch is
    halved until it fits 80 % of a 32 KiB L1 cache. A chunk grows by blocks along its smallest axis until it reaches
    80 % of a 1.375 MiB L3 share.
    """
    block = [2 ** (p // 2).bit_length() // 2 for p in patch]
    while np.prod(block) * itemsize > 0.8 * (32 << 10):
        axis = max(reversed(range(3)), key=lambda a: block[a] / patch[a])
        block[axis] //= 2
    chunk = list(block)
    while np.prod(chunk) * itemsize < 0.8 * 1441792 and chunk != list(shape):
        axis = min((a for a in range(3) if chunk[a] < shape[a]), key=lambda a: chunk[a] / block[a])
        chunk[axis] = min(chunk[axis] + block[axis], shape[axis])
    return tuple(block), tuple(chunk)


def write(folder: Path) -> None:
    """The same volumes in every format."""
    blosc2.set_nthreads(1)
    (folder / "nii").mkdir()
    for n in range(SCANS):
        volume = chest(n)
        nib.save(nib.Nifti1Image(volume, np.eye(4)), folder / f"nii/v{n}.nii.gz")
        np.save(folder / f"v{n}.npy", volume)
        block, chunk = nnssl_blocks(SHAPE, NNSSL_PATCH)
        blosc2.asarray(
            volume[None].astype(np.float32),
            urlpath=str(folder / f"v{n}.b2nd"),
            blocks=(1, *block),
            chunks=(1, *chunk),
            cparams={"codec": blosc2.Codec.ZSTD, "clevel": 8},
            mmap_mode="w+",
        )
    prepare(folder / "nii", folder / "store", identifiers="kept", workers=0)
    raw = SCANS * np.prod(SHAPE) * 2
    sizes = {
        ".nii.gz": sum(p.stat().st_size for p in folder.glob("nii/*")),
        f"blosc2, float32, blocks {block}, chunks {chunk}": sum(p.stat().st_size for p in folder.glob("*.b2nd")),
        "store": sum(p.stat().st_size for p in folder.glob("store/**/*") if p.is_file()),
    }
    print(f"{SCANS} volumes of {raw / SCANS / 1e6:.1f} MB; times smaller: ", end="")
    print(", ".join(f"{name} {raw / size:.2f}" for name, size in sizes.items()))


def readers(folder: Path, one_thread: bool) -> dict[str, Reader]:
    """By name: from (volume, box) of each patch to one array (n, *size)."""
    names = [f"v{n}" for n in range(SCANS)]
    store = open_store(folder / "store", cache_bytes=SMALL_CACHE, threads=1 if one_thread else None)
    cached = open_store(folder / "store", cache_bytes=LARGE_CACHE, threads=1 if one_thread else None)
    rows = [cached.catalog.column("scan_id").index(name) for name in names]
    maps = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in names]

    def gathered(one: Callable[[int, tuple[slice, ...]], np.ndarray], dtype: type) -> Reader:
        def read(batch: Batch) -> np.ndarray:
            out = np.empty((len(batch), *(s.stop - s.start for s in batch[0][1])), dtype)
            for i, (n, box) in enumerate(batch):
                out[i] = one(n, box)
            return out

        return read

    def from_store(opened: Store) -> Reader:
        def read(batch: Batch) -> np.ndarray:
            boxes = [([s.start for s in box], [s.stop for s in box]) for _, box in batch]
            out = np.empty((len(batch), 1, *(s.stop - s.start for s in batch[0][1])), np.int16)
            opened.read([rows[n] for n, _ in batch], boxes, out)
            return out[:, 0]

        return read

    def blosc(threads: int) -> Callable[[int, tuple[slice, ...]], np.ndarray]:
        def one(n: int, box: tuple[slice, ...]) -> np.ndarray:
            # As nnssl: opened for every patch.
            blosc2.set_nthreads(threads)
            path = str(folder / f"{names[n]}.b2nd")
            return blosc2.open(path, mode="r", dparams={"nthreads": threads}, mmap_mode="r")[(0, *box)]

        return one

    ways: dict[str, Reader] = {
        "store": from_store(store),
        "store, all in its cache": from_store(cached),
        "nii.gz, nibabel": gathered(
            lambda n, box: np.asarray(nib.load(folder / f"nii/{names[n]}.nii.gz").dataobj)[box], np.int16
        ),
        "blosc2, nnssl": gathered(blosc(1), np.float32),
        "memmap": gathered(lambda n, box: maps[n][box], np.int16),
    }
    if not one_thread:
        ways["blosc2, all threads"] = gathered(blosc(os.cpu_count() or 1), np.float32)
    return ways


def draw(rng: np.random.Generator, size: Sequence[int], count: int) -> Batch:
    """Random boxes inside random volumes."""
    starts = [[int(rng.integers(side - n + 1)) for side, n in zip(SHAPE, size, strict=True)] for _ in range(count)]
    return [
        (int(rng.integers(SCANS)), tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))) for start in starts
    ]


def compare(ways: dict[str, Reader], size: Sequence[int], count: int) -> None:
    """Every way must give the same numbers before anything is timed."""
    batch = draw(np.random.default_rng(1), size, count)
    expected = ways["memmap"](batch)
    for name, read in ways.items():
        assert np.array_equal(read(batch), expected), name


def measure(ways: dict[str, Reader], size: Sequence[int], count: int) -> dict[str, list[tuple[float, float]]]:
    """By name: (wall, CPU) seconds for each patch in every repeat."""
    rng = np.random.default_rng(2)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for repeat in range(REPEATS):
        batches = [draw(rng, size, count) for _ in range(BATCHES)]
        names = list(ways)
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            # A whole .nii.gz takes as long for any patch, so that a few are enough.
            mine = [batches[0][:2]] if name.startswith("nii") else batches
            wall, cpu = time.perf_counter(), time.process_time()
            for batch in mine:
                ways[name](batch)
            patches = sum(map(len, mine))
            times[name].append(((time.perf_counter() - wall) / patches, (time.process_time() - cpu) / patches))
    return times


def report(times: dict[str, list[tuple[float, float]]], size: Sequence[int], large: bool) -> None:
    """Times for each patch, how the store compares by the clock and by CPU time, and whether the aim is met."""
    print(f"{'patch of ' + ' x '.join(map(str, size)):26s}{'ms':>8s}{'CPU ms':>9s}   the store is (by CPU time)")
    for name, found in times.items():
        wall, cpu = (statistics.median(t[i] for t in found) * 1e3 for i in (0, 1))
        line = f"{name:26s}{wall:8.2f}{cpu:9.2f}   "
        if name != "store":
            ratios = [
                statistics.median(t[i] / s[i] for t, s in zip(found, times["store"], strict=True)) for i in (0, 1)
            ]
            line += f"{words(ratios[0])} ({words(ratios[1])})"
            if name in AIMS:
                aim = AIMS[name][large]
                line += f"; aim {words(aim)}: {'met' if ratios[0] >= aim else 'MISSED'}"
        print(line)


def words(ratio: float) -> str:
    """A ratio of times, other / store, for people."""
    return f"{ratio:.1f} x faster" if ratio >= 1 else f"{1 / ratio:.1f} x slower"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="scanlearn-bench-") as name:
        folder = Path(name)
        os.environ.setdefault("SCANLEARN_PRIVATE", str(folder / "private"))
        write(folder)
        for one_thread in (False, True):
            print(f"\n{'One thread each' if one_thread else 'Threads as each library has them by default'}")
            ways = readers(folder, one_thread)
            for size, count in SIZES.items():
                compare(ways, size, count)
                report(measure(ways, size, count), size, large=size == max(SIZES))


if __name__ == "__main__":
    main()
