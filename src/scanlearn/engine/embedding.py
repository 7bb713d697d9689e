"""One feature vector per scan: the whole image in 2D, the mean over a grid of patches in 3D."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.scans.intensity import to_unit
from scanlearn.scans.resample import resample
from scanlearn.scans.store import Box, Store


def grid_boxes(shape: Sequence[int], size: Sequence[int]) -> list[Box]:
    """Boxes of ``size`` that cover ``shape`` evenly; a scan smaller than the box lies in its middle.

    >>> grid_boxes((10,), (6,))
    [((0,), (6,)), ((4,), (10,))]
    """
    axes = []
    for length, side in zip(shape, size, strict=True):
        count = max(-(-length // side), 1)
        if count == 1:
            axes.append([-((side - length) // 2)])
        else:
            axes.append([round(i * (length - side) / (count - 1)) for i in range(count)])
    starts = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes)).tolist()
    return [(tuple(start), tuple(a + b for a, b in zip(start, size, strict=True))) for start in starts]


CROPS = (1, 10)  # of a 2D scan
MARGIN = 256 / 224  # what a scan is resized to before it is cropped, relative to the crops


def ten_crops(images: Tensor, size: Sequence[int]) -> Tensor:
    """The four corners and the centre of images (n, C, *S), and the mirror images of all five: (10 n, C, *size).

    The crops of one image stand together. The centre is rounded as everywhere: half to even.
    """
    rooms = [have - want for have, want in zip(images.shape[2:], size, strict=True)]
    if len(rooms) != 2 or min(rooms) < 0:
        raise ScanlearnError(f"Crops of {tuple(size)} do not fit into images of {tuple(images.shape[2:])}.")
    (down, right), (height, width) = rooms, size
    corners = [(0, 0), (0, right), (down, 0), (down, right), (round(down / 2), round(right / 2))]
    crops = torch.stack([images[..., y : y + height, x : x + width] for y, x in corners], dim=1)
    return torch.cat([crops, crops.flip(-1)], dim=1).flatten(0, 1)


def unit_scans(
    store: Store, rows: Sequence[int] | np.ndarray, boxes: Sequence[Box] | None, device: torch.device | str
) -> Tensor:
    """Scans of one shape, or boxes of them of one size, in [0, 1]: (n, C, *S)."""
    raw = torch.from_numpy(np.stack(store.read(rows, boxes))).to(device)
    low, high = (torch.from_numpy(bound).to(device) for bound in store.window(rows))
    return to_unit(raw, low, high)


def scan_batches(
    store: Store,
    rows: np.ndarray,
    size: Sequence[int],
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    crops: int = 1,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Deterministic network inputs: (row of each item (n,), images (n, C, *size) in [0, 1]), rows in order.

    A 2D scan is one item, resized, or ``crops`` of it resized to 256 / 224 of ``size``; a 3D scan is as many items as it
    has grid patches.
    """
    flat = store.spatial_dims == 2
    if crops not in CROPS or (crops > 1 and not flat):
        raise ValueError(f"{crops} crops of scans in {store.spatial_dims}D")
    if crops > 1:
        wide = [round(side * MARGIN) for side in size]
        for which, images in scan_batches(store, rows, wide, device, max(batch_size // crops, 1)):
            yield np.repeat(which, crops), ten_crops(images, size)
        return
    boxes_of = {int(row): [] if flat else grid_boxes(store.shape(int(row)), size) for row in rows}
    items = [(int(row), i) for row in rows for i in range(max(len(boxes_of[int(row)]), 1))]
    for start in range(0, len(items), batch_size):
        part = items[start : start + batch_size]
        which = np.array([row for row, _ in part])
        boxes = None if flat else [boxes_of[row][i] for row, i in part]
        images = unit_scans(store, which, boxes, device)
        yield which, resample(images, size) if flat else images


@torch.no_grad()
def embed_scans(
    embed: Callable[[Tensor], Tensor],
    store: Store,
    rows: Sequence[int] | np.ndarray,
    *,
    size: Sequence[int],
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    crops: int = 1,
) -> np.ndarray:
    """Features of scans, float32 (n, num_features), in the order of ``rows``.

    Args:
        embed: images (n, C, *size) in [0, 1] -> features (n, num_features), or whatever else is to be averaged over the
            patches or crops of a scan; the caller puts it in evaluation mode.
        size: what the network was trained on.
        crops: of a 2D scan: 1, or 10 (see ``ten_crops``).
    """
    rows = np.asarray(rows)
    distinct, again = np.unique(rows, return_inverse=True)
    if len(distinct) < len(rows):
        how = {"size": size, "device": device, "batch_size": batch_size, "crops": crops}
        return embed_scans(embed, store, distinct, **how)[again]  # type: ignore[arg-type]
    if len(rows) == 0:
        raise ScanlearnError("There is not one scan to embed: look at the store's splits and labels.")
    place = {int(row): i for i, row in enumerate(rows)}
    sums: np.ndarray | None = None
    counts = np.zeros(len(rows), np.float32)
    for which, images in scan_batches(store, rows, size, device, batch_size, crops):
        features = embed(images).float().cpu().numpy()
        if sums is None:
            sums = np.zeros((len(rows), features.shape[1]), np.float32)
        at = np.array([place[int(row)] for row in which])
        np.add.at(sums, at, features)
        np.add.at(counts, at, 1.0)
    assert sums is not None
    return sums / counts[:, None]
