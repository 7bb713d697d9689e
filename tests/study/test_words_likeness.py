import numpy as np
import pytest

from scanlearn.study import words_likeness
from scanlearn.study.words_likeness import likeness, recurrence, recurrence_sentence


def unit(x):
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_likeness_is_the_mean_correlation_over_pairs_of_patients():
    generator = np.random.default_rng(0)
    crops = {w: (unit(generator.normal(size=(n, 7))), generator.integers(0, 4, n)) for w, n in ((3, 5), (8, 6), (9, 4))}
    found = likeness(crops)
    assert found.words.tolist() == [3, 8, 9]
    for at, word in enumerate(crops):
        pairs = {True: [], False: []}
        for x, p in zip(*crops[word], strict=True):
            for other, (vectors, patients) in crops.items():
                for y, q in zip(vectors, patients, strict=True):
                    if p != q:
                        pairs[other == word].append(float(np.corrcoef(x, y)[0, 1]))
        assert found.within[at] == pytest.approx(np.mean(pairs[True]))
        assert found.between[at] == pytest.approx(np.mean(pairs[False]))
        assert found.of(word) == (found.within[at], found.between[at])


def test_crops_of_one_grey_and_patients_alone_have_no_likeness():
    vectors = unit(np.random.default_rng(0).normal(size=(4, 5)))
    grey = np.full((2, 5), np.nan)
    found = likeness({0: (vectors, np.arange(4)), 1: (grey, np.arange(2)), 2: (vectors[:2], np.array([7, 7]))})
    assert np.isfinite(found.within[0]) and np.isnan(found.within[1:]).all() and np.isfinite(found.between[2])
    nothing = likeness({0: (grey, np.arange(2))})
    assert nothing.overall["within"] is None and np.isnan(nothing.within).all()
    assert words_likeness.likeness_panel(nothing).picture.alt.startswith("Scatter plot of 0 words")
    assert words_likeness.extremes(nothing) == []


@pytest.mark.parametrize(
    ("within", "between", "verdict"),
    [(0.5, 0.1, "clearly more"), (0.25, 0.1, "a little more"), (0.11, 0.1, "hardly more"), (0.0, 0.1, "hardly more")],
)
def test_the_verdict_follows_the_gap(within, between, verdict):
    told = recurrence({"within": within, "between": between, "own": None, "by_word": {}}, None)
    assert f"Crops of one word are {verdict} alike" in recurrence_sentence(told)


@pytest.mark.parametrize("measured", [None, "yes", {"within": None, "between": 0.2}])
def test_where_nobody_measured_nothing_is_claimed(measured):
    assert recurrence_sentence(recurrence(measured, None)) == ""


def test_the_most_and_the_least_alike_are_judged_against_other_words():
    found = words_likeness.Likeness(np.arange(12), np.linspace(0, 1.1, 12), np.r_[np.zeros(11), 1.1], {})
    most, least = words_likeness.extremes(found)
    assert most == ("Most alike", [10, 9, 8, 7, 6])
    assert sorted(least[1][:2]) == [0, 11] and least[1][2:] == [1, 2, 3]
