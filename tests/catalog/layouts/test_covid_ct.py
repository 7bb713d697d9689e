"""COVID-CT: names, patients and the official split of a generated copy in its exact form."""

import pytest

from catalog.layouts.trees import covid_ct
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError


def read(folder, **options):
    return Catalog.from_source(folder, **options)


def rows(catalog, folder):
    columns = [catalog.column(name) for name in ("paths", "patient_id", "diagnosis", "split")]
    return {(of[0].removeprefix(f"{folder}/Images-processed/"), *cells) for of, *cells in zip(*columns, strict=True)}


EXPECTED = {
    ("CT_COVID/2020.01.24.919183-p27-132.png", "covid_ct:Patient 1", "COVID", "train"),
    ("CT_COVID/2020.01.24.919183-p27-133.png", "covid_ct:Patient 1", "COVID", "train"),
    ("CT_COVID/Rahimzadeh_p23_1.png", "covid_ct:Patient 2", "COVID", "train"),
    ("CT_COVID/kjr-21-e24-g001-l-a.png", "covid_ct:Patient 131", "COVID", "val"),
    ("CT_COVID/PIIS0140673620301549_0_1.png", "covid_ct:Patient 180", "COVID", "test"),
    ("CT_COVID/PIIS0140673620301549_0_2.png", "covid_ct:Patient 180", "COVID", "test"),
    ("CT_NonCOVID/14.png", "covid_ct:crawled_patient_1", "NonCOVID", "train"),
    ("CT_NonCOVID/14_0.jpg", "covid_ct:crawled_patient_2", "NonCOVID", "train"),
    ("CT_NonCOVID/15_1.jpg", "covid_ct:medpix_patient_1", "NonCOVID", "train"),
    ("CT_NonCOVID/672.png", "covid_ct:medpix_patient_2", "NonCOVID", "val"),
    ("CT_NonCOVID/1034.png", "covid_ct:crawled_patient_3", "NonCOVID", "test"),
    ("CT_NonCOVID/1035.png", "covid_ct:crawled_patient_3", "NonCOVID", "test"),
}


def test_rows_are_those_of_the_tables(tmp_path, capsys):
    catalog = read(covid_ct.make(tmp_path))
    assert rows(catalog, tmp_path) == EXPECTED
    assert catalog.patients_known
    said = capsys.readouterr().err
    assert "COVID-CT" in said and "images 12 (published 746)" in said and "split 'official'" in said


@pytest.mark.parametrize("wrapped", ["COVID-CT-master", "a/COVID-CT-master"])
def test_it_is_found_in_the_folders_an_archive_makes(tmp_path, wrapped):
    assert len(read(covid_ct.make(tmp_path, wrapped=wrapped))) == 12


def test_it_is_found_from_its_folder_of_images_when_asked_for_by_name(tmp_path):
    covid_ct.make(tmp_path)
    assert len(read(tmp_path / "Images-processed", layout="covid_ct")) == 12


def test_images_of_another_set_mixed_into_a_copy_are_left_out(tmp_path, capsys):
    catalog = read(covid_ct.make(tmp_path, strangers=True))
    assert rows(catalog, tmp_path) == EXPECTED
    assert "2 images are in no table" in capsys.readouterr().err


def test_layout_none_reads_the_plain_folder(tmp_path):
    catalog = read(covid_ct.make(tmp_path, strangers=True) / "Images-processed", layout="none")
    assert len(catalog) == 14 and "diagnosis" not in catalog.label_columns


def test_split_none_leaves_the_split_to_prepare(tmp_path):
    assert {*read(covid_ct.make(tmp_path), split="none").column("split")} == {""}


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"without": ("COVID-CT-MetaInfo.xlsx",)}, "lacks COVID-CT-MetaInfo.xlsx"),
        ({"without": ("NonCOVID-CT-MetaInfo.csv",)}, "lacks NonCOVID-CT-MetaInfo.csv"),
        ({"without": ("Data-split/NonCOVID/valCT_NonCOVID.txt",)}, "lacks Data-split/NonCOVID/valCT_NonCOVID.txt"),
        ({"renamed": {"Patient ID": "who"}}, "no column 'Patient ID'"),
        ({"renamed": {"image name": "file"}}, "no column 'image name'"),
    ],
)
def test_a_damaged_copy_is_one_sentence_that_says_what_is_missing(tmp_path, damage, told):
    with pytest.raises(ScanlearnError, match=told) as error:
        read(covid_ct.make(tmp_path, **damage))
    assert str(error.value).count(". ") == 0 and "github.com/UCSD-AI4H" in str(error.value)


def test_missing_images_are_counted_and_all_missing_is_an_error(tmp_path, capsys):
    catalog = read(covid_ct.make(tmp_path, without=("Images-processed/CT_NonCOVID/672.png",)))
    assert len(catalog) == 11
    assert "1 of 12 images" in capsys.readouterr().err


def test_archives_that_were_not_unpacked_are_told(tmp_path):
    covid_ct.make(tmp_path, without=("Images-processed/CT_COVID", "Images-processed/CT_NonCOVID"))
    for name in ("CT_COVID.zip", "CT_NonCOVID.zip"):
        (tmp_path / "Images-processed" / name).touch()
    with pytest.raises(ScanlearnError, match=r"None of the 12 images .* unpack the archives"):
        read(tmp_path)
