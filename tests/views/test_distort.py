import numpy as np
import pytest
import torch

from scanlearn.randomness import Draws, mix
from scanlearn.views import distort
from scanlearn.views.distort import LocalShuffle, _shuffle_map_tensor, shuffle_map
from views import reference

CUBE = (64, 64, 32)


def keys(count):
    return Draws.for_step(0, 0, range(count)).spawn_keys()


def tensor_map(key, spatial, windows):
    """The map of one sample as other devices make it."""
    shape = (1,) * (3 - len(spatial)) + tuple(spatial)
    return _shuffle_map_tensor(key, shape, tuple(max(1, n // 10) for n in shape), windows)


def both_maps(spatial, windows, count):
    """Maps (count, voxels) from the compiled loop and from tensor arithmetic."""
    k = keys(count)
    return shuffle_map(k, spatial, windows).long(), torch.stack([tensor_map(key, spatial, windows) for key in k])


class Stream:
    """The compiled loop's integers, in Python: 21 bits at a time from a SplitMix64 word."""

    def __init__(self, key):
        self.state = key % 2**64

    def word(self):
        value, self.state = mix(self.state), (self.state + 0x9E3779B97F4A7C15) % 2**64
        return [(value >> shift) & (2**21 - 1) for shift in (0, 21, 42)]


def plain_map(key, shape, windows):
    """The compiled loop written for reading: windows of the original, permuted, pasted in order."""
    stream, original = Stream(key), np.arange(np.prod(shape)).reshape(shape)
    out = original.copy()
    for _ in range(windows):
        side = [1 + ((bits * max(1, n // 10)) >> 21) for bits, n in zip(stream.word(), shape, strict=True)]
        start = [(bits * (n - s + 1)) >> 21 for bits, n, s in zip(stream.word(), shape, side, strict=True)]
        box = tuple(slice(a, a + s) for a, s in zip(start, side, strict=True))
        cells, permuted, bits = original[box].flatten().tolist(), [], []
        while cells:
            bits = bits or stream.word()
            pick = (bits.pop(0) * len(cells)) >> 21
            permuted.append(cells[pick])
            cells[pick] = cells[-1]
            cells.pop()
        out[box] = np.reshape(permuted, out[box].shape)
    return out.flatten()


@pytest.mark.parametrize("shape", [(30, 41, 23), (1, 60, 35), (9, 8, 12)])
def test_the_compiled_loop_equals_a_plain_one(shape):
    for key in keys(3).tolist():
        got = shuffle_map(torch.tensor([key]), shape, 40)[0].numpy()
        assert np.array_equal(got, plain_map(key, shape, 40))


@pytest.mark.parametrize("chunk", [1 << 22, 60])
def test_tensor_arithmetic_equals_a_plain_loop(monkeypatch, chunk):
    monkeypatch.setattr(distort, "_CHUNK", chunk)  # all 50 windows at once, or 5 at a time
    shape, key = (30, 20, 25), keys(1)
    same, original = Draws(key), np.arange(15_000).reshape(30, 20, 25)
    out = original.copy()
    for count in [50] if chunk > 600 else [5] * 10:
        corner, order = same.uniform(count, 2, 3)[0].double().numpy(), same.uniform(count, 12)[0].numpy()
        for u, keyed in zip(corner, order, strict=True):
            side = 1 + (u[0] * (3, 2, 2)).astype(int)
            start = (u[1] * (np.array(shape) - side + 1)).astype(int)
            box = tuple(slice(a, a + s) for a, s in zip(start, side, strict=True))
            inside = keyed.reshape(3, 2, 2)[tuple(slice(0, s) for s in side)].flatten()
            out[box] = original[box].flatten()[inside.argsort()].reshape(side)
    assert np.array_equal(tensor_map(key[0], shape, 50).numpy(), out.flatten())


def test_the_default_changes_79_percent_of_a_genesis_cube():
    at = torch.arange(131_072)
    for source in both_maps(CUBE, LocalShuffle().count(CUBE), 3):
        changed = (source != at).float().mean(1)
        assert (changed - 0.79).abs().max() < 0.02


def test_five_windows_change_less_than_a_thousandth_of_a_cube():
    source = shuffle_map(keys(150), CUBE, 5)
    assert abs((source != torch.arange(131_072)).float().mean() - 0.0008) < 0.0002


def test_displacements_are_distributed_as_in_the_plain_numpy_version():
    flat = np.arange(np.prod(CUBE))
    at = np.stack(np.unravel_index(flat, CUBE))
    plain = reference.local_shuffle(flat.reshape(1, *CUBE), np.random.default_rng(0)).flatten()
    moved = np.abs(np.stack(np.unravel_index(plain, CUBE)) - at)
    for source in both_maps(CUBE, 10_000, 1):
        ours = np.abs(at[:, source[0]] - at)
        for axis, longest in enumerate((6, 6, 3)):
            share = [np.bincount(m[axis], minlength=longest) / m.shape[1] for m in (moved, ours)]
            assert len(share[1]) == longest and np.abs(share[0] - share[1]).max() < 0.015


def test_one_window_is_a_permutation_of_a_box():
    for source in both_maps((40, 30), 1, 40):
        for row in source:
            changed = (row != torch.arange(1200)).nonzero()[:, 0]
            assert torch.equal(row[changed].sort().values, changed) or len(changed) == 0
            if len(changed):
                rows, columns = changed // 30, changed % 30
                assert rows.max() - rows.min() < 4 and columns.max() - columns.min() < 3


def test_permutations_and_places_are_uniform():
    source = shuffle_map(keys(60_000), (30,), 1).long()
    moved = source - torch.arange(30)
    start = (moved != 0).int().argmax(1)[moved.any(1)]
    assert abs((~moved.any(1)).float().mean() - (1 + 1 / 2 + 1 / 6) / 3) < 0.01
    # Of 3-windows the six orders are equally probable: the two cyclic ones are recognised by a shift of two.
    left, right = (moved == 2).any(1) & (moved == -1).any(1), (moved == -2).any(1) & (moved == 1).any(1)
    assert abs(left.float().mean() - 1 / 18) < 0.005 and abs(right.float().mean() - 1 / 18) < 0.005
    middle = torch.bincount(start, minlength=30)[1:27] / len(start)
    assert (middle / middle.mean() - 1).abs().max() < 0.15


def test_no_windows_change_nothing():
    assert all(torch.equal(source, torch.arange(600)[None]) for source in both_maps((20, 30), 0, 1))


def test_channels_move_together():
    x = torch.rand(2, 1, 30, 30).repeat(1, 3, 1, 1) + torch.arange(3.0).view(1, 3, 1, 1)
    out = LocalShuffle(500)(x, Draws([1, 2]))
    assert not torch.equal(out, x)
    assert torch.allclose(out[:, 1] - 1, out[:, 0], atol=1e-6) and torch.allclose(out[:, 2] - 2, out[:, 0], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_values_of_any_type_are_moved_untouched(dtype):
    x = torch.rand(1, 1, 30, 30).to(dtype)
    out = LocalShuffle(300)(x, Draws([5]))
    assert out.dtype == dtype and set(out.flatten().tolist()) <= set(x.flatten().tolist())


def test_density_scales_the_number_of_windows_to_the_image():
    op = LocalShuffle("density")
    assert op.count(CUBE) == 10_000 and op.count((128, 128, 64)) == 80_000 and op.count((224, 224)) == 3828
    assert LocalShuffle(5).count((224, 224)) == 5
