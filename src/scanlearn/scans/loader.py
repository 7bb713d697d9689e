"""Batches from a store: which scan and which patch comes when is a function of (seed, step, position) alone."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws
from scanlearn.scans.episodes import EpisodeWalk
from scanlearn.scans.pace import Pace
from scanlearn.scans.places import surround, surroundings
from scanlearn.scans.resample import nearest, resample
from scanlearn.scans.sampling import SharedWalk, Shares, Walk
from scanlearn.scans.store import Box, Store
from scanlearn.scans.words import Patches

PREFETCH = 2

Batch = dict[str, Any]


class Loader:
    """Iterate over the batches of steps ``start`` to ``stop - 1``.

    The sample at position p of the global batch of step s is number t = s * batch_size + p of an endless walk over
    ``rows``, each pass in a new order; with ``shares`` each group of rows is walked over at its own pace. It does not
    depend on workers, ranks or where the walk was entered.

    Args:
        store, rows: what to walk over.
        batch_size: of all ranks together; rank r owns the r-th of ``world_size`` equal chunks of positions. Where it
            changes on the way: (first step, batch size) of each size, and t counts the samples of all steps before.
        size: voxels per side of a random patch; None gives whole scans (they must share one shape).
        seed, start, stop: of the walk, in steps.
        workers: 0 reads ahead in one thread, else as many processes.
        masks: also give the masks.
        labelled: bool (rows of the store,), which scans' masks may be seen; those of the others are given as 0 and draw
            no patch to themselves. None: all.
        foreground: probability that a patch is centred on a voxel of a mask class, chosen evenly among those present.
        labels: array indexed by row.
        boxes: array (rows of the store, M, 2 * dims) of boxes in voxels of whole scans, as ``views.boxes`` takes them.
        patches: boxes to read instead of random ones, one for each entry of ``rows``; the walk is then over them. Where
            a box has another size than ``size`` it is resampled to it, and ``image`` is float32.
        shares: the part of all samples that each group of ``rows`` gets; None: every row equally often.
        episodes: the walk over ``rows`` instead; sample number t is then the one of its episodes.

    Each batch is a dict with, for the n samples of this rank:
        ``step`` int; ``position`` int64 (n,) in the global batch; ``row`` int64 (n,); ``image`` (n, C, *size) in the
        store's dtype; ``low``, ``high`` float32 (n,), the values that ``to_unit`` takes; with ``masks`` ``mask`` int64
        (n, *size), and with ``labelled`` that, bool (n,); with ``labels`` ``label`` (n, ...); with ``boxes`` ``boxes``
        (n, M, 2 * dims); with ``patches`` ``word`` int64 (n,).
    """

    def __init__(
        self,
        store: Store,
        rows: Sequence[int] | np.ndarray,
        *,
        batch_size: int | Sequence[tuple[int, int]],
        size: Sequence[int] | None,
        seed: int,
        start: int = 0,
        stop: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        masks: bool = False,
        labelled: np.ndarray | None = None,
        foreground: float = 0.0,
        labels: np.ndarray | None = None,
        boxes: np.ndarray | None = None,
        patches: Patches | None = None,
        shares: Shares | None = None,
        episodes: EpisodeWalk | None = None,
    ):
        rows = np.asarray(rows, dtype=np.int64)
        size = None if size is None else tuple(int(n) for n in size)
        if patches is not None:
            _check_patches(patches, rows, size, foreground)
        pace = Pace(batch_size)
        pace.check(world_size)
        _check(store, rows, size, masks, rows if labelled is None else rows[labelled[rows]], foreground, labels)
        if boxes is not None and size is not None:
            raise ScanlearnError("Boxes are of whole scans, and the recipe's size reads patches: leave size out.")
        self.start, self.stop, self.workers = start, stop, workers
        own = partial(pace.positions, rank=rank, world_size=world_size)
        walk = episodes or (Walk(len(rows), seed) if shares is None else SharedWalk(shares, seed))
        self.steps = Steps(
            store, rows, size, pace, own, walk, seed, masks, labelled, foreground, labels, boxes, patches
        )

    def __len__(self) -> int:
        return max(self.stop - self.start, 0)

    def __iter__(self) -> Iterator[Batch]:
        return self._by_processes() if self.workers else self._by_thread()

    def _by_thread(self) -> Iterator[Batch]:
        waiting: deque[Any] = deque()
        pool = ThreadPoolExecutor(1, thread_name_prefix="loader")
        try:
            for step in range(self.start, self.stop):
                waiting.append(pool.submit(self.steps.__getitem__, step))
                if len(waiting) > PREFETCH:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _by_processes(self) -> Iterator[Batch]:
        # The server from which workers are forked imports once what costs seconds and starts no threads.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "numba", "tensorstore"])
        # One item of the data set is one whole step, so nothing is left to collate.
        return iter(
            DataLoader(
                self.steps,
                batch_size=None,
                sampler=range(self.start, self.stop),
                num_workers=self.workers,
                multiprocessing_context=context,
                prefetch_factor=PREFETCH,
                worker_init_fn=partial(_begin_worker, surroundings()),
            )
        )


class Steps(Dataset[Batch]):
    """The batches by step: ``steps[s]`` is the part of the global batch of step s at ``positions(s)``."""

    def __init__(
        self,
        store: Store,
        rows: np.ndarray,
        size: tuple[int, ...] | None,
        pace: Pace,
        positions: Callable[[int], np.ndarray],
        walk: Walk | SharedWalk | EpisodeWalk,
        seed: int,
        masks: bool,
        labelled: np.ndarray | None,
        foreground: float,
        labels: np.ndarray | None,
        boxes: np.ndarray | None,
        patches: Patches | None,
    ):
        self.store, self.rows, self.size, self.pace, self.positions_at = store, rows, size, pace, positions
        self.seed, self.masks, self.foreground, self.labels = seed, masks, foreground, labels
        self.patches, self.boxes = patches, boxes
        self.labelled, self.walk = labelled, walk
        # Told by the whole table, so that every batch has the same type.
        self.resampled = patches is not None and bool((patches.sides != np.array(size)).any())

    def __getitem__(self, step: int) -> Batch:
        items = self.items_at(step)
        rows = self.rows[items]
        boxes = self._boxes(step, items)
        low, high = self.store.window(rows)
        size = self.store.shape(int(rows[0])) if self.size is None else self.size
        image = np.empty((len(rows), self.store.channels, *size), np.float32 if self.resampled else self.store.dtype)
        if self.resampled:
            self._read_resampled(rows, boxes, low, high, image)
        else:
            self.store.read(rows, boxes, image)
        batch: Batch = {
            "step": step,
            "position": torch.from_numpy(self.positions_at(step)),
            "row": torch.from_numpy(rows),
            "image": torch.from_numpy(image),
            "low": torch.from_numpy(low),
            "high": torch.from_numpy(high),
        }
        if self.masks:
            batch["mask"] = torch.from_numpy(self._masks(rows, boxes, size))
            if self.labelled is not None:
                batch["labelled"] = torch.from_numpy(self.labelled[rows])
        if self.labels is not None:
            batch["label"] = torch.as_tensor(self.labels[rows])
        if self.boxes is not None:
            batch["boxes"] = torch.as_tensor(self.boxes[rows])
        if self.patches is not None:
            batch["word"] = torch.from_numpy(self.patches.words[items])
        return batch

    def _masks(self, rows: np.ndarray, boxes: list[Box] | None, size: Sequence[int]) -> np.ndarray:
        """int64 (n, *size): masks of those scans that have one which may be seen."""
        masks = np.zeros((len(rows), *size), np.int64)
        seen = np.arange(len(rows)) if self.labelled is None else np.flatnonzero(self.labelled[rows])
        if len(seen):
            read = self.store.read_masks(rows[seen], None if boxes is None else [boxes[i] for i in seen])
            masks[seen] = [nearest(mask, size) for mask in read] if self.resampled else read
        return masks

    def rows_at(self, step: int) -> np.ndarray:
        """int64 (n,): the rows of the store at this step."""
        return self.rows[self.items_at(step)]

    def items_at(self, step: int) -> np.ndarray:
        """int64 (n,): which entries of ``rows`` are visited at this step."""
        return self.walk.items(self.pace.before(step) + self.positions_at(step))

    def _boxes(self, step: int, items: np.ndarray) -> list[Box] | None:
        if self.patches is not None:
            starts = self.patches.starts[items]
            return list(zip(starts, starts + self.patches.sides[items], strict=True))
        return None if self.size is None else self.boxes_at(step, self.rows[items])

    def _read_resampled(
        self, rows: np.ndarray, boxes: list[Box] | None, low: np.ndarray, high: np.ndarray, out: np.ndarray
    ) -> None:
        """Crops of different sizes brought to one; clipped to the window first, as metal must not bleed into tissue."""
        assert self.size is not None
        for i, crop in enumerate(self.store.read(rows, boxes)):
            clipped = torch.from_numpy(np.clip(crop.astype(np.float32), low[i], high[i]))
            out[i] = resample(clipped[None], self.size)[0].numpy()

    def boxes_at(self, step: int, rows: np.ndarray) -> list[Box]:
        """The patch of each sample: anywhere inside the scan; a scan smaller than the patch lies in its middle."""
        assert self.size is not None
        size = np.array(self.size)
        slack = self.store.shapes(rows) - size
        room = np.maximum(slack, 0)
        draws = Draws.for_step(self.seed, step, self.positions_at(step)).child("patch")
        starts = draws.integers(0, torch.from_numpy(room), len(size)).numpy()
        if self.foreground > 0:
            wanted = draws.bernoulli(self.foreground).numpy()
            which, where = draws.uniform().numpy(), draws.uniform().numpy()
            found, voxels = self.store.foreground.pick(rows, which, where)
            centred = np.clip(voxels - size // 2, 0, room)
            seen = True if self.labelled is None else self.labelled[rows]
            starts = np.where((wanted & found & seen)[:, None], centred, starts)
        starts = np.where(slack < 0, slack // 2, starts)
        return [(start, start + size) for start in starts]


def _begin_worker(variables: dict[str, str], worker: int) -> None:
    torch.set_num_threads(1)
    surround(variables)


def _check_patches(patches: Patches, rows: np.ndarray, size: tuple[int, ...] | None, foreground: float) -> None:
    if size is None:
        raise ScanlearnError(
            "Patches of a table of words need the size that they are brought to: set the recipe's size."
        )
    if not np.array_equal(rows, patches.rows):
        raise ScanlearnError("The rows and the patches of a loader are not about the same scans: give patches.rows.")
    if foreground > 0:
        raise ScanlearnError("Patches of a table of words lie where the words are: leave foreground out.")


def _check(
    store: Store,
    rows: np.ndarray,
    size: tuple[int, ...] | None,
    masks: bool,
    masked: np.ndarray,
    foreground: float,
    labels: np.ndarray | None,
) -> None:
    if len(rows) == 0:
        raise ScanlearnError("There is no scan to load: the list of rows is empty.")
    if size is not None and len(size) != store.spatial_dims:
        raise ScanlearnError(f"The patch size {size} has {len(size)} numbers, but the store is {store.spatial_dims}D.")
    if size is None and not store.same_shape(rows):
        raise ScanlearnError("The scans have different shapes, so whole scans do not make a batch; give a patch size.")
    if (masks or foreground > 0) and not store.masked[masked].all():
        raise ScanlearnError(
            f"{int((~store.masked[masked]).sum())} of {len(masked)} scans have no mask; use only rows that have one."
        )
    if foreground > 0:
        _ = store.foreground  # a damaged one is refused now, and workers need not fetch it each for itself
    if labels is not None and len(labels) != len(store):
        raise ScanlearnError(f"There are {len(labels)} labels for {len(store)} rows of the store; give one for each.")
