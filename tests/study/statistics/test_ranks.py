import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from scanlearn.errors import ScanlearnError
from scanlearn.study.statistics import mean_ranks

# Demsar, Statistical comparisons of classifiers over multiple data sets, JMLR 7 (2006), table 6. The paper ranks the
# third of "voting" before the fourth although it prints 0.975 for both.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.97501, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)
NAMES = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")


def test_the_published_example():
    found = mean_ranks(DEMSAR, NAMES)
    assert list(found["ranks"]) == ["C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"]
    assert [round(r, 3) for r in found["ranks"].values()] == [1.964, 2.0, 2.893, 3.143]
    assert found["critical_difference"] == pytest.approx(1.25, abs=0.005)
    assert mean_ranks(DEMSAR, NAMES, alpha=0.1)["critical_difference"] == pytest.approx(1.12, abs=0.005)
    assert mean_ranks(DEMSAR, NAMES, alpha=0.1)["groups"] == [list(found["ranks"])[:3], list(found["ranks"])[2:]]
    assert found["p_friedman"] == pytest.approx(friedmanchisquare(*DEMSAR.T).pvalue)


def test_a_group_within_another_is_not_named_and_a_method_alone_has_none():
    scores = np.array([[3.0, 2.0, 1.0]] * 60)
    assert mean_ranks(scores, "abc")["groups"] == []
    scores[::2, :2] = scores[::2, 1::-1]
    assert mean_ranks(scores, "abc")["groups"] == [["a", "b"]]
    alike = mean_ranks(np.ones((5, 3)), "abc")
    assert alike["groups"] == [["a", "b", "c"]] and alike["p_friedman"] == 1.0
    assert set(alike["ranks"].values()) == {2.0}


def test_distances_rank_upwards_and_blocks_with_a_hole_are_left_out():
    scores = np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [np.nan, 9.0, 9.0]])
    found = mean_ranks(scores, "abc", higher_is_better=False)
    assert found["ranks"] == {"b": 1.0, "c": 2.0, "a": 3.0}
    assert found["blocks"] == 2 and found["left_out"] == 1


def test_two_methods_are_judged_by_the_sign_test():
    scores = np.array([[1.0, 0.0]] * 8 + [[0.0, 1.0]] * 1 + [[0.0, 0.0]])
    assert mean_ranks(scores, "ab")["p_friedman"] == pytest.approx(2 * (1 + 9) / 2**9)


def test_too_little_is_refused():
    with pytest.raises(ScanlearnError, match="there are 3 and 1"):
        mean_ranks(np.ones((1, 3)), "abc")
    with pytest.raises(ValueError, match="do not fit"):
        mean_ranks(np.ones((4, 3)), "ab")
