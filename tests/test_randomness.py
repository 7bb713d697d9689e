import numpy as np
import pytest
import torch

from scanlearn import randomness
from scanlearn.randomness import Draws, key_of, mix, permutation


def test_mix_is_splitmix64():
    # The published sequence for seed 1234567.
    state, got = 1234567, []
    for _ in range(3):
        got.append(mix(state))
        state += 0x9E3779B97F4A7C15
    assert got == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_cpu_loop_and_tensor_arithmetic_give_the_same_numbers(count):
    keys = Draws([0, 1, 2**63, 2**64 - 1]).keys
    assert torch.equal(randomness._bits_of(keys, count), randomness._bits_tensor(keys, count))
    assert torch.equal(randomness.uniform_from(keys, count), randomness._uniform_tensor(keys, count))


def draw_everything(draws):
    return [
        draws.uniform(3, 2),
        draws.bernoulli(0.3, 4),
        draws.integers(2, 9, 5),
        draws.normal(6),
        draws.permutation(8),
        draws.child("name").uniform(2),
        draws.spawn_keys(),
    ]


def test_a_sample_gets_the_same_numbers_whatever_its_batch():
    whole = draw_everything(Draws.for_step(3, 17, range(6)))
    for i in range(6):
        alone = draw_everything(Draws.for_step(3, 17, [i]))
        part = draw_everything(Draws.for_step(3, 17, range(6))[i : i + 1])
        for w, a, p in zip(whole, alone, part, strict=True):
            assert torch.equal(w[i : i + 1], a) and torch.equal(a, p)


def test_seed_step_position_and_call_all_matter():
    base = Draws.for_step(0, 0, [0]).uniform(16)
    others = [Draws.for_step(1, 0, [0]), Draws.for_step(0, 1, [0]), Draws.for_step(0, 0, [1])]
    assert all(not torch.equal(base, d.uniform(16)) for d in others)
    draws = Draws.for_step(0, 0, [0])
    assert not torch.equal(draws.uniform(16), draws.uniform(16))
    assert key_of(1, 2) != key_of(2, 1)


def test_moments_and_independence_between_samples():
    draws = Draws.for_step(5, 0, range(50))
    u, z = draws.uniform(20_000).double(), draws.normal(20_000).double()
    assert abs(u.mean() - 0.5) < 1e-3 and abs(u.var() - 1 / 12) < 1e-3
    assert abs(z.mean()) < 3e-3 and abs(z.var() - 1) < 5e-3
    correlation = torch.corrcoef(u) - torch.eye(50)
    assert correlation.abs().max() < 0.04  # 5 sigma of 1/sqrt(20,000)


def test_integers_cover_both_ends_evenly():
    counts = torch.bincount(Draws([9]).integers(3, 7, 50_000)[0])
    assert counts[:3].sum() == 0 and len(counts) == 8
    assert (counts[3:] / 50_000 - 0.2).abs().max() < 0.01


def test_epoch_order_is_a_function_of_seed_and_epoch():
    assert sorted(permutation(1, 2, 100)) == list(range(100))
    assert np.array_equal(permutation(1, 2, 100), permutation(1, 2, 100))
    assert not np.array_equal(permutation(1, 2, 100), permutation(1, 3, 100))
