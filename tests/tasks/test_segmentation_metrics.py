import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou
from scipy.ndimage import gaussian_filter

from scanlearn.errors import ScanlearnError
from scanlearn.tasks.segmentation_metrics import hausdorff_95, segmentation_case, segmentation_metrics

CLASSES = {"lung": 1, "heart": 2}


def blobs(shape, seed, values=2):
    """A mask of smooth random shapes with values 0..values, touching the border too."""
    rng = np.random.default_rng(seed)
    fields = np.stack([gaussian_filter(rng.normal(size=shape), 2.0) for _ in range(values + 1)])
    return fields.argmax(axis=0).astype(np.uint8)


def one_hot(mask):
    return torch.from_numpy(np.stack([mask == value for value in (1, 2)])[None].astype(np.float32))


@pytest.mark.parametrize("shape, spacing", [((40, 30), (1, 1)), ((33, 47), (0.7, 2.5)), ((20, 24, 16), (0.8, 1.2, 3))])
def test_overlap_and_distance_equal_monai(shape, spacing):
    for seed in range(3):
        prediction, reference = blobs(shape, seed), blobs(shape, seed + 100)
        case = segmentation_case(prediction, reference, CLASSES, spacing)
        p, r = one_hot(prediction), one_hot(reference)
        distance = compute_hausdorff_distance(
            p, r, include_background=True, percentile=95, spacing=[float(s) for s in spacing]
        )
        assert case["dice"] == pytest.approx(compute_dice(p, r)[0].numpy(), abs=1e-6)
        assert case["iou"] == pytest.approx(compute_iou(p, r)[0].numpy(), abs=1e-6)
        assert case["hd95"] == pytest.approx(distance[0].numpy(), rel=1e-5)


def hd95_by_loops(first, second, spacing):
    def boundary(mask):
        points = []
        for index in np.argwhere(mask):
            for axis in range(mask.ndim):
                for step in (-1, 1):
                    beside = index.copy()
                    beside[axis] += step
                    inside = (beside >= 0).all() and (beside < mask.shape).all() and mask[tuple(beside)]
                    if not inside:
                        points.append(tuple(index * np.array(spacing)))
        return sorted(set(points))

    a, b = boundary(first), boundary(second)
    directed = [[min(math.dist(x, y) for y in there) for x in here] for here, there in ((a, b), (b, a))]
    return max(np.percentile(distances, 95) for distances in directed)


def test_hausdorff_distance_equals_plain_loops_in_mm():
    for seed in range(3):
        first, second = blobs((12, 15), seed) == 1, blobs((12, 15), seed + 50) == 1
        assert hausdorff_95(first, second, (0.5, 2.0)) == pytest.approx(hd95_by_loops(first, second, (0.5, 2.0)))


def test_a_shifted_box_is_its_shift_apart_in_mm():
    first = np.zeros((40, 40, 40), bool)
    first[5:20, 5:20, 5:20] = True
    assert hausdorff_95(first, np.roll(first, 4, axis=1), (1.0, 2.5, 1.0)) == pytest.approx(10.0)
    assert hausdorff_95(first, first, (1.0, 2.5, 1.0)) == 0.0


