import numpy as np

from scanlearn.study.page import Measured, Shaded, measured, number, without_paths
from scanlearn.study.tables import confusion_table, metric_table, quarantine_table
from scanlearn.tasks.classification_metrics import classification_metrics
from scanlearn.tasks.segmentation_metrics import segmentation_case, segmentation_metrics


def test_figures_that_cannot_be_told_are_a_dash():
    assert number(None) == number(float("nan")) == number(float("inf")) == "–"
    assert measured({"value": 0.5, "low": None, "high": None}) == Measured("0.500", "")
    assert measured({"value": 0.51234, "low": 0.4, "high": 0.6}, 2) == Measured("0.51", "0.40 to 0.60")


def test_a_classifiers_table_has_every_class_and_their_mean():
    generator = np.random.default_rng(0)
    scores = generator.dirichlet([1, 1, 1], 60)
    test = classification_metrics(scores, np.arange(60) % 3, ["a", "b", "c"], np.arange(60), bootstrap=50)
    table = metric_table(test)
    assert [row[0] for row in table.rows] == ["a", "b", "c", "mean over classes"] and table.total
    at = table.head.index("AUROC")
    assert table.rows[0][at] == measured(test["classes"]["a"]["auroc"])
    assert table.rows[3][at] == measured(test["macro"]["auroc"])
    assert table.rows[0][1:3] == ["20", "40"]
    assert all(len(row) == len(table.head) for row in table.rows)


def test_a_segmenters_table_counts_what_the_means_leave_out():
    empty, there = np.zeros((6, 6), int), np.pad(np.ones((2, 2), int), 2)
    cases = [segmentation_case(a, b, {"organ": 1}, (1, 1)) for a, b in ((there, there), (empty, there), (there, empty))]
    table = metric_table(segmentation_metrics(cases, ["organ"], ["p", "q", "r"], bootstrap=20))
    row = dict(zip(table.head, table.rows[0], strict=True))
    assert (row["missed"], row["invented"], row["both empty"]) == ("1", "1", "0")
    assert row["HD95"].value == "0.0" and not table.total


def test_confusions_are_counted_by_row():
    table = confusion_table(["a", "a", "b", "a"], ["a", "b", "b", "b"], ["a", "b"])
    assert table.rows == [["a", Shaded("1", 1 / 3), Shaded("2", 2 / 3)], ["b", Shaded("0", 0.0), Shaded("1", 1.0)]]


def test_left_out_scans_are_counted_by_their_reason_and_no_file_is_named():
    reasons = ["is cut off after 512 bytes.", "is cut off after 7 bytes.", "holds NaN or infinity.", "is " + "no " * 80]
    items = [{"scan_id": f"scan-{i}", "file": "/data/Anna Karenina/x.png", "reason": r} for i, r in enumerate(reasons)]
    table = quarantine_table(items)
    assert [row[1] for row in table.rows] == ["2", "1", "1"]
    assert table.rows[0][0] == "is cut off after N bytes" and len(str(table.rows[2][0])) <= 112
    assert "Karenina" not in str(table) and "scan-" not in str(table)


def test_paths_leave_free_text_and_other_slashes_stay():
    text = (
        "at 30 images/s from /home/anna/x.nii, ~/scans and C:\\Anna\\y, see https://arxiv.org/abs/1 and/or 2D/3D: 1/2"
    )
    expected = "at 30 images/s from … … and … see https://arxiv.org/abs/1 and/or 2D/3D: 1/2"
    assert without_paths(text) == expected
