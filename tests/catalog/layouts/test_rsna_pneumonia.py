"""The RSNA pneumonia challenge: boxes, classes, and patients through the mapping to ChestX-ray14."""

import json

import pytest

from catalog.layouts.trees import rsna_pneumonia
from scanlearn.catalog.boxes import boxes_of
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR AS")  # ages of 155 as some files have them
COLUMNS = ("patient_id", "view", "modality", "boxes", "class", "lung_opacity")
NOT_NORMAL = "No Lung Opacity / Not Normal"
EXPECTED = {
    "0004cfab": ("chestxray14:00000001", "PA", "CR", "none", NOT_NORMAL, "0"),
    "00436515": ("chestxray14:00000013", "AP", "CR", "16 9.5 13 23;35 9 15 28", "Lung Opacity", "1"),
    "00569f44": ("chestxray14:00000013", "PA", "CR", "none", "Normal", "0"),
    "006cec2e": ("chestxray14:00000100", "AP", "CR", "none", "Normal", "0"),
    "00704310": ("chestxray14:00020124", "PA", "CR", "20 36 10 6", "Lung Opacity", "1"),
    "008c19e8": ("chestxray14:00030805", "AP", "CR", "none", NOT_NORMAL, "0"),
}


def rows(catalog):
    cells = zip(*(catalog.column(name) for name in COLUMNS), strict=True)
    return {paths[0].rpartition("/")[2][:8]: of for paths, of in zip(catalog.column("paths"), cells, strict=True)}


def make(folder, **damage):
    return rsna_pneumonia.make(folder, **damage)


def test_rows_are_images_with_boxes_classes_and_patients_of_chestxray14(tmp_path, capsys):
    catalog = Catalog.from_source(make(tmp_path))
    assert rows(catalog) == EXPECTED
    assert catalog.patients_known and {*catalog.column("split")} == {""}
    said = capsys.readouterr().err
    assert "stage_2_test_images have no labels" in said and "boxes 3 (published 9,555)" in said
    of_row, corners, looked_at = boxes_of(catalog)
    assert len(of_row) == 3 and looked_at.all() and corners[:, 2:].max() <= rsna_pneumonia.SIZE


def test_without_the_mapping_patients_are_not_known_and_it_is_said(tmp_path, capsys):
    catalog = Catalog.from_source(make(tmp_path, mapping=False))
    assert not catalog.patients_known and catalog.column("patient_id") == catalog.column("scan_id")
    assert "pneumonia-challenge-dataset-mappings_2018.json" in capsys.readouterr().err


def test_a_mapping_that_lacks_images_names_no_patient(tmp_path, capsys):
    path = make(tmp_path) / "pneumonia-challenge-dataset-mappings_2018.json"
    path.write_text(json.dumps(json.loads(path.read_text())[1:]))
    assert not Catalog.from_source(tmp_path).patients_known
    assert "lacks 1 of 6 images" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", ["[", '[{"subset_img_id": "a"}]', '[{"subset_img_id": "a", "img_id": 3}]', "[1]", "7"]
)
def test_another_file_in_place_of_the_mapping_is_refused(tmp_path, content):
    (make(tmp_path) / "pneumonia-challenge-dataset-mappings_2018.json").write_text(content)
    with pytest.raises(ScanlearnError, match="is not the RSNA's mapping"):
        Catalog.from_source(tmp_path)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"without": ("stage_2_train_labels.csv",)}, "lacks stage_2_train_labels.csv"),
        ({"without": ("stage_2_detailed_class_info.csv",)}, "lacks stage_2_detailed_class_info.csv"),
        ({"without": ("stage_2_train_images",)}, "None of the 6 images"),
        ({"renamed": {"width": "w"}}, "no column 'width'"),
        ({"stage": 1}, "holds stage 1 of the challenge"),
    ],
)
def test_a_damaged_copy_is_one_sentence(tmp_path, damage, told):
    with pytest.raises(ScanlearnError, match=told) as error:
        Catalog.from_source(make(tmp_path, **damage))
    assert str(error.value).count(". ") == 0 and "kaggle.com" in str(error.value)


def test_a_positive_row_without_a_box_is_refused(tmp_path):
    path = make(tmp_path) / "stage_2_train_labels.csv"
    path.write_text(path.read_text().replace("20.0,36.0,10.0,6.0", "20.0,36.0,,6.0"))
    with pytest.raises(ScanlearnError, match="Target 1 has no box"):
        Catalog.from_source(tmp_path)