def test_empty_masks_follow_the_table():
    full, empty = np.ones((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    cases = [
        segmentation_case(p, r, {"lung": 1}, (1, 1))
        for p, r in ((empty, empty), (empty, full), (full, empty), (full, full))
    ]
    assert np.isnan(cases[0]["dice"][0]) and np.isnan(cases[0]["iou"][0]) and np.isnan(cases[0]["hd95"][0])
    for case in cases[1:3]:
        assert case["dice"][0] == case["iou"][0] == 0 and np.isinf(case["hd95"][0])
    assert cases[3]["dice"][0] == cases[3]["iou"][0] == 1 and cases[3]["hd95"][0] == 0
    lung = segmentation_metrics(cases, ["lung"], np.arange(4), bootstrap=50)["classes"]["lung"]
    assert lung["dice"]["value"] == pytest.approx(1 / 3)  # 0, 0, 1; the case where both are empty is not among them
    assert lung["hd95"]["value"] == 0.0
    assert (lung["both_empty"], lung["missed"], lung["invented"]) == (1, 1, 1)


def test_with_the_convention_of_brats_no_case_is_left_out():
    """Spec_cpcseg §10.3: both empty count Dice 1 and HD95 0, one empty Dice 0 and the diagonal, 373.13 mm."""
    empty, there = np.zeros((240, 240, 155), np.uint8), np.zeros((240, 240, 155), np.uint8)
    there[100:110, 100:110, 70:80] = 1
    pairs = [(empty, empty), (empty, there), (there, empty), (there, there)]
    cases = [segmentation_case(p, r, {"tumour": 1}, (1, 1, 1)) for p, r in pairs]
    found = segmentation_metrics(cases, ["tumour"], np.arange(4), empty="brats", bootstrap=20)
    tumour = found["classes"]["tumour"]
    assert found["empty"] == "brats" and tumour["dice"]["value"] == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert tumour["hd95"]["value"] == pytest.approx((0 + 373.1287 + 373.1287 + 0) / 4, abs=1e-4)
    assert (tumour["both_empty"], tumour["missed"], tumour["invented"]) == (1, 1, 1)
    with pytest.raises(ScanlearnError, match="did you mean 'brats'"):
        segmentation_metrics(cases, ["tumour"], np.arange(4), empty="bratz")


def test_sensitivity_and_specificity_count_voxels():
    prediction, reference = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
    reference[:4, :5] = 1  # 20 of 100
    prediction[:2, :5] = 1  # 10 of them
    prediction[9, :8] = 1  # and 8 others
    case = segmentation_case(prediction, reference, {"lung": 1}, (1, 1))
    assert case["sensitivity"][0] == 10 / 20 and case["specificity"][0] == 72 / 80


def test_a_class_may_be_the_union_of_mask_values():
    prediction, reference = blobs((30, 30), 0, values=3), blobs((30, 30), 1, values=3)
    whole = segmentation_case(prediction, reference, {"tumour": (1, 2, 3), "core": [2, 3]}, (1, 1))
    plain = segmentation_case((prediction > 0).astype(int), (reference > 0).astype(int), {"tumour": 1}, (1, 1))
    assert all(whole[key][0] == plain[key][0] for key in plain)


def test_means_pooled_figures_and_their_intervals_equal_plain_loops():
    patients = np.repeat(np.arange(6), 2)
    pairs = [(blobs((24, 24), i), blobs((24, 24), i + 40)) for i in range(12)]
    cases = [segmentation_case(p, r, CLASSES, (1, 1)) for p, r in pairs]
    result = segmentation_metrics(cases, list(CLASSES), patients, bootstrap=400)
    for i, (name, value) in enumerate(CLASSES.items()):
        got = result["classes"][name]
        dice = [2 * ((p == value) & (r == value)).sum() / ((p == value).sum() + (r == value).sum()) for p, r in pairs]
        assert got["dice"]["value"] == pytest.approx(np.mean(dice))
        pooled = [np.concatenate([m[k].ravel() for m in pairs]) == value for k in (0, 1)]
        both, either = (pooled[0] & pooled[1]).sum(), (pooled[0] | pooled[1]).sum()
        assert got["pooled_dice"]["value"] == pytest.approx(2 * both / (pooled[0].sum() + pooled[1].sum()))
        assert got["pooled_iou"]["value"] == pytest.approx(both / either)
        assert got["hd95"]["value"] == pytest.approx(np.mean([case["hd95"][i] for case in cases]))
        rng = np.random.default_rng(7)
        means = [np.mean([dice[2 * p + k] for p in rng.integers(0, 6, 6) for k in (0, 1)]) for _ in range(4000)]
        assert [got["dice"]["low"], got["dice"]["high"]] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)
    macro = np.mean([result["classes"][name]["dice"]["value"] for name in CLASSES])
    assert result["macro"]["dice"]["value"] == pytest.approx(macro)
    assert result["cases"] == 12 and result["patients"] == 6


def test_a_class_that_no_case_has_is_left_out_of_the_mean():
    mask = (blobs((16, 16), 0) > 0).astype(np.uint8)
    cases = [segmentation_case(mask, mask, CLASSES, (1, 1)) for _ in range(3)]
    result = segmentation_metrics(cases, list(CLASSES), np.arange(3), bootstrap=20)
    assert math.isnan(result["classes"]["heart"]["dice"]["value"]) and result["classes"]["heart"]["both_empty"] == 3
    assert result["macro"]["dice"]["value"] == 1.0


def test_wrong_input_is_refused():
    mask = np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match="do not fit"):
        segmentation_case(mask, mask[:3], CLASSES, (1, 1))
    with pytest.raises(ValueError, match="do not fit"):
        segmentation_case(mask, mask, CLASSES, (1, 1, 1))
    with pytest.raises(ValueError, match="needs its patient"):
        segmentation_metrics([], [], [])
