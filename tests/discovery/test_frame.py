import numpy as np
import pytest

from scanlearn.discovery.frame import SPACES, Frame
from scanlearn.errors import ScanlearnError

SHAPE, SPACING = np.array([40, 50, 30]), np.array([1.0, 1.0, 2.0])


@pytest.mark.parametrize("space", SPACES)
def test_a_place_leads_back_to_its_own_box(space):
    frame = Frame(space, (9, 8, 5), (1.0, 1.0, 2.0))
    for start in ([0, 0, 0], [31, 42, 25], [7, 13, 2]):
        point = frame.point(np.array(start), SHAPE, SPACING)
        assert frame.starts(point, SHAPE[None], SPACING[None]).tolist() == [start]


def test_normalised_keeps_the_centre_at_the_same_share_of_the_scan():
    frame = Frame("normalised", (8, 8, 6), (1.0, 1.0, 1.0))
    point = frame.point(np.array([16, 21, 12]), SHAPE, SPACING)  # the middle
    shapes = np.array([[80, 20, 30], [41, 100, 12]])
    starts = frame.starts(point, shapes, np.ones((2, 3)))
    assert starts.tolist() == [[36, 6, 12], [16, 46, 3]]


def test_normalised_moves_crops_inside_and_lays_them_in_the_middle_of_smaller_scans():
    frame = Frame("normalised", (8, 8, 6), (1.0, 1.0, 1.0))
    corner = frame.point(np.array([0, 42, 0]), SHAPE, SPACING)
    shapes = np.array([[20, 20, 20], [5, 40, 30]])
    starts = frame.starts(corner, shapes, np.ones((2, 3)))
    assert starts.tolist() == [[0, 12, 0], [-2, 32, 0]]
    assert frame.fit(corner, shapes, np.ones((2, 3))).tolist() == [True, False]


def test_voxel_takes_the_same_voxel_in_every_scan_as_the_original():
    frame = Frame("voxel", (8, 8, 6), (1.0, 1.0, 1.0))
    point = frame.point(np.array([30, 5, 9]), SHAPE, SPACING)
    shapes = np.array([[90, 90, 90], [32, 40, 30]])
    assert frame.starts(point, shapes, np.ones((2, 3))).tolist() == [[30, 5, 9]] * 2
    assert frame.fit(point, shapes, np.ones((2, 3))).tolist() == [True, False]


def test_mm_takes_as_many_mm_from_the_corner_and_crops_of_as_many_mm():
    frame = Frame("mm", (8, 8, 6), (1.0, 1.0, 2.0))
    point = frame.point(np.array([10, 20, 9]), SHAPE, SPACING)  # centre at 14, 24 and 24 mm
    assert point.tolist() == [14.0, 24.0, 24.0]
    spacing = np.array([[0.5, 2.0, 4.0]])
    assert frame.sides(spacing).tolist() == [[16, 4, 3]]
    assert frame.starts(point, SHAPE[None], spacing).tolist() == [[20, 10, 4]]


def test_an_unknown_space_is_refused():
    with pytest.raises(ScanlearnError, match="did you mean 'normalised'"):
        Frame("normalized", (1, 1), (1.0, 1.0))
