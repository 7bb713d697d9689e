import numpy as np

from scanlearn.discovery.crops import extra_crops
from scanlearn.randomness import Draws


def drawn(count, side, shape, start, seed=0):
    start, side, shapes = (np.tile(values, (count, 1)) for values in (start, side, shape))
    return extra_crops(start, side, shapes, Draws.for_step(seed, 0, np.arange(count)))


def test_extra_crops_have_the_published_sides_and_shifts_and_keep_z():
    start, side = drawn(4000, (64, 64, 32), (512, 512, 200), (200, 220, 90))
    assert (side[:, 0] == side[:, 1]).all() and set(side[:, 0]) == set(range(50, 80))
    for axis, first in ((0, 200), (1, 220)):
        assert set(start[:, axis] - first) == set(range(-10, 10))
    assert (side[:, 2] == 32).all() and (start[:, 2] == 90).all()
    assert abs(side[:, 0].mean() - 64.5) < 0.5 and abs((start[:, :2] - (200, 220)).mean() + 0.5) < 0.3
    assert abs(np.corrcoef(start[:, 0], start[:, 1])[0, 1]) < 0.05


def test_extra_crops_are_drawn_again_while_they_leave_the_scan_on_any_side():
    for first in (0, 512 - 64):
        start, side = drawn(2000, (64, 64, 32), (512, 512, 200), (first, first, 0))
        assert (start >= 0).all() and (start + side <= (512, 512, 200)).all()
        assert side[:, 0].max() > 64 and len(set(start[:, 0])) > 5


def test_extra_crops_of_other_sizes_and_of_images_keep_the_proportions():
    start, side = drawn(2000, (32, 16), (400, 400), (100, 100))
    assert (side.min(axis=0).tolist(), side.max(axis=0).tolist()) == ([25, 12], [40, 20])
    assert ((start - 100).min(axis=0).tolist(), (start - 100).max(axis=0).tolist()) == ([-5, -2], [4, 2])


def test_scans_that_hold_no_extra_crop_get_the_one_that_leaves_them_least():
    start, side = drawn(50, (64, 64, 32), (40, 40, 20), (-12, -12, -6))
    outside = np.maximum(-start, 0) + np.maximum(start + side - (40, 40, 20), 0)
    assert (side[:, 0] <= 54).all() and outside[:, :2].sum(axis=1).max() <= 30


def test_an_extra_crop_depends_on_its_own_scan_alone():
    base, side, shapes = np.full((5, 3), 20), np.full((5, 3), 16), np.full((5, 3), 60)
    rows = np.array([4, 9, 2, 30, 11])
    whole = extra_crops(base, side, shapes, Draws.for_step(1, 3, rows))
    alone = extra_crops(base[:1], side[:1], shapes[:1], Draws.for_step(1, 3, rows[3:4]))
    assert all((a[3:4] == b).all() for a, b in zip(whole, alone, strict=True))
