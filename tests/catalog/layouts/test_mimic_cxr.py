"""MIMIC-CXR-JPG: labels of studies, "validate", lateral views by two names, blank views, gzipped tables."""

import pytest

from catalog.layouts.reading import rows
from catalog.layouts.trees import mimic_cxr
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError

COLUMNS = ("patient_id", "study_id", "view", "findings", "findings_negbio", "split")
CLEAR = ("none", "none")
EXPECTED = {
    ("files/p10/p10000032/s50414267/02aa804e", "10000032", "50414267", "PA", *CLEAR, "train"),
    ("files/p10/p10000032/s50414267/174413ec", "10000032", "50414267", "lateral", *CLEAR, "train"),
    (
        *("files/p10/p10000032/s53189527/2a2277a9", "10000032", "53189527", "AP"),
        *("?Edema|-Pneumonia|Support Devices", "Edema", "train"),
    ),
    (
        *("files/p10/p10000764/s57375967/e084de3b", "10000764", "57375967", "lateral"),
        *("Atelectasis|Pleural Effusion", "Atelectasis|Pleural Effusion", "val"),
    ),
    ("files/p11/p11000011/s51029426/68b5c4b1", "11000011", "51029426", "AP", "Consolidation", "Consolidation", "test"),
    ("files/p11/p11000011/s51029426/ea030e7a", "11000011", "51029426", "", "Consolidation", "Consolidation", "test"),
    ("files/p19/p19000001/s55000000/96d77b5e", "19000001", "55000000", "PA LLD", "", "", "test"),
}


def read(folder, **options):
    return Catalog.from_source(folder, **options)


def short(catalog, root):
    """Rows with the first group of letters of each image's name."""
    found = rows(catalog, root, *COLUMNS)
    return {(path.partition("-")[0], patient.removeprefix("mimic_cxr:"), *cells) for path, patient, *cells in found}


@pytest.mark.parametrize("zipped", [True, False])
def test_rows_are_those_of_the_tables(tmp_path, capsys, zipped):
    root = mimic_cxr.make(tmp_path, zipped=zipped)
    catalog = read(tmp_path / "physionet.org")
    assert short(catalog, root) == EXPECTED and catalog.patients_known
    said = capsys.readouterr().err
    assert "2 images have no view; descriptions of their studies tell that of 1" in said
    assert "split official val 1 (published 2,991)" in said


def test_release_2_1_0_adds_the_labels_of_radiologists(tmp_path):
    catalog = read(mimic_cxr.make(tmp_path, release="2.1.0"))
    told = dict(zip(catalog.column("study_id"), catalog.column("findings_radiologist"), strict=True))
    assert told["51029426"] == "-Consolidation" and {told[study] for study in told if study != "51029426"} == {""}


def test_a_part_of_the_images_is_enough(tmp_path, capsys):
    root = mimic_cxr.make(tmp_path, without=("files/p11", "mimic-cxr-2.0.0-negbio.csv.gz"))
    catalog = read(root)
    assert len(catalog) == 5 and "findings_negbio" not in catalog.label_columns
    assert "2 of 7 images" in capsys.readouterr().err


def test_nothing_is_written_beside_the_data(tmp_path):
    root = mimic_cxr.make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    read(root)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"without": ("mimic-cxr-2.0.0-metadata.csv.gz",)}, "lacks mimic-cxr-2.0.0-metadata.csv.gz"),
        ({"without": ("mimic-cxr-2.0.0-split.csv.gz",)}, "lacks mimic-cxr-2.0.0-split.csv.gz"),
        ({"without": ("mimic-cxr-2.0.0-chexpert.csv.gz",)}, "lacks mimic-cxr-2.0.0-chexpert.csv.gz"),
        ({"renamed": {"ViewPosition": "position"}}, "no column 'ViewPosition'"),
        ({"without": ("files",)}, "None of the 7 images"),
        ({"release": "1.0.0"}, "is MIMIC-CXR-JPG 1.0.0, which was organised otherwise"),
    ],
)
def test_a_damaged_copy_or_the_first_release_is_one_sentence(tmp_path, damage, told):
    with pytest.raises(ScanlearnError, match=told) as error:
        read(mimic_cxr.make(tmp_path, **damage))
    assert "physionet.org/content" in str(error.value) and "\n" not in str(error.value)


def test_another_split_than_the_three_parts_is_refused(tmp_path):
    root = mimic_cxr.make(tmp_path, zipped=False)
    path = root / "mimic-cxr-2.0.0-split.csv"
    path.write_text(path.read_text().replace("validate", "fold 3"))
    with pytest.raises(ScanlearnError, match="other than the parts of a split"):
        read(root)
