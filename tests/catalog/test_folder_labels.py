import pytest

from scanlearn.catalog.folder_labels import folders_are_labels, sounds_like_label
from scanlearn.catalog.identifiers import telling_columns
from scanlearn.catalog.pseudonyms import pseudonymise
from scanlearn.catalog.table import Catalog


def tree(*folders, each=12, patients=None):
    """So many scans in each folder, of so many patients (None: nobody knows whose)."""
    words = [folder for folder in folders for _ in range(each)]
    columns = {"scan_id": [f"s{n}" for n in range(len(words))], "folder": words}
    if patients is not None:
        columns["patient_id"] = [f"{folder}-{n % patients}" for n, folder in enumerate(words)]
    return Catalog.from_columns(columns)


@pytest.mark.parametrize(
    "folders",
    [
        *[("NORMAL", "PNEUMONIA"), ("normal", "covid-19"), ("benign", "malignant"), ("0", "1", "2", "3", "4")],
        *[("NORMAL", "CNV", "DRUSEN", "DME"), ("glioma_tumor", "no_tumor"), ("stage 1", "stage 2"), ("T1", "T2")],
    ],
)
def test_folders_called_like_findings_are_labels_whoever_was_scanned(folders):
    assert folders_are_labels(tree(*folders)) and telling_columns(tree(*folders)) == {}


@pytest.mark.parametrize(
    "folders",
    [
        ("DOE^JANE_19610203", "ROE^RICHARD_19550505"),
        ("Mueller Hans", "Meier Anna"),
        ("P001", "P002"),
        ("normal", "Doe"),
    ],
)
def test_folders_that_may_be_patients_are_not_kept(folders):
    assert telling_columns(tree(*folders)) == {"folder": "folders that may be patients"}
    assert telling_columns(tree(*folders, patients=1)).keys() == {"folder"}
    assert pseudonymise(tree(*folders))[0].label_columns == []


def test_any_folder_that_three_patients_share_is_a_label_and_so_is_one_that_is_asked_for():
    assert telling_columns(tree("Wilms", "Ewing", patients=3)) == {}
    assert telling_columns(tree("Wilms", "Ewing", patients=2)).keys() == {"folder"}
    assert pseudonymise(tree("Wilms", "Ewing"), keep=["folder"])[0].label_columns == ["folder"]


def test_names_are_no_words_for_findings():
    assert not any(map(sounds_like_label, ("Doe", "Jane Doe", "4711", "12", "p1", "", "normal Jane", "19610203")))


def test_a_column_that_repeats_the_patients_ids_is_not_kept():
    catalog = tree("normal", "pneumonia", patients=3).with_column(
        "subject", tree("normal", "pneumonia").column("scan_id")
    )
    catalog = catalog.with_column("who", catalog.column("patient_id"))
    assert telling_columns(catalog) == {"subject": "the patients' own ids", "who": "the patients' own ids"}


def test_the_source_of_a_scan_is_kept_unless_it_may_be_a_patient():
    catalog = tree("normal", "pneumonia", patients=6, each=60)
    sites = catalog.with_column("dataset", ["Basel", "Oslo"] * 60)
    assert set(pseudonymise(sites)[0].column("dataset")) == {"Basel", "Oslo"}
    people = catalog.with_column("dataset", [f"of {patient}" for patient in catalog.column("patient_id")])
    assert set(pseudonymise(people)[0].column("dataset")) == {""}
