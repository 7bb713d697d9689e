import json

import pytest

from scanlearn.catalog.masks import mask_names
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError

FACTS = {
    "channel_names": {"0": "T1", "1": "FLAIR"},
    "labels": {"background": 0, "edema": 1, "whole tumour": [1, 2], "core": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


@pytest.fixture
def data_set(tmp_path):
    def make(*files, root=tmp_path / "Dataset001_Brain", **facts):
        for name in files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        root.mkdir(exist_ok=True)
        (root / "dataset.json").write_text(json.dumps({**FACTS, **facts}))
        return root

    return make


def case(name, part="Tr", channels=2, label=True):
    files = [f"images{part}/{name}_{i:04d}.nii.gz" for i in range(channels)]
    return [*files, *([f"labels{part}/{name}.nii.gz"] if label else [])]


def test_the_channels_of_a_case_are_one_scan_with_its_mask_and_the_names_of_its_classes(data_set, capsys):
    root = data_set(*case("BR_001"), *case("BR_002"))
    catalog = Catalog.from_source(root)
    assert catalog.column("scan_id") == ["imagesTr_BR_001", "imagesTr_BR_002"]
    assert catalog.column("paths")[1] == [f"{root}/imagesTr/BR_002_{i:04d}.nii.gz" for i in range(2)]
    assert catalog.column("mask_path")[1] == f"{root}/labelsTr/BR_002.nii.gz"
    assert set(catalog.column("modality")) == {"MR"} and set(catalog.column("view")) == {"T1+FLAIR"}
    assert set(catalog.column("dataset")) == {"Dataset001_Brain"} and not catalog.patients_known
    assert mask_names(catalog.table) == {1: "edema", 2: "core"}
    said = capsys.readouterr().err
    assert said == "nnU-Net: 2 scans, 2 channels (T1, FLAIR); 2 with masks of edema, core.\n"
    assert Catalog.from_source(root / "dataset.json").table.equals(catalog.table)


def test_test_cases_have_no_mask_and_are_in_no_part(data_set, capsys):
    catalog = Catalog.from_source(data_set(*case("a"), *case("b"), *case("c", "Ts", label=False), *case("d", "Ts")))
    assert catalog.column("scan_id") == ["imagesTr_a", "imagesTr_b", "imagesTs_c", "imagesTs_d"]
    assert [bool(mask) for mask in catalog.column("mask_path")] == [True, True, False, True]
    assert set(catalog.column("split")) == {""}
    assert "2 of them are test cases (imagesTs), 1 without mask" in capsys.readouterr().err


def test_a_case_that_lacks_a_channel_is_left_out_and_counted(data_set, capsys):
    catalog = Catalog.from_source(data_set(*case("a"), *case("b", channels=1), *case("c", channels=3)))
    assert catalog.column("scan_id") == ["imagesTr_a"]
    said = capsys.readouterr().err
    assert "2 of 3 cases lack a channel file or have one too many" in said
    assert "dataset.json speaks of 2 training cases, 3 are there" in said
    with pytest.raises(ScanlearnError, match=r"None of the 3 cases of .* has the 3 channels that it names") as caught:
        root = data_set(channel_names={"0": "T1", "1": "T2", "2": "FLAIR"}, root=data_set().with_name("other"))
        for name in case("a") + case("b") + case("c", channels=1):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).touch()
        Catalog.from_source(root)
    assert str(caught.value).count("\n") == 0


def test_missing_masks_masks_without_case_and_odd_files_are_counted(data_set, capsys):
    names = (*case("a"), *case("b", label=False), "labelsTr/x.nii.gz", "imagesTr/notes.nii.gz", "imagesTr/b_0000.png")
    assert len(Catalog.from_source(data_set(*names))) == 2
    said = capsys.readouterr().err
    assert "1 of 2 training cases have no file in labelsTr" in said
    assert "1 files in labelsTr have the name of no case" in said
    assert "2 files are not called CASE_0000.nii.gz" in said


def test_patients_can_come_from_a_pattern_but_not_from_folders(data_set):
    root = data_set(*case("P1_a"), *case("P1_b"), *case("P2_a"))
    assert Catalog.from_source(root, patient=r"regex:(P\d+)_").patients.tolist() == ["P1", "P1", "P2"]
    with pytest.raises(ScanlearnError, match='patient="folder" does not fit'):
        Catalog.from_source(root, patient="folder")
    with pytest.raises(ScanlearnError, match="mask='x' names a column"):
        Catalog.from_source(root, mask="x")


def test_cases_can_be_listed_by_name(data_set):
    cases = {"one": {"images": ["raw/a_0000.nii.gz", "raw/a_0001.nii.gz"], "label": "raw/seg_a.nii.gz"}}
    root = data_set("raw/a_0000.nii.gz", "raw/a_0001.nii.gz", "raw/seg_a.nii.gz", dataset=cases)
    catalog = Catalog.from_source(root)
    assert catalog.column("scan_id") == ["raw_a"]
    assert catalog.column("mask_path") == [f"{root}/raw/seg_a.nii.gz"]


@pytest.mark.parametrize("name", ["../far_0000.nii.gz", "/etc/passwd", "raw/../../far_0000.nii.gz"])
def test_a_listed_case_may_not_lie_outside_the_data_set(data_set, name):
    cases = {"one": {"images": [name, "raw/a_0001.nii.gz"], "label": "raw/seg_a.nii.gz"}}
    root = data_set("../far_0000.nii.gz", "raw/a_0001.nii.gz", "raw/seg_a.nii.gz", dataset=cases)
    with pytest.raises(ScanlearnError, match=r"1 file names in entry 'images' of dataset.json lead out of"):
        Catalog.from_source(root)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"file_ending": ".exe"}, r"its files end in '\.exe', which scanlearn does not read"),
        ({"channel_names": {"0": "CT", "2": "PET"}}, "are not numbered 0, 1, 2"),
        ({"channel_names": {"zero": "CT"}}, "channels in .* are not written as"),
        ({"channel_names": 7}, "channels in .* are not written as"),
        ({"dataset": {"a": {"images": "x"}}}, "not written as"),
        ({"dataset": []}, "not written as"),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(data_set, facts, message):
    with pytest.raises(ScanlearnError, match=message):
        Catalog.from_source(data_set(*case("a"), **facts))


def test_names_of_classes_that_a_mask_cannot_hold_are_left_out(data_set):
    labels = {"background": 0, "ok": 1, "far": 999, "odd": "x", "none": None, "yes": True, "\x1b[31mred": "2"}
    catalog = Catalog.from_source(data_set(*case("a"), labels=labels))
    assert mask_names(catalog.table) == {1: "ok", 2: "[31mred"}


def test_an_empty_data_set_is_refused(data_set):
    with pytest.raises(ScanlearnError, match=r"There is no scan in .*imagesTr; nnU-Net calls them CASE_0000"):
        Catalog.from_source(data_set())
