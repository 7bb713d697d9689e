from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scanlearn.engine.run_folder import RunFolder
from scanlearn.study import cases
from scanlearn.study.page import Shaded


def write(folder, classes, truth, scores, multilabel=False, threshold=None):
    """A predictions.parquet of test scans (after one of the validation part), and the results beside it."""
    data = {"scan_id": [f"s{i}" for i in range(len(truth) + 1)], "part": ["val"] + ["test"] * len(truth)}
    data |= {"row": list(range(len(truth) + 1)), "truth": [classes[0], *truth]}
    data |= {f"score_{name}": [0.5, *np.array(scores)[:, i]] for i, name in enumerate(classes)}
    pq.write_table(pa.table(data), folder / "predictions.parquet")
    judged = {name: {"auroc": {"value": 0.5}} for name in (classes if len(classes) > 2 or multilabel else classes[1:])}
    results = {"classes": classes, "multilabel": multilabel, "test": {"classes": judged, "threshold": threshold}}
    return cases.read_predictions(RunFolder(folder), results), results


def test_two_classes_are_one_question_told_apart_by_the_threshold(tmp_path):
    scores = [[0.9, 0.1], [0.7, 0.3], [0.8, 0.2], [0.1, 0.9]]
    found, results = write(tmp_path, ["no", "yes"], ["no", "no", "yes", "yes"], scores, threshold={"yes": 0.15})
    assert found.rows.tolist() == [1, 2, 3, 4]
    curves, points = cases.roc_curves(found, results)
    assert list(curves) == ["yes 0.50"] and points["yes 0.50"] == (0.5, 1.0)
    assert cases.confusions(found, results).rows == [
        ["no", Shaded("1", 0.5), Shaded("1", 0.5)],
        ["yes", Shaded("0", 0.0), Shaded("2", 1.0)],
    ]
    assert found.error == pytest.approx([0.1, 0.3, 0.8, 0.1])


def test_several_labels_are_judged_by_their_worst_one(tmp_path):
    truth, scores = ["Effusion|Mass", "", "Mass"], [[0.9, 0.2], [0.1, 0.3], [0.6, 0.9]]
    found, results = write(tmp_path, ["Effusion", "Mass"], truth, scores, multilabel=True)
    assert found.targets.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert found.error == pytest.approx([0.8, 0.3, 0.6])
    assert [found.truth(i) for i in range(3)] == ["Effusion, Mass", "none of the labels", "Mass"]
    assert found.said(0) == ("Mass", pytest.approx(0.2)) and found.said(2) == ("Effusion", pytest.approx(0.6))
    assert cases.confusions(found, results) is None


def test_a_class_without_cases_has_no_curve(tmp_path):
    scores = [[0.5, 0.4, 0.1], [0.2, 0.7, 0.1]]
    found, results = write(tmp_path, ["a", "b", "c"], ["a", "b"], scores)
    curves, points = cases.roc_curves(found, results)
    assert list(curves) == ["a 0.50", "b 0.50"] and not points


def test_cases_shown_are_of_different_patients_and_never_more_than_half():
    assert cases.different_patients(np.array([3, 1, 0, 2]), np.array(["p", "p", "q", "p"]), 6) == [3, 2]
    assert cases.different_patients(np.arange(4), np.array(list("abcd")), 6) == [0, 1]


def test_examples_are_the_worst_and_the_best_none_in_both(runs):
    worst, best = cases.example_strips(RunFolder(runs.segment), 2)
    assert [worst.title, best.title] == ["Worst cases", "Best cases"]
    captions = [float(picture.caption.removeprefix("Dice ")) for picture in worst.pictures]
    assert captions == sorted(captions) and captions[-1] <= float(best.pictures[-1].caption.removeprefix("Dice "))
    assert cases.example_strips(RunFolder(runs.classify), 2) == []


def test_a_dice_that_is_not_defined_is_nan(tmp_path):
    pq.write_table(pa.table({"dice_a": [0.5, None, float("nan")]}), tmp_path / "cases.parquet")
    values = cases.dice_groups(SimpleNamespace(path=tmp_path), ["a"])["a"]
    assert values[0] == 0.5 and np.isnan(values[1:]).all()
