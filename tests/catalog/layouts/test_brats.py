"""BraTS 2017 to 2024: channels by name and in one order, what the masks say in each year, cases that are misnamed."""

import pytest

from catalog.layouts.trees import brats
from scanlearn.catalog.layouts.brats import RELEASES
from scanlearn.catalog.masks import mask_names
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError
from scanlearn.scans.prepare import prepare

ENHANCING = {**dict.fromkeys(("brats2017", "brats2018", "brats2019", "brats2020", "brats2021"), 4)}
ENHANCING |= {"brats2023_gli": 3, "brats2023_men": 3, "brats2024_gli": 3, "brats2024_ped": 1}


@pytest.mark.parametrize("name", brats.RELEASES)
def test_a_release_is_recognised_and_its_channels_are_in_one_order(tmp_path, name):
    _, (endings, seg), suffix, cases, bare = brats.RELEASES[name]
    catalog = Catalog.from_source(brats.make(tmp_path, name))
    assert {*catalog.column("dataset")} == {name} and {*catalog.column("view")} == {"T1+T1ce+T2+FLAIR"}
    by_case = dict(
        zip((paths[0].split("/")[-2] for paths in catalog.column("paths")), range(len(catalog)), strict=True)
    )
    assert {*by_case} == {case.rpartition("/")[2] for case in (*cases, *bare)}
    for case in (*cases, *bare):
        stem = case.rpartition("/")[2]
        names = [path.rpartition("/")[2] for path in catalog.column("paths")[by_case[stem]]]
        assert names == [f"{stem}{ending}{suffix}" for ending in endings]
        mask = catalog.column("mask_path")[by_case[stem]].rpartition("/")[2]
        misnamed = f"W39_1998.09.19_Segm{suffix}" if stem == "BraTS20_Training_355" else f"{stem}{seg}{suffix}"
        assert mask == (misnamed if case in cases else "")
    assert mask_names(catalog.table)[ENHANCING[name]] == "enhancing tumour"


def test_four_is_a_cavity_in_2024_and_the_enhancing_tumour_until_2022():
    told = {release.name: release.mask_names.get(4) for release in RELEASES}
    assert told["brats2021"] == "enhancing tumour" and told["brats2024_gli"] == "resection cavity"
    assert told["brats2023_gli"] is None and told["brats2024_ped"] == "oedema"


def test_points_in_time_of_one_person_are_one_patient(tmp_path):
    catalog = Catalog.from_source(brats.make(tmp_path, "brats2023_gli"))
    assert catalog.column("patient_id") == ["brats2023_gli:BraTS-GLI-00006"] * 2


def test_grades_are_the_folders_of_the_early_years(tmp_path):
    assert Catalog.from_source(brats.make(tmp_path, "brats2018")).column("grade") == ["HGG", "LGG"]


def test_a_folder_that_does_not_tell_the_year_must_be_named(tmp_path):
    brats.make(tmp_path, "brats2024_gli", root="glioma")
    with pytest.raises(
        ScanlearnError, match=r"several data sets \(brats2023_gli, brats2024_gli\); say which with --layout"
    ):
        Catalog.from_source(tmp_path)
    catalog = Catalog.from_source(tmp_path, layout="brats2024_gli")
    assert mask_names(catalog.table)[4] == "resection cavity"


def test_a_case_that_lacks_a_sequence_is_counted_and_all_of_them_are_an_error(tmp_path, capsys):
    gone = [f"{case}/{case}_t1ce.nii.gz" for case in ("BraTS2021_00000", "BraTS2021_00001", "BraTS2021_00003")]
    assert len(Catalog.from_source(brats.make(tmp_path / "a", "brats2021", without=gone[:1]))) == 2
    assert "1 cases lack one of their four sequences" in capsys.readouterr().err
    with pytest.raises(ScanlearnError, match="No case of BraTS 2021 and 2022"):
        Catalog.from_source(brats.make(tmp_path / "b", "brats2021", without=gone))


def test_a_value_that_masks_of_the_release_do_not_have_is_said(tmp_path, monkeypatch, capsys):
    """Masks of 2021 under the names of 2023: 4 is the enhancing tumour there and nothing here."""
    monkeypatch.setenv("SCANLEARN_PRIVATE", str(tmp_path / "private"))
    prepare(brats.make(tmp_path / "data", "brats2023_gli", value=4), tmp_path / "store", workers=0)
    assert "the masks hold the values [4]" in capsys.readouterr().err
    prepare(brats.make(tmp_path / "right", "brats2023_gli"), tmp_path / "other", workers=0)
    assert "the masks hold" not in capsys.readouterr().err
