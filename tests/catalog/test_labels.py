import numpy as np
import pyarrow as pa
import pytest

from scanlearn.catalog.labels import labels_of
from scanlearn.errors import ScanlearnError


def read(cells, kind=None):
    return labels_of(pa.array(cells, pa.string()), "column", kind)


def test_words_are_classes_in_sorted_order_and_blanks_are_missing():
    labels = read(["virus", " normal ", "", "bacteria", None, "NaN", "n/a", "normal"])
    assert labels.kind == "class"
    assert labels.classes == ["bacteria", "normal", "virus"]
    assert labels.codes.dtype == np.int64
    assert labels.codes.tolist() == [2, 1, -1, 0, -1, -1, -1, 1]
    assert labels.labelled.tolist() == [True, True, False, True, False, False, False, True]


def test_the_word_none_is_a_class():
    assert read(["None", "unknown"]).classes == ["None", "unknown"]


def test_few_numbers_are_classes_sorted_by_value():
    labels = read(["10", "2", "0", "2"])
    assert (labels.kind, labels.classes, labels.codes.tolist()) == ("class", ["0", "2", "10"], [2, 1, 0, 1])


def test_more_than_twenty_distinct_numbers_are_a_number():
    assert read([str(i) for i in range(20)] * 2).kind == "class"
    labels = read(["", *[f"{i}.5" for i in range(21)]])
    assert (labels.kind, labels.classes, labels.codes.dtype) == ("number", [], np.float64)
    assert np.isnan(labels.codes[0]) and labels.codes[1:].tolist() == [i + 0.5 for i in range(21)]
    assert labels.labelled.tolist() == [False] + [True] * 21


def test_numbers_stay_classes_when_asked():
    labels = read([str(i) for i in range(30)], kind="class")
    assert labels.kind == "class" and labels.classes[9:11] == ["9", "10"]


def test_words_asked_for_as_numbers_are_refused():
    with pytest.raises(ScanlearnError, match="'column' holds words"):
        read(["a", "1"], kind="number")
    with pytest.raises(ScanlearnError, match="did you mean 'multilabel'"):
        read(["a"], kind="multilable")


def test_several_findings_in_a_cell_make_the_column_multilabel():
    labels = read(["Effusion|Mass", "No Finding", "", "Mass | Effusion|", "Mass"])
    assert labels.kind == "multilabel"
    assert labels.classes == ["Effusion", "Mass", "No Finding"]
    assert labels.codes.dtype == np.float32
    expected = np.array([[1, 1, 0], [0, 0, 1], [np.nan] * 3, [1, 1, 0], [0, 1, 0]], np.float32)
    np.testing.assert_array_equal(labels.codes, expected)
    assert labels.labelled.tolist() == [True, True, False, True, True]
    rows, classes = labels.shown()
    assert list(zip(rows.tolist(), classes.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 2), (3, 0), (3, 1), (4, 1)]


def test_multilabel_codes_agree_with_a_plain_loop():
    generator = np.random.default_rng(0)
    words = np.array(["a", "b", "c", "d"])
    cells = ["|".join(words[generator.random(4) < 0.4]) for _ in range(200)]
    labels = read(cells, kind="multilabel")
    for cell, codes in zip(cells, labels.codes, strict=True):
        if cell:
            assert codes.tolist() == [float(word in cell.split("|")) for word in labels.classes]
        else:
            assert np.isnan(codes).all()


def test_a_column_without_a_label_has_no_classes():
    labels = read(["", None, "nan"])
    assert (labels.kind, labels.classes) == ("class", []) and not labels.labelled.any()


def test_a_sign_says_uncertain_or_absent_and_none_says_that_nothing_was_found():
    labels = read(["Edema|?Mass|-Hernia", "none", "", "? Mass ", "-Edema", "Hernia"])
    assert labels.kind == "multilabel" and labels.classes == ["Edema", "Hernia", "Mass"]
    expected = [[1, 0, -1], [0, 0, 0], [np.nan] * 3, [0, 0, -1], [0, 0, 0], [0, 1, 0]]
    np.testing.assert_array_equal(labels.codes, np.array(expected, np.float32))
    assert labels.labelled.tolist() == [True, True, False, True, True, True]
    assert [v.tolist() for v in labels.shown()] == [[0, 5], [0, 1]]  # what is uncertain is not shown


def test_what_is_not_mentioned_can_be_left_unknown():
    cells = pa.array(["Edema|-Mass", "none", "?Edema", ""])
    labels = labels_of(cells, "column", unmentioned=np.nan)
    expected = [[1, 0], [0, 0], [-1, np.nan], [np.nan] * 2]
    np.testing.assert_array_equal(labels.codes, np.array(expected, np.float32))
    assert labels.labelled.tolist() == [True, True, True, False]
    last = labels_of(pa.array(["Edema|Mass", "Mass"]), "column", unmentioned=np.nan)
    assert last.labelled.tolist() == [True, True]  # the first class alone does not tell


def test_a_cell_that_contradicts_itself_is_refused_without_quoting_it():
    with pytest.raises(ScanlearnError, match="1 different cells of the column 'column' say of one finding") as error:
        read(["Mass|?Mass", "Mass|Mass", "Edema|-Mass"])
    assert "Mass" not in str(error.value)


def test_a_sign_before_a_number_or_alone_is_part_of_the_word():
    assert read(["-1|2", "?"], kind="multilabel").classes == ["-1", "2", "?"]
    assert read(["-1", "2"]).classes == ["-1", "2"]
    assert read(["?", "a"]).kind == "class" and read(["?a", "a"]).kind == "multilabel"
    assert read(["-ve", "+ve"]).classes == ["+ve", "-ve"]  # two classes of one column


def test_signs_agree_with_a_plain_loop():
    generator = np.random.default_rng(1)
    findings, values = ["a", "b", "c"], {"": 1.0, "?": -1.0, "-": 0.0}
    cells = ["|".join(s + f for f in findings for s in generator.choice(["", "?", "-", "no"], 1) if s != "no") or "none"
             for _ in range(300)]  # fmt: skip
    labels = read(cells, kind="multilabel")
    for cell, codes in zip(cells, labels.codes, strict=True):
        expected = dict.fromkeys(findings, 0.0)
        for word in cell.split("|"):
            if word != "none":
                expected[word[-1]] = values[word[:-1]]
        assert codes.tolist() == list(expected.values())
