import numpy as np
import pytest

from scanlearn.study.statistics.holm import holm, simultaneous_level


def test_published_and_statsmodels_values():
    # p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm") in R; the second from statsmodels 0.15's multipletests.
    np.testing.assert_allclose(holm([0.01, 0.02, 0.03, 0.04, 0.05]), [0.05, 0.08, 0.09, 0.09, 0.09])
    p = [0.31, 0.004, 0.022, 0.9, 0.0005, 0.022, 0.3]
    expected = [0.9, 0.024, 0.11, 0.9, 0.0035, 0.11, 0.9]
    np.testing.assert_allclose(holm(p), expected)


def test_it_rejects_what_the_step_down_rule_rejects():
    rng = np.random.default_rng(0)
    for p in rng.random((300, 6)) ** 3:
        rejected = set()
        for step, i in enumerate(np.argsort(p)):
            if p[i] > 0.05 / (6 - step):
                break
            rejected.add(i)
        assert set(np.flatnonzero(holm(p) <= 0.05)) == rejected


def test_many_families_at_once_are_each_their_own():
    p = np.random.default_rng(1).random((4, 5, 3))
    np.testing.assert_array_equal(holm(p)[2, 3], holm(p[2, 3]))


def test_a_test_that_could_not_be_made_stays_out_and_makes_the_others_no_easier():
    adjusted = holm([0.02, np.nan])
    assert adjusted[0] == pytest.approx(0.04) and np.isnan(adjusted[1])
    assert len(holm([])) == 0


def test_no_probability_is_refused():
    with pytest.raises(ValueError, match=r"0\.\.1"):
        holm([0.1, 1.2])


def test_bonferronis_level():
    assert simultaneous_level(5) == pytest.approx(0.99)
    with pytest.raises(ValueError, match="one comparison"):
        simultaneous_level(0)
