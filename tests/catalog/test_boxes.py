import numpy as np
import pytest

from scanlearn.catalog.boxes import boxes_of, with_boxes
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError

HEADER = "patientId,x,y,width,height,Target\n"
# As stage_2_train_labels.csv: a row for each box, blank numbers where there is none, two boxes on the third image.
RSNA = HEADER + "0004,,,,,0\n00ab,264.0,152.0,213.0,379.0,1\n00ab,562.0,152.5,256.0,453.0,1\nffff,1,2,3,4,1\n"


@pytest.fixture
def scans():
    names = ("0004", "00ab", "nobody")
    return Catalog.from_columns({"scan_id": list(names), "paths": [[f"/images/{name}.dcm"] for name in names]})


def table(tmp_path, text):
    (tmp_path / "labels.csv").write_text(text)
    return tmp_path / "labels.csv"


def test_boxes_of_the_challenge_become_a_column(tmp_path, scans, capsys):
    catalog = with_boxes(scans, table(tmp_path, RSNA))
    assert catalog.column("boxes") == ["none", "264 152 213 379;562 152.5 256 453", ""]
    said = " ".join(capsys.readouterr().err.split())
    assert "2 boxes on 1 of 2 scans; 1 images of the table are not in the catalogue, 1 scans are not in" in said
    assert scans.extra_columns == []  # the catalogue given is not changed


def test_boxes_are_told_along_the_axes_of_the_image(tmp_path, scans):
    rows, corners, looked_at = boxes_of(with_boxes(scans, table(tmp_path, RSNA)))
    assert rows.tolist() == [1, 1] and looked_at.tolist() == [True, True, False]
    assert corners.tolist() == [[152, 264, 152 + 379, 264 + 213], [152.5, 562, 152.5 + 453, 562 + 256]]
    image = np.zeros((1024, 1024), bool)  # rows, columns
    top, left, bottom, right = corners[0].astype(int)
    image[top:bottom, left:right] = True
    assert image.sum() == 213 * 379 and image[152, 264] and not image[264, 152]


def test_boxes_survive_the_way_through_a_saved_catalogue(tmp_path, scans):
    catalog = with_boxes(scans, table(tmp_path, RSNA))
    catalog.save(tmp_path / "catalog.parquet")
    for ours, again in zip(boxes_of(catalog), boxes_of(Catalog.load(tmp_path / "catalog.parquet")), strict=True):
        assert np.array_equal(ours, again)


def test_no_box_at_all_gives_no_corners(tmp_path, scans):
    rows, corners, looked_at = boxes_of(with_boxes(scans, table(tmp_path, HEADER + "0004,,,,,0\n")))
    assert rows.shape == (0,) and corners.shape == (0, 4) and looked_at.tolist() == [True, False, False]


def test_names_with_a_suffix_and_other_words_for_the_columns_are_known(tmp_path, scans):
    catalog = with_boxes(scans, table(tmp_path, "Image Index,Left,Top,w,h\n00ab.dcm,1,2,3.5,4\n"))
    assert catalog.column("boxes") == ["", "1 2 3.5 4", ""]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("patientId,x,y,width\n0004,1,2,3\n", "no column for 'height'"),
        (HEADER + "0004,1,2,3,4,1\n00ab,1,,3,4,1\n", "1 rows of labels.csv are no box, the first is row 2 below"),
        (HEADER + "0004,1,2,0,4,1\n", "the first is row 1 below"),
        (HEADER + "0004,1,2,3,inf,1\n", "the first is row 1 below"),
        (HEADER + "0004,1,2,three,4,1\n", "Row 1 of labels.csv holds a word"),
        (HEADER + ",1,2,3,4,1\n", "1 rows of labels.csv name no image"),
        (HEADER + "other,1,2,3,4,1\n", "No image of labels.csv is in the catalogue"),
    ],
)
def test_what_is_no_table_of_boxes_is_refused_without_a_name_from_it(tmp_path, scans, text, words):
    with pytest.raises(ScanlearnError, match=words) as told:
        with_boxes(scans, table(tmp_path, text))
    assert "0004" not in str(told.value) and "00ab" not in str(told.value)


def test_two_scans_of_one_name_are_refused(tmp_path):
    paths = [["/a/0004.dcm"], ["/b/0004.dcm"]]
    catalog = Catalog.from_columns({"scan_id": ["a", "b"], "paths": paths})
    with pytest.raises(ScanlearnError, match="1 scans have the name of another"):
        with_boxes(catalog, table(tmp_path, RSNA))
