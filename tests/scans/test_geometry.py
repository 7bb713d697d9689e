import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scanlearn.errors import ScanlearnError
from scanlearn.scans.geometry import affine_from, onto_grid, place, resize, same_grid, spacing_of, to_dtype


def oblique_affine(spacing=(0.7, 1.5, 3.0)):
    turned, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    return affine_from(turned, spacing, (12.0, -40.0, 7.0))


def world(affine, shape):
    """(*shape, 3) millimetres of every voxel; a 2D image lies in the plane of the first two axes."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return index @ affine[:3, : len(shape)].T + affine[:3, 3]


@pytest.mark.parametrize(
    ("shape", "wish"),
    [
        ((40, 30), {"size": (20, 24)}),
        ((40, 30), {"size": (60, 60)}),
        ((40, 30), {"size": (33, 50), "fit": "stretch"}),
        ((20, 30, 12), {"new_spacing": (1.4, 1.0, 2.0)}),
        ((20, 30, 12), {"size": (30, 30, 30)}),
    ],
)
def test_a_field_that_is_linear_in_space_stays_so_on_the_new_grid(shape, wish):
    affine = oblique_affine()
    slope = np.array([2.0, -1.0, 0.5])
    array = (world(affine, shape) @ slope)[None].astype(np.float32)
    placement = place(shape, spacing_of(affine, len(shape)), **wish)
    got = placement.apply(array, fill=np.nan)[0]
    expected = world(placement.affine(affine), placement.size) @ slope
    inner = tuple(slice(o + 2, o + i - 2) for o, i in zip(placement.offset, placement.inner, strict=True))
    # Antialiasing weights are sampled, which shifts a slope by up to a tenth of a pixel.
    assert np.allclose(got[inner], expected[inner], atol=0.2)
    assert got.shape == placement.size


def test_new_spacing_keeps_the_field_of_view():
    affine = oblique_affine()
    placement = place((50, 40, 30), spacing_of(affine), new_spacing=(1.0, 1.0, 1.0))
    assert placement.size == (35, 60, 90)
    for index in ([-0.5] * 3, [49.5, 39.5, 29.5]):
        new = (np.array(index) + 0.5) * np.array(placement.size) / (50, 40, 30) - 0.5
        assert np.allclose(affine @ [*index, 1], placement.affine(affine) @ [*new, 1])


def test_pad_keeps_the_aspect_ratio_and_stretch_does_not():
    padded = place((100, 50), (1, 1), size=(64, 64))
    assert padded.inner == (64, 32) and padded.offset == (0, 16) and padded.size == (64, 64)
    assert place((100, 50), (1, 1), size=(64, 64), fit="stretch").inner == (64, 64)
    filled = padded.apply(np.ones((1, 100, 50), np.int16), fill=-7)
    assert (filled[0, :, :16] == -7).all() and (filled[0, :, 16:48] == 1).all() and (filled[0, :, 48:] == -7).all()


def test_volumes_are_resampled_as_torch_does():
    volume = np.random.default_rng(0).random((2, 11, 14, 9), np.float32)
    for shape in ((22, 28, 18), (7, 14, 20)):
        expected = F.interpolate(torch.from_numpy(volume)[None], shape, mode="trilinear", align_corners=False)[0]
        assert np.allclose(resize(volume, shape), expected, atol=1e-5)


def test_images_are_shrunk_with_antialiasing_as_torch_does():
    image = np.random.default_rng(0).random((1, 50, 41), np.float32)
    for shape in ((16, 20), (100, 41)):
        expected = F.interpolate(torch.from_numpy(image)[None], shape, mode="bilinear", antialias=True)[0]
        assert np.allclose(resize(image, shape), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(12, 9), (12, 9, 7)])
def test_masks_come_back_unchanged_from_a_finer_grid(shape):
    mask = np.random.default_rng(0).integers(0, 5, (1, *shape), dtype=np.uint8)
    placement = place(shape, (1.0,) * len(shape), size=tuple(2 * max(shape) for _ in shape))
    laid = placement.apply(mask, nearest=True)
    assert set(np.unique(laid)) <= set(np.unique(mask))
    assert np.array_equal(placement.undo(laid, nearest=True), mask)


def test_the_native_grid_changes_nothing():
    array = np.random.default_rng(0).integers(-9, 9, (1, 5, 6, 7), dtype=np.int16)
    placement = place((5, 6, 7), (1, 1, 1))
    assert placement.identity and placement.apply(array) is array
    assert np.array_equal(placement.affine(oblique_affine()), oblique_affine())


def test_a_mask_saved_with_axes_turned_round_is_found_through_space():
    mask = np.random.default_rng(0).integers(0, 3, (8, 9, 10), dtype=np.uint8)
    affine = oblique_affine()
    turned = affine.copy()  # the same voxels, second axis counted backwards
    turned[:3, 1] *= -1
    turned[:3, 3] += affine[:3, 1] * 8
    assert not same_grid(turned, affine, mask.shape)
    assert np.array_equal(onto_grid(mask[:, ::-1].copy(), turned, mask.shape, affine), mask)


def test_integers_are_rounded_and_clipped_never_wrapped():
    values = np.array([-40000.0, -0.6, 0.4, 99.5, 70000.0])
    assert to_dtype(values, np.int16).tolist() == [-32768, -1, 0, 100, 32767]
    assert to_dtype(np.array([-5, 300]), np.uint8).tolist() == [0, 255]


def test_a_size_of_the_wrong_length_is_refused():
    with pytest.raises(ScanlearnError, match=r"size \(4, 4\) has 2 numbers for a scan of 3 axes"):
        place((5, 5, 5), (1, 1, 1), size=(4, 4))
