"""MURA: tables without header, labels of studies, one patient under two parts of the body."""

import pytest

from catalog.layouts.reading import rows
from catalog.layouts.trees import mura
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError

COLUMNS = ("patient_id", "study_id", "body_part", "findings", "split")
SHOULDER, WRIST = "train/XR_SHOULDER/patient00001/study1_positive", "train/XR_WRIST/patient00001/study1_negative"
OTHER, ELBOW = "train/XR_WRIST/patient00002/study2_positive", "valid/XR_ELBOW/patient11186/study1_negative"
EXPECTED = {
    (f"{SHOULDER}/image1.png", "mura:patient00001", SHOULDER, "shoulder", "Abnormal", "train"),
    (f"{SHOULDER}/image2.png", "mura:patient00001", SHOULDER, "shoulder", "Abnormal", "train"),
    (f"{SHOULDER}/image3.png", "mura:patient00001", SHOULDER, "shoulder", "Abnormal", "train"),
    (f"{WRIST}/image1.png", "mura:patient00001", WRIST, "wrist", "none", "train"),
    (f"{OTHER}/image1.png", "mura:patient00002", OTHER, "wrist", "Abnormal", "train"),
    (f"{ELBOW}/image1.png", "mura:patient11186", ELBOW, "elbow", "none", "val"),
    (f"{ELBOW}/image2.png", "mura:patient11186", ELBOW, "elbow", "none", "val"),
}


def read(folder, **options):
    return Catalog.from_source(folder, **options)


@pytest.mark.parametrize("wrapped", [True, False])
def test_rows_are_those_of_the_tables_without_header(tmp_path, capsys, wrapped):
    root = mura.make(tmp_path, wrapped=wrapped)
    catalog = read(tmp_path)
    assert rows(catalog, root, *COLUMNS) == EXPECTED
    assert catalog.patients_known and len({*catalog.column("patient_id")}) == 3
    said = capsys.readouterr().err
    assert "images 7 (published 40,005)" in said and "no table" not in said  # ._image1.png is no image


def test_findings_are_one_class_that_is_there_or_not(tmp_path):
    labels = read(mura.make(tmp_path)).labels("findings", "multilabel")
    assert labels.classes == ["Abnormal"] and labels.codes[:, 0].tolist() == [1, 1, 1, 0, 1, 0, 0]


def test_the_tables_label_counts_where_the_folder_says_another(tmp_path, capsys):
    catalog = read(mura.make(tmp_path, contrary=True))
    assert (f"{WRIST}/image1.png", "Abnormal") in rows(catalog, tmp_path / "MURA-v1.1", "findings")
    assert "1 studies have another label" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"without": ("train_image_paths.csv",)}, "lacks train_image_paths.csv"),
        ({"without": ("valid_labeled_studies.csv",)}, "lacks valid_labeled_studies.csv"),
        ({"without": ("train", "valid")}, "None of the 7 images"),
        ({"version": "1.0"}, "is MURA 1.0, whose studies are others"),
    ],
)
def test_a_damaged_copy_or_another_version_is_one_sentence(tmp_path, damage, told):
    with pytest.raises(ScanlearnError, match=told) as error:
        read(mura.make(tmp_path, **damage))
    assert "stanfordmlgroup" in str(error.value) and "\n" not in str(error.value)


def test_tables_with_a_header_or_other_paths_are_refused(tmp_path):
    path = mura.make(tmp_path) / "train_labeled_studies.csv"
    path.write_text("study,label\n" + path.read_text())
    with pytest.raises(ScanlearnError, match="1 of 4 lines"):
        read(tmp_path)
