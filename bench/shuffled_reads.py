"""Whether a store larger than its caches is read in random order as fast as the disk gives random reads.

    python bench/shuffled_reads.py [GIGABYTES]

Makes a store of 224x224 images (default 3 GB; twice that on disk for a moment), and reads random batches of 128, each
image once: by the Loader, and by plain reads of the same byte ranges, one at a time and 32 at a time, in turns. Before
each turn the system is told to forget the pages of the store, and asked whether it did. Images are compared first.
Peak memory is that of the largest reading process.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
from scipy import ndimage

from scanlearn.scans.arrays import CACHE_BYTES, STACK_SHARD_BYTES
from scanlearn.scans.loader import Loader
from scanlearn.scans.prepare import prepare
from scanlearn.scans.store import open_store

SIDE, BATCH, STEPS, REPEATS = 224, 128, 60, 5
EDGE = 6  # batches at both ends that are not timed, as the Loader reads ahead
READERS = 32
PLAIN = f"plain reads, {READERS} at a time"


def make(folder: str, count: int) -> None:
    """A store of ``count`` images that hardly compress, as radiographs of 8 bits do not."""
    rng = np.random.default_rng(0)
    smooth = np.stack([ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 6) for _ in range(16)])
    smooth = (smooth * 400 + 120).clip(0, 239).astype(np.uint8)
    images = np.empty((count, SIDE, SIDE), np.uint8)
    for start in range(0, count, 2000):
        part = images[start : start + 2000]
        part[...] = rng.integers(0, 16, part.shape, np.uint8)
        part += smooth[np.arange(start, start + len(part)) % 16]
        part[:, 0, :4] = np.arange(start, start + len(part), dtype="<u4")[:, None].view(np.uint8)  # its row
    np.savez(f"{folder}/images.npz", image=images)
    del images
    prepare(f"{folder}/images.npz", f"{folder}/store", identifiers="kept")
    Path(folder, "images.npz").unlink()


class Shards:
    """The byte range of every image in the store's files, and plain reads of them."""

    def __init__(self, store: Path):
        files = sorted(store.glob("images/c/*/0/0/0"), key=lambda path: int(path.parts[-4]))
        self.files = [os.open(path, os.O_RDONLY) for path in files]
        self.each = STACK_SHARD_BYTES // SIDE**2
        self.bytes = sum(os.fstat(file).st_size for file in self.files)
        self._tables = [self._table(file) for file in self.files]

    def _table(self, file: int) -> np.ndarray:
        # The end of a shard: offset and length of each inner chunk as uint64, then a checksum of 4 bytes.
        raw = os.pread(file, 16 * self.each, os.fstat(file).st_size - 16 * self.each - 4)
        return np.frombuffer(raw, "<u8").reshape(self.each, 2)

    def range_of(self, row: int) -> tuple[int, int, int]:
        """(file, offset, length)."""
        shard, place = divmod(int(row), self.each)
        offset, length = self._tables[shard][place]
        return self.files[shard], int(offset), int(length)

    def read(self, row: int) -> int:
        """Read an image as it lies on the disk; how many bytes."""
        file, offset, length = self.range_of(row)
        return len(os.pread(file, length, offset))

    def forget(self) -> None:
        """Ask the system to drop the pages of all files, and check that it did."""
        os.sync()
        for file in self.files:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        rows = np.random.default_rng().integers(self.each * (len(self.files) - 1), size=200)
        kept = sum(self._in_memory(row) for row in rows)
        assert kept < 4, f"{kept} of {len(rows)} images are still in memory"

    def _in_memory(self, row: int) -> bool:
        file, offset, length = self.range_of(row)
        try:
            return os.preadv(file, [bytearray(length)], offset, os.RWF_NOWAIT) == length
        except BlockingIOError:
            return False


