import numpy as np
import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.tasks.uncertain import NAMED, POLICIES, first_pass, policies_of, training_targets

NAN = np.nan
CODES = np.array([[1, 0, -1], [-1, -1, 0], [NAN, NAN, NAN], [0, -1, 1]], np.float32)
UNCERTAIN = CODES == -1


@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_touches_a_label_that_is_certain_or_missing(policy):
    targets = training_targets(CODES, [policy] * 3, 0, np.full(CODES.shape, 0.5))
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets[~UNCERTAIN], CODES[~UNCERTAIN])


def test_each_policy_makes_of_the_uncertain_what_its_paper_says():
    probabilities = np.linspace(0, 1, 12).reshape(4, 3).astype(np.float32)
    made = {p: training_targets(CODES, [p] * 3, 0, probabilities)[UNCERTAIN] for p in POLICIES}
    assert np.isnan(made["ignore"]).all()
    assert (made["zeros"] == 0).all() and (made["ones"] == 1).all() and (made["multiclass"] == -1).all()
    np.testing.assert_array_equal(made["self_trained"], probabilities[UNCERTAIN])


@pytest.mark.parametrize(("policy", "low", "high"), [("lsr_ones", 0.55, 0.85), ("lsr_zeros", 0.0, 0.3)])
def test_smoothed_labels_are_uniform_and_drawn_once_for_each_scan_from_the_seed(policy, low, high):
    codes = np.full((20_000, 2), -1, np.float32)
    targets = training_targets(codes, [policy] * 2, 3)
    assert targets.min() >= low and targets.max() <= high
    assert targets.mean() == pytest.approx((low + high) / 2, abs=0.005)
    assert targets.std() == pytest.approx((high - low) / 12**0.5, abs=0.003)
    np.testing.assert_array_equal(targets, training_targets(codes, [policy] * 2, 3))
    assert (targets != training_targets(codes, [policy] * 2, 4)).mean() > 0.99
    assert len(np.unique(targets)) > 30_000  # one draw for each cell


def test_classes_have_policies_of_their_own():
    classes = ["Atelectasis", "Edema", "Mass"]
    assert policies_of({"Edema": "ones", "Atelectasis": "ones", "default": "zeros"}, classes) == [
        "ones",
        "ones",
        "zeros",
    ]
    assert policies_of({"Mass": "zeros"}, classes) == ["ignore", "ignore", "zeros"]
    assert policies_of("lsr_ones", classes) == ["lsr_ones"] * 3
    assert policies_of("jfhealthcare", classes) == ["ones", "ones", "ignore"]
    assert set(NAMED["jfhealthcare"].values()) == {"ones", "zeros"}
    targets = training_targets(CODES, ["ones", "zeros", "ignore"], 0)
    np.testing.assert_array_equal(targets, [[1, 0, NAN], [1, 0, 0], [NAN] * 3, [0, 0, 1]])


def test_policies_and_classes_that_do_not_exist_are_refused():
    with pytest.raises(ScanlearnError, match="did you mean 'zeros'"):
        policies_of("zeroes", ["Edema"])
    with pytest.raises(ScanlearnError, match="did you mean 'Edema'"):
        policies_of({"Oedema": "ones"}, ["Edema"])
    with pytest.raises(ScanlearnError, match="no policy"):
        policies_of({"Edema": ["ones"]}, ["Edema"])
    with pytest.raises(ScanlearnError, match="the labels have none of them"):
        policies_of("jfhealthcare", ["Mass", "Nodule"])


def test_the_first_pass_ignores_what_is_relabelled_later():
    assert first_pass(["self_trained", "ones", "multiclass"]) == ["ignore", "ones", "multiclass"]
    with pytest.raises(ValueError, match="first pass"):
        training_targets(CODES, ["self_trained"] * 3, 0)
