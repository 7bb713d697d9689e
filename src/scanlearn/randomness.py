"""Counter-based randomness: every number drawn for a sample is a function of (run seed, step, position in the batch).

A stream is SplitMix64 started from a hash of the sample's key and the number of the call; it can be entered at any
index, so nothing depends on how many workers, ranks or restarts a run had. The same integers come out of the compiled
CPU loop and of the tensor arithmetic that other devices use.

Source of the mixer: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from scanlearn.keys import GAMMA, M1, M2, MASK, key_of, mix


@numba.njit(cache=True, nogil=True, inline="always")
def _mix(value):  # type: ignore[no-untyped-def]
    value = (value ^ (value >> np.uint64(30))) * np.uint64(M1)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(M2)
    return value ^ (value >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def _bits(starts, out):  # type: ignore[no-untyped-def]
    # out (N, count) uint64: SplitMix64 of each start, entered at index 0.
    for n in range(out.shape[0]):
        state = starts[n]
        for i in range(out.shape[1]):
            state += np.uint64(GAMMA)
            out[n, i] = _mix(state)


@numba.njit(cache=True, nogil=True)
def _uniform(starts, out):  # type: ignore[no-untyped-def]
    # out (N, count) float32 in [0, 1): two numbers of 24 bits from each 64-bit word, low half first.
    scale = np.float32(1.0 / (1 << 24))
    count = out.shape[1]
    for n in range(out.shape[0]):
        state = starts[n]
        for i in range(0, count - 1, 2):
            state += np.uint64(GAMMA)
            word = _mix(state)
            out[n, i] = np.float32(np.int32((word >> np.uint64(8)) & np.uint64(0xFFFFFF))) * scale
            out[n, i + 1] = np.float32(np.int32(word >> np.uint64(40))) * scale
        if count % 2:
            word = _mix(state + np.uint64(GAMMA))
            out[n, count - 1] = np.float32(np.int32((word >> np.uint64(8)) & np.uint64(0xFFFFFF))) * scale


def _signed(value: int) -> int:
    value &= MASK
    return value - (1 << 64) if value >> 63 else value


def _shift(value: Tensor, bits: int) -> Tensor:
    # int64 has no logical shift: shift arithmetically, then clear the copied sign bits.
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _bits_tensor(starts: Tensor, count: int) -> Tensor:
    """The same integers as ``_bits`` with tensor arithmetic (int64 wraps as uint64 does): (N,) -> (N, count)."""
    index = torch.arange(1, count + 1, device=starts.device, dtype=torch.int64)
    value = starts[:, None] + index * _signed(GAMMA)
    value = (value ^ _shift(value, 30)) * _signed(M1)
    value = (value ^ _shift(value, 27)) * _signed(M2)
    return value ^ _shift(value, 31)


def _uniform_tensor(starts: Tensor, count: int) -> Tensor:
    words = _bits_tensor(starts, (count + 1) // 2)
    halves = torch.stack([_shift(words, 8) & 0xFFFFFF, _shift(words, 40)], dim=2).flatten(1)[:, :count]
    return halves.to(torch.float32) * (1.0 / (1 << 24))


class Draws:
    """Independent random streams, one for each of the N samples of a batch.

    Every call opens a new stream in all samples, so two calls never share numbers, and what sample ``i`` gets depends
    on its own key and on the number of the call alone: ``draws[2:3].uniform(5)`` equals ``draws.uniform(5)[2:3]``.
    """

    def __init__(self, keys: Tensor | np.ndarray | list[int], device: torch.device | str = "cpu"):
        if not isinstance(keys, Tensor):
            keys = torch.from_numpy(np.array([k & MASK for k in map(int, keys)], dtype=np.uint64).view(np.int64))
        self.keys = keys.to(device=device, dtype=torch.int64)  # (N,), bits of an unsigned number
        self._calls = 0

    @classmethod
    def for_step(cls, seed: int, step: int, positions: Any, device: torch.device | str = "cpu") -> Draws:
        """Streams for the samples at ``positions`` of the global batch of ``step``."""
        return cls([key_of(seed, step, int(p)) for p in positions], device)

    def __len__(self) -> int:
        return self.keys.shape[0]

    @property
    def device(self) -> torch.device:
        return self.keys.device

    def __getitem__(self, which: Any) -> Draws:
        """The same streams for some of the samples (slice, index list or boolean mask)."""
        part = Draws(self.keys[which], self.device)
        part._calls = self._calls
        return part

    def child(self, name: str) -> Draws:
        """New streams under a name, independent of these and of every other name."""
        return Draws(self._starts(key_of("child", name)), self.device)

    def _starts(self, salt: int) -> Tensor:
        return _bits_of(self.keys ^ _signed(mix(salt)), 1)[:, 0]

    def _next(self) -> Tensor:
        self._calls += 1
        return self._starts(self._calls)

    def spawn_keys(self) -> Tensor:
        """(N,) int64 keys from which ``uniform_from`` expands large fields later, in a view's pure ``apply``."""
        return self._next()

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 (N, *shape), uniform in [low, high)."""
        value = uniform_from(self._next(), *shape)
        return value if (low, high) == (0.0, 1.0) else value * (high - low) + low

    def bernoulli(self, probability: float, *shape: int) -> Tensor:
        """bool (N, *shape), true with the given probability."""
        return self.uniform(*shape) < probability

    def integers(self, low: int | Tensor, high: int | Tensor, *shape: int) -> Tensor:
        """int64 (N, *shape), uniform on low..high, *both ends included*; the ends may be tensors of that shape."""
        span = high - low + 1
        # 24 bits of fraction: exact for every span the views use (sides and offsets of images).
        value = (self.uniform(*shape).double() * span).long()
        return value + low

    def normal(self, *shape: int) -> Tensor:
        """float32 (N, *shape), standard normal (Box-Muller)."""
        first, second = self.uniform(*shape), self.uniform(*shape)
        return torch.sqrt(-2.0 * torch.log1p(-first)) * torch.cos(second * (2.0 * np.pi))

    def permutation(self, count: int) -> Tensor:
        """int64 (N, count): a random permutation of 0..count-1 for each sample."""
        return _bits_of(self._next(), count).argsort(dim=1, stable=True)


def uniform_from(keys: Tensor, *shape: int) -> Tensor:
    """float32 (N, *shape) in [0, 1), a pure function of the keys (N,): the same on every device."""
    count = int(np.prod(shape, dtype=np.int64))
    if keys.device.type != "cpu":
        return _uniform_tensor(keys, count).view(len(keys), *shape)
    out = np.empty((len(keys), count), np.float32)
    _uniform(keys.numpy().view(np.uint64), out)
    return torch.from_numpy(out).view(len(keys), *shape)


def _bits_of(keys: Tensor, count: int) -> Tensor:
    if keys.device.type != "cpu":
        return _bits_tensor(keys, count)
    out = np.empty((len(keys), count), np.uint64)
    _bits(keys.numpy().view(np.uint64), out)
    return torch.from_numpy(out.view(np.int64))


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of ``count`` scans in one pass over the data, int64; a function of (seed, epoch) alone."""
    generator = np.random.Generator(np.random.Philox(key=np.array([key_of(seed, "order"), epoch], np.uint64)))
    return generator.permutation(count)