def plain(shards: Shards, rows: np.ndarray, pool: ThreadPoolExecutor | None) -> float:
    """Images per second."""
    start = time.perf_counter()
    for batch in rows:
        sum(pool.map(shards.read, batch) if pool else map(shards.read, batch))
    return rows.size / (time.perf_counter() - start)


def by_loader(store: str, seed: int, workers: int) -> None:
    """Print images per second and the peak memory of the largest process in MB; its start-up is not timed."""
    opened = open_store(store)
    loader = Loader(opened, np.arange(len(opened)), batch_size=BATCH, size=None, seed=seed, stop=STEPS, workers=workers)
    batches, times = iter(loader), []
    pids = [os.getpid(), *(worker.pid for worker in getattr(batches, "_workers", []))]
    for _ in range(STEPS - EDGE):
        next(batches)
        times.append(time.perf_counter())
    peaks = [Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0] for pid in pids]
    speed = BATCH * (STEPS - 2 * EDGE) / (times[-1] - times[EDGE - 1])
    print(json.dumps([speed, max(map(int, peaks)) / 1e3]))


def compare(store: str, shards: Shards) -> None:
    """The Loader gives the images that it says, and their byte ranges are those of the file."""
    opened = open_store(store)
    for batch in Loader(opened, np.arange(len(opened)), batch_size=BATCH, size=None, seed=99, stop=3):
        marks = np.ascontiguousarray(batch["image"].numpy()[:, 0, 0, :4]).view("<u4")[:, 0]
        assert np.array_equal(marks, batch["row"].numpy()), "another image than asked for"
        assert all(shards.read(row) == shards.range_of(row)[2] for row in batch["row"].tolist())


def measure(store: str, shards: Shards) -> tuple[dict[str, list[float]], float]:
    """Images per second of each way in every repeat, and the peak memory."""
    opened = open_store(store)
    steps = Loader(opened, np.arange(len(opened)), batch_size=BATCH, size=None, seed=0, stop=1).steps
    found: dict[str, list[float]] = {}
    memory = 0.0
    with ThreadPoolExecutor(READERS) as pool:
        for seed in range(REPEATS):
            steps.seed = seed
            rows = np.stack([steps.rows_at(step) for step in range(STEPS)])
            for name, threads in (("plain reads, one at a time", None), (PLAIN, pool)):
                shards.forget()
                found.setdefault(name, []).append(plain(shards, rows, threads))
            for name, workers in (("Loader", 0), ("Loader, 2 worker processes", 2)):
                shards.forget()
                command = [sys.executable, __file__, "loader", store, str(seed), str(workers)]
                speed, peak = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                found.setdefault(name, []).append(speed)
                memory = max(memory, peak)
    return found, memory


def main() -> None:
    if sys.argv[1:2] == ["loader"]:
        by_loader(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    count = int(gigabytes * 1e9 / SIDE**2)
    with tempfile.TemporaryDirectory(prefix="scanlearn-bench-") as folder:
        os.environ.setdefault("SCANLEARN_PRIVATE", f"{folder}/private")
        child = get_context("spawn").Process(target=make, args=(folder, count))
        child.start()
        child.join()
        shards = Shards(Path(folder, "store"))
        compare(f"{folder}/store", shards)
        found, memory = measure(f"{folder}/store", shards)
    print(f"\n{count} images, {shards.bytes / 1e9:.2f} GB in {len(shards.files)} files; cache {CACHE_BYTES >> 20} MB")
    print(f"{'random batches of 128':32s}{'images/s':>10s}{'MB/s':>8s}{'/ plain':>9s}")
    for name, speeds in found.items():
        ratio = statistics.median(a / b for a, b in zip(speeds, found[PLAIN], strict=True))
        speed = statistics.median(speeds)
        print(f"{name:32s}{speed:10.0f}{speed * shards.bytes / count / 1e6:8.0f}{ratio:9.2f}")
    print(f"peak memory of the largest reading process: {memory:.0f} MB")


if __name__ == "__main__":
    main()
