"""CheXpert: what is uncertain, absent and not mentioned; archives and prefixes; odd views; the part for testing."""

import pytest

from catalog.layouts.reading import rows
from catalog.layouts.trees import chexpert
from scanlearn.catalog.layouts.known import recognise
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError

COLUMNS = ("patient_id", "study_id", "view", "findings", "sex", "age", "split")
STUDY = "chexpert:patient00002", "patient00002/study1"
ABSENT = "|".join(f"-{name}" for name in chexpert.FINDINGS[1:])
EXPECTED = {
    (
        *("train/patient00001/study1/view1_frontal.jpg", "chexpert:patient00001", "patient00001/study1", "AP"),
        *("-Pneumothorax|Support Devices", "F", "68", "train"),
    ),
    (
        *("train/patient00002/study2/view1_frontal.jpg", "chexpert:patient00002", "patient00002/study2", "AP"),
        *("?Cardiomegaly|Lung Opacity|?Edema", "F", "87", "train"),
    ),
    (
        *("train/patient00002/study1/view1_frontal.jpg", *STUDY, "AP"),
        *("Lung Opacity|-Consolidation|-Pleural Other", "F", "83", "train"),
    ),
    (
        *("train/patient00002/study1/view2_lateral.jpg", *STUDY, "lateral"),
        *("Lung Opacity|-Consolidation|-Pleural Other", "F", "83", "train"),
    ),
    (
        *("train/patient00003/study1/view1_frontal.jpg", "chexpert:patient00003", "patient00003/study1", "PA"),
        *("none", "", "0", "train"),
    ),
    (
        *("train/patient07958/study5/view2_frontal.jpg", "chexpert:patient07958", "patient07958/study5", "LL"),
        *("Edema", "M", "41", "train"),
    ),
    (
        *("train/patient00004/study1/view1_frontal.jpg", "chexpert:patient00004", "patient00004/study1", "PA"),
        *("", "M", "20", "train"),
    ),
    (
        *("valid/patient64541/study1/view1_frontal.jpg", "chexpert:patient64541", "patient64541/study1", "AP"),
        *(
            ABSENT.replace("-Enlarged", "Enlarged").replace("-Lung Opacity", "Lung Opacity"),
            *("M", "73", "val"),
        ),
    ),
    (
        *("valid/patient64542/study1/view1_frontal.jpg", "chexpert:patient64542", "patient64542/study1", "PA"),
        *("none", "M", "70", "val"),
    ),
}


def read(folder, **options):
    return Catalog.from_source(folder, **options)


def test_rows_are_those_of_the_tables(tmp_path, capsys):
    catalog = read(chexpert.make(tmp_path))
    assert rows(catalog, tmp_path, *COLUMNS) == EXPECTED and catalog.patients_known
    said = capsys.readouterr().err
    assert "1 images called frontal have the position LL or RL" in said and "1 images have no word" in said
    assert "?Edema 1 (published 12,984)" in said


def test_uncertain_labels_are_left_to_a_policy_and_blanks_count_as_absent(tmp_path):
    labels = read(chexpert.make(tmp_path)).labels("findings")
    assert labels.kind == "multilabel" and "none" not in labels.classes and len(labels.classes) == 13
    edema = labels.codes[:, labels.classes.index("Edema")]
    assert (edema == -1).sum() == 1 and (edema == 1).sum() == 1 and (~labels.labelled).sum() == 1


def test_the_four_archives_are_one_data_set(tmp_path):
    catalog = read(chexpert.make(tmp_path / "chexpertchestxrays-u20210408", batches=True))
    told = {row[1:] for row in rows(catalog, tmp_path, *COLUMNS)}
    assert told == {row[1:] for row in EXPECTED}
    assert any("batch 4 (train 3)/patient07958" in paths[0] for paths in catalog.column("paths"))


@pytest.mark.parametrize("by", ["image", "study"])
def test_the_part_for_testing_is_read_where_it_is_there(tmp_path, capsys, by):
    catalog = read(chexpert.make(tmp_path, test=by))
    test = {row for row in rows(catalog, tmp_path, "view", "findings", "split") if row[-1] == "test"}
    edema = ABSENT.replace("-Edema", "Edema")
    assert test == {
        ("CheXpert/test/patient64741/study1/view1_frontal.jpg", "", edema, "test"),
        ("CheXpert/test/patient64741/study1/view2_lateral.jpg", "lateral", edema, "test"),
    }
    assert "2 images (published 668)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"without": ("train.csv",)}, "lacks train.csv"),
        ({"without": ("valid.csv",)}, "lacks valid.csv"),
        ({"renamed": {"AP/PA": "position"}}, "no column 'AP/PA'"),
        ({"renamed": {"Edema": "edema present"}}, "no column 'Edema'"),
        ({"without": ("train", "valid")}, "None of the 9 images"),
    ],
)
def test_a_damaged_copy_is_one_sentence(tmp_path, damage, told):
    with pytest.raises(ScanlearnError, match=told) as error:
        read(chexpert.make(tmp_path, **damage))
    assert "stanford" in str(error.value) and "\n" not in str(error.value)


def test_other_numbers_than_the_four_are_refused(tmp_path):
    chexpert.make(tmp_path)
    path = tmp_path / "train.csv"
    path.write_text(path.read_text().replace("-1.0", "2.0"))
    with pytest.raises(ScanlearnError, match="other than 1, 0, -1"):
        read(tmp_path)


def test_another_folder_with_train_and_valid_is_not_taken_for_it(tmp_path):
    for part in ("train", "valid"):
        (tmp_path / part / "cats").mkdir(parents=True)
        (tmp_path / f"{part}.csv").write_text("file,label\ncats/a.png,1\n")
    assert recognise(tmp_path) is None
