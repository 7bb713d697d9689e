import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from scanlearn.study import pictures
from scanlearn.study.pictures import contour_tile, outline, pixel_ratio, scan_slices, tile, upright


def decoded(picture):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.src.partition(",")[2]))))


def test_a_small_tile_is_lossless_and_clipped_to_the_range_of_the_screen():
    image = np.array([[-0.5, 0.0, np.nan], [0.5, 1.0, 2.0]])
    assert decoded(tile(image, "a scan")).tolist() == [[0, 0, 0], [128, 255, 255]]


def test_a_large_tile_is_made_small_and_keeps_its_proportions():
    picture = tile(np.zeros((600, 300)), "a scan")
    assert (picture.width, picture.height) == (96, 192)
    assert (tile(np.zeros((50, 100)), "flat", ratio=3.0).height, tile(np.zeros((50, 100)), "flat").height) == (150, 50)


# Where a voxel at the high end of each axis belongs on the screen: (row, column), -1 the last.
@pytest.mark.parametrize(
    ("axes", "corner"),
    [
        # RAS axial: the patient's right is on the left of the picture, the front is up.
        (np.diag([1, 1, 1]), (0, 0)),
        (np.diag([-1, 1, 1]), (0, -1)),
        (np.diag([1, -1, 1]), (-1, 0)),
        (np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]]), (0, 0)),  # j runs to the right of the patient, i to the front
        # sagittal: slices along R, i to the front, j to the head: the head is up, the front is left
        (np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]), (0, 0)),
        # coronal: slices along A, i to the left, j to the feet
        (np.array([[-1, 0, 0], [0, 0, 1], [0, -1, 0]]), (-1, -1)),
    ],
)
def test_slices_stand_upright_as_radiologists_look(axes, corner):
    affine = np.eye(4)
    affine[:3, :3] = axes
    image = np.zeros((4, 6))
    image[-1, -1] = 1
    shown = upright(image, affine)
    assert shown[corner] == 1 and shown.sum() == 1


def test_the_ratio_of_a_pixel_follows_the_axes_that_are_shown():
    assert pixel_ratio(np.diag([1.0, 2.0, 5.0, 1.0])) == 2.0  # across: x of 1 mm, down: y of 2 mm
    affine = np.array([[0, 3.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]])
    assert pixel_ratio(affine) == pytest.approx(1 / 3)


def test_an_outline_runs_around_every_class_in_pixels():
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5, 3:7] = 1
    mask[6, 1] = 2
    paths = outline(mask).split("M")[1:]
    assert len(paths) == 2
    x, y = np.array(re.findall(r"([\d.-]+) ([\d.-]+)", paths[0]), float).T
    assert (x.min(), x.max(), y.min(), y.max()) == (3.0 - 0.0, 7.0, 2.0, 5.0)
    assert outline(np.zeros((4, 4), int)) == ""


def test_a_contour_tile_holds_the_image_and_two_kinds_of_line():
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5, 3:7] = 1
    picture = contour_tile(np.random.default_rng(0).random((8, 8)), mask, np.roll(mask, 1), "a case")
    text = base64.b64decode(picture.src.partition(",")[2]).decode()
    assert text.count("<image") == 1 and pictures.TRUTH in text and pictures.FOUND in text
    assert text.count("stroke-dasharray") == 2


def test_the_middle_slice_is_read_alone(volumes):
    store = volumes.store
    shown = scan_slices(store, [0, 3])
    for image, row in zip(shown, (0, 3), strict=True):
        whole = store.read([row])[0][0]
        low, high = store.window([row])
        middle = np.clip((whole[..., whole.shape[-1] // 2].astype(float) - low[0]) / (high[0] - low[0]), 0, 1)
        assert np.allclose(image, upright(middle, store.affine(row)), atol=1e-6)


def test_flat_scans_are_shown_as_they_are_displayed(people):
    image = scan_slices(people, [5])[0]
    assert np.allclose(image, people.read([5])[0][0] / 255, atol=1e-6)
