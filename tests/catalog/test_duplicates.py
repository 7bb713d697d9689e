import itertools

import numpy as np
import pytest

from scanlearn.catalog.duplicates import BITS, RADIUS, Pairs, alike, hashes, likeness, mirrored


def random_hashes(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, BITS // 8), np.uint8)


def with_flips(print_, bits):
    flipped = np.unpackbits(print_)
    flipped[bits] ^= 1
    return np.packbits(flipped)


def smooth_looks(count, seed=0):
    """Pictures with something in every low frequency, uint8 (count, 32, 32)."""
    rng = np.random.default_rng(seed)
    wave = np.cos(np.pi * np.arange(12)[:, None] * (2 * np.arange(32) + 1) / 64)
    made = wave.T @ rng.normal(size=(count, 12, 12)) @ wave
    low, high = made.min((1, 2), keepdims=True), made.max((1, 2), keepdims=True)
    return np.rint((made - low) / (high - low) * 255).astype(np.uint8)


def brute(prints, apart=None):
    """Every pair by a plain loop: {(i, j): (bits, mirrored)}."""
    bits, turned = np.unpackbits(prints, axis=1), np.unpackbits(mirrored(prints), axis=1)
    found = {}
    for i, j in itertools.combinations(range(len(prints)), 2):
        ways = [(int((bits[i] != other[j]).sum()), flipped) for other, flipped in ((bits, False), (turned, True))]
        if min(ways)[0] <= RADIUS and (apart is None or apart[i] != apart[j]):
            found[i, j] = min(ways)
    return found


def as_dict(pairs):
    cells = zip(pairs.first.tolist(), pairs.second.tolist(), pairs.bits.tolist(), pairs.mirrored.tolist(), strict=True)
    return {(i, j): (bits, flipped) for i, j, bits, flipped in cells}


def test_every_pair_within_the_radius_is_found_and_no_other():
    rng = np.random.default_rng(1)
    prints = random_hashes(60)
    copies = [
        with_flips(mirrored(prints[i]) if i % 2 else prints[i], rng.choice(BITS, flips, replace=False))
        for i, flips in enumerate((0, 1, 5, 10, 14, 15, 15, 16, 17, 20) * 4)
    ]
    prints = rng.permutation(np.concatenate([prints, copies]))
    expected = brute(prints)
    assert len(expected) >= 28 and {way[1] for way in expected.values()} == {False, True}
    assert as_dict(alike(prints)) == expected


def test_hashes_of_which_most_bits_are_the_same_everywhere_are_compared_as_exactly():
    prints = random_hashes(300)
    prints[:, 3:] = 170  # all differ in 24 bits at most
    assert as_dict(alike(prints)) == brute(prints) != {}


def test_pairs_of_one_owner_do_not_count_and_a_hash_of_zeros_is_no_picture():
    prints = np.repeat(random_hashes(5), 3, axis=0)
    prints[:3] = 0
    owner = np.arange(15) % 3 // 2  # of each three equal ones two are of owner 0
    assert as_dict(alike(prints, owner)) == brute(prints, np.where(np.arange(15) < 3, 9, owner))
    assert len(alike(prints)) == 12 and len(alike(prints, owner)) == 8


def test_a_mirrored_picture_has_the_mirrored_hash():
    looks = smooth_looks(20)
    assert (hashes(looks[:, :, ::-1]) == mirrored(hashes(looks))).all()
    assert (hashes(looks[:, ::-1]) != hashes(looks)).any(1).all()


def test_a_hash_is_the_signs_of_the_lowest_frequencies_of_the_cosine_transform():
    from scipy.fft import dctn

    looks = smooth_looks(3, seed=4)
    order = sorted((u * u + v * v, v, u) for u in range(32) for v in range(32))[1 : BITS + 1]
    for look, found in zip(looks, hashes(looks), strict=True):
        spectrum = dctn(look.astype(float))
        assert (np.unpackbits(found) == [spectrum[u, v] > 0 for _, v, u in order]).mean() > 0.99  # of 0, chance decides


def test_a_hash_does_not_depend_on_the_looks_beside_it_and_what_is_symmetric_has_no_odd_frequency():
    looks = smooth_looks(1500)
    looks[:, :, 16:] = looks[:, :, 15::-1]
    found = hashes(looks)
    assert (found[-3:] == hashes(looks[-3:])).all() and (found[:3] == hashes(looks[:3].copy())).all()
    odd = mirrored(found) ^ found  # where rounding noise would decide
    assert odd.any() and not (found & odd).any()


def test_each_pair_of_many_equal_pictures_is_there_once():
    prints = np.repeat(random_hashes(3), 40, axis=0)
    found = alike(prints)
    assert len(found) == 3 * 40 * 39 // 2 and not found.bits.any() and not found.mirrored.any()
    assert len(set(zip(found.first.tolist(), found.second.tolist(), strict=True))) == len(found)


@pytest.mark.parametrize("radius", [0, 2, 8])
def test_other_radii_are_as_exact(radius):
    prints = random_hashes(30)
    rng = np.random.default_rng(2)
    near = [with_flips(prints[i], rng.choice(BITS, i % 10, replace=False)) for i in range(30)]
    expected = sum(i % 10 <= radius for i in range(30))
    assert len(alike(np.concatenate([prints, near]), radius=radius)) == expected


def test_likeness_is_1_for_copies_as_they_are_or_mirrored_and_low_for_others():
    looks = smooth_looks(4)
    looks[1] = looks[0][:, ::-1]
    looks[2] = np.rint(looks[0] * 0.5 + 60).astype(np.uint8)
    pairs = Pairs(
        np.array([0, 0, 0, 0]), np.array([1, 2, 3, 1]), np.zeros(4, int), np.array([True, False, False, False])
    )
    found = likeness(looks, pairs)
    assert found[0] == pytest.approx(1) and found[1] > 0.995 and abs(found[2]) < 0.5 and abs(found[3]) < 0.9


def test_no_pictures_and_one_picture_have_no_pairs():
    assert len(alike(random_hashes(0))) == len(alike(random_hashes(1))) == 0
