import numpy as np
import pytest

from discovery.stores import image_store, volume_store
from scanlearn.discovery.tissue import PRESETS, tissue_of, tissue_score
from scanlearn.errors import ScanlearnError


def plain(crop, threshold, slices):
    """spec_genesis §2.2, spec_dira §4.2: the depth at which each voxel first meets tissue, among three slices."""
    total = 0.0
    for x in range(crop.shape[0]):
        for y in range(crop.shape[1]):
            for z in range(slices):
                depth = 2
                for ahead in range(3):
                    if crop[x, y, z + ahead] >= threshold:
                        depth = ahead
                        break
                total += 1 - depth / 2
    return total / (crop.shape[0] * crop.shape[1] * slices)


@pytest.mark.parametrize("threshold", [0.2, 0.425, 0.9])
def test_the_score_equals_the_nested_loops(threshold):
    crop = np.random.default_rng(0).random((6, 5, 9))
    assert tissue_score(crop, threshold, 6) == pytest.approx(plain(crop, threshold, 6), abs=1e-12)


def test_the_next_slice_counts_half_and_the_one_after_not_at_all():
    crop = np.zeros((1, 1, 4))
    assert [float(tissue_score(np.where(np.arange(4) == z, 1.0, crop), 0.425, 1)) for z in range(4)] == [1, 0.5, 0, 0]
    assert float(tissue_score(np.full((1, 1, 4), 0.425), 0.425, 1)) == 1  # as bright as the threshold is bright


def test_scores_of_a_batch_are_those_of_its_crops():
    crops = np.random.default_rng(1).random((4, 6, 6, 8))
    assert tissue_score(crops, 0.4, 5).tolist() == [float(tissue_score(crop, 0.4, 5)) for crop in crops]


def test_the_lung_preset_holds_the_published_numbers():
    lung = PRESETS["lung"]
    assert (lung.threshold, lung.at_most, lung.margin, lung.window) == (0.425, 0.15, (100, 100, 30), (-1000, 1000))
    crops = np.zeros((2, 8, 8, 11), np.float32)
    crops[1, :2] = 0.5  # a quarter of the crop is soft tissue
    assert lung.passes(crops, 8)[0].tolist() == [True, False]  # pure air passes, as in the original


@pytest.mark.parametrize("shape", [(16, 16), (12, 12, 10)])
def test_the_general_preset_wants_half_of_the_crop_lit_and_some_contrast(shape):
    rng = np.random.default_rng(0)
    lit = 0.3 + 0.1 * rng.random(shape)
    dark = np.where(np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)) < 0.6 * shape[0], 0.0, lit)
    crops = np.stack([lit, np.zeros(shape), dark, np.full(shape, 1.0), 0.02 * rng.random(shape)])
    assert PRESETS["general"].passes(crops)[0].tolist() == [True, False, False, False, False]


def test_the_lung_preset_is_refused_where_its_threshold_means_something_else(tmp_path):
    flat = image_store(tmp_path / "2d")
    with pytest.raises(ScanlearnError, match="for volumes and this store is 2D"):
        tissue_of("lung", flat, np.arange(4))
    wide = volume_store(tmp_path / "ct", parts=("train",) * 3, modality="CT", window=(-1350.0, 150.0))
    with pytest.raises(ScanlearnError, match=r"window -1000\.\.1000 HU, but 3 of 3 scans are in -1350\.\.150"):
        tissue_of("lung", wide, np.arange(3))
    with pytest.raises(ScanlearnError, match="did you mean 'lung'"):
        tissue_of("lungs", wide, np.arange(3))


def test_the_lung_preset_takes_ct_in_the_window_genesis(tmp_path):
    store = volume_store(tmp_path, parts=("train",) * 3, modality="CT", window="genesis")
    assert tissue_of("lung", store, np.arange(3)).name == "lung"
