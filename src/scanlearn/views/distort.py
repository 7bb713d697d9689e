"""Local shuffling of voxels (``local_shuffle``), the texture distortion of Models Genesis.

Source: Zhou et al., "Models Genesis", Medical Image Analysis 2021, section on local pixel shuffling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numba
import numpy as np
import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.keys import GAMMA
from scanlearn.randomness import Draws, _mix
from scanlearn.views.op import VIEWS, Op, Params

_WINDOWS, _VOXELS = 10_000, 131_072  # the published number of windows, and the voxels of the cube it was made for
_CHUNK = 1 << 22  # cells that the tensor path holds at once
_BITS = np.uint64(21)
_LOW = np.uint64((1 << 21) - 1)
_STEP = np.uint64(GAMMA)


@numba.njit(inline="always")
def _below(bits, bound):  # type: ignore[no-untyped-def]
    # An integer in 0..bound-1 from the low 21 bits, by multiplication (Lemire); the bias is below bound / 2**21.
    return ((bits & _LOW) * bound) >> _BITS


@numba.njit(cache=True, nogil=True)
def _shuffle_map(keys, n0, n1, n2, longest0, longest1, longest2, windows, out):  # type: ignore[no-untyped-def]
    # out (N, voxels) int32: from where each voxel is taken. Each window permutes places of the original image; a later
    # window overwrites an earlier one. All arithmetic is unsigned: mixed with signed numbers it would become floating.
    one = np.uint64(1)
    cells = np.empty(longest0 * longest1 * longest2, np.int32)
    for n in range(out.shape[0]):
        source, state = out[n], keys[n]
        for v in range(out.shape[1]):
            source[v] = v
        for _ in range(windows):
            sides, places = _mix(state + _STEP), _mix(state + _STEP + _STEP)
            state += _STEP + _STEP
            s0 = one + _below(sides, longest0)
            s1 = one + _below(sides >> _BITS, longest1)
            s2 = one + _below(sides >> (_BITS + _BITS), longest2)
            a0 = _below(places, n0 - s0 + one)
            a1 = _below(places >> _BITS, n1 - s1 + one)
            a2 = _below(places >> (_BITS + _BITS), n2 - s2 + one)
            count = np.uint64(0)
            for i in range(a0, a0 + s0):
                for j in range(a1, a1 + s1):
                    line = (i * n1 + j) * n2
                    for k in range(line + a2, line + a2 + s2):
                        cells[count] = k
                        count += one
            word, left = np.uint64(0), 0
            for i in range(a0, a0 + s0):
                for j in range(a1, a1 + s1):
                    line = (i * n1 + j) * n2
                    for k in range(line + a2, line + a2 + s2):
                        if left == 0:
                            state += _STEP
                            word, left = _mix(state), 3
                        pick = _below(word, count)
                        word >>= _BITS
                        left -= 1
                        count -= one
                        source[k] = cells[pick]
                        cells[pick] = cells[count]


@numba.njit(cache=True, nogil=True)
def _gather(x, source, out):  # type: ignore[no-untyped-def]
    # x, out (N, C, voxels); source (N, voxels).
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            for v in range(x.shape[2]):
                out[n, c, v] = x[n, c, source[n, v]]


def shuffle_map(keys: Tensor, spatial: Sequence[int], windows: int) -> Tensor:
    """(N, voxels): the flat index from which each voxel is taken; int32 on CPU, int64 elsewhere."""
    shape = (1,) * (3 - len(spatial)) + tuple(spatial)
    longest = tuple(max(1, n // 10) for n in shape)
    if keys.device.type != "cpu":
        return torch.stack([_shuffle_map_tensor(key, shape, longest, windows) for key in keys])
    source = np.empty((len(keys), math.prod(shape)), np.int32)
    _shuffle_map(keys.numpy().view(np.uint64), *map(np.uint64, (*shape, *longest)), windows, source)
    return torch.from_numpy(source)


def _shuffle_map_tensor(key: Tensor, shape: tuple[int, ...], longest: tuple[int, ...], windows: int) -> Tensor:
    """The map of one sample with tensor arithmetic: the same distribution, other numbers than the compiled loop."""
    voxels, device = math.prod(shape), key.device
    n, most = torch.tensor(shape, device=device), torch.tensor(longest, device=device)
    grid = torch.stack(torch.meshgrid(*(torch.arange(m, device=device) for m in longest), indexing="ij")).flatten(
        1
    )  # (3, cells)
    strides = torch.tensor([shape[1] * shape[2], shape[2], 1], device=device)
    chunk = max(1, _CHUNK // grid.shape[1])
    winner = torch.full((voxels,), -1, device=device, dtype=torch.int64)
    draws = Draws(key[None], device)
    source = torch.arange(voxels, device=device)
    for first in range(0, windows, chunk):
        count = min(chunk, windows - first)
        u = draws.uniform(count, 2, 3)[0].double()
        side = 1 + (u[:, 0] * most).long()
        start = (u[:, 1] * (n - side + 1)).long()
        inside = (grid[None] < side[..., None]).all(1)  # (count, cells)
        cell = ((start[..., None] + grid[None]) * strides[:, None]).sum(1)
        # Places in order, cells inside the window first; sources in random order, again inside first.
        order = draws.uniform(count, grid.shape[1])[0]
        taken = torch.where(inside, order, 2.0).argsort(1)
        place = torch.where(inside, 0, 1).argsort(dim=1, stable=True)
        valid = inside.gather(1, place)
        target, origin = cell.gather(1, place)[valid], cell.gather(1, taken)[valid]
        window = torch.arange(first, first + count, device=device)[:, None].expand_as(valid)[valid]
        # The highest window number wins; no two cells of a window share a target.
        winner.fill_(-1).scatter_reduce_(0, target, window * voxels + origin, "amax")
        source = torch.where(winner >= 0, winner % voxels, source)
    return source


@VIEWS.register("local_shuffle")
class LocalShuffle(Op):
    """Permute the voxels inside many small random windows; all channels move together.

    Every window reads the original image and later windows overwrite earlier ones. Sides are uniform in 1..n//10 (at
    least 1) for each axis, places uniform. ``windows`` is their number, or ``density``: 10,000 for every
    131,072 voxels. 10,000 windows change 79 % of the voxels of a 64x64x32 cube.
    """

    def __init__(self, windows: int | str = _WINDOWS, p: float = 1.0):
        super().__init__(p)
        if windows != "density" and (not isinstance(windows, int) or windows < 0):
            raise ScanlearnError(f"local_shuffle: windows is a number >= 0 or 'density', not {windows!r}.")
        self.windows = windows

    def count(self, spatial: Sequence[int]) -> int:
        """The number of windows for an image of this size."""
        if isinstance(self.windows, int):
            return self.windows
        return round(_WINDOWS * math.prod(spatial) / _VOXELS)

    def draw(self, shape: Sequence[int], draws: Draws) -> Params:
        return {"keys": draws.spawn_keys()}

    def apply(self, x: Tensor, params: Params) -> Tensor:
        source = shuffle_map(params["keys"], x.shape[2:], self.count(x.shape[2:]))
        flat = x.flatten(2)
        if x.device.type != "cpu":
            return flat.gather(2, source[:, None].expand_as(flat)).view(x.shape)
        # Moving values needs no arithmetic: any type is moved as integers of its width.
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
        flat, out = flat.contiguous(), torch.empty_like(flat, memory_format=torch.contiguous_format)
        _gather(flat.view(bits).numpy(), source.numpy(), out.view(bits).numpy())
        return out.view(x.shape)
