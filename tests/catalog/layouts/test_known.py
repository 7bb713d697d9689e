"""What all layouts share: recognising, splits, counts, and what a catalogue keeps of where it is from."""

from pathlib import Path

import pytest

from catalog.layouts.trees import covid_ct, luna16, medseg
from scanlearn.catalog.layouts.known import catalog_of_layout, recognise
from scanlearn.catalog.layouts.layout import Layout, Rows, Split, all_layouts, layout_named
from scanlearn.catalog.layouts.tools import first_of, folders_below, some_names
from scanlearn.catalog.origin import origin_of
from scanlearn.catalog.table import FIXED, Catalog
from scanlearn.errors import ScanlearnError

NAMES = {layout.name for layout in all_layouts()}


@pytest.mark.parametrize("layout", all_layouts(), ids=lambda layout: layout.name)
def test_every_layout_states_its_facts(layout):
    assert layout.title and layout.licence and layout.citation and layout.page
    assert layout.marks or layout.knows is not None
    assert {*layout.contained_in, *layout.gives_way_to, *filter(None, [layout.patients_of])} <= NAMES - {layout.name}
    assert all(split.told.endswith(".") for split in layout.splits.values())
    assert "none" not in layout.splits


def test_nothing_is_recognised_in_an_ordinary_folder(folder):
    assert recognise(folder("images/a.png", "masks/a.png", "table.csv", "sub/0001/x.nii.gz", "dataset.json")) is None


def test_a_folder_of_two_data_sets_must_be_named(tmp_path):
    luna16.make(covid_ct.make(tmp_path))
    with pytest.raises(ScanlearnError, match=r"several data sets \(covid_ct, luna16\); say which with --layout"):
        Catalog.from_source(tmp_path)
    assert len(Catalog.from_source(tmp_path, layout="covid_ct")) == 12


def test_data_sets_beside_each_other_are_found_by_name_only(tmp_path):
    covid_ct.make(tmp_path / "covid")
    medseg.make(tmp_path / "medseg")
    assert recognise(tmp_path) is None
    assert len(Catalog.from_source(tmp_path, layout="covid_ct")) == 12
    assert len(Catalog.from_source(tmp_path, layout="medseg")) == 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"layout": "covid-ct"}, "no layout 'covid-ct'; did you mean 'covid_ct'"),
        ({"layout": "covid_ct", "split": "fold0"}, "no split of covid_ct 'fold0'"),
        ({"layout": "lidc"}, "is no LIDC-IDRI: it would hold LIDC-IDRI-0"),
        ({"layout": "covid_ct", "patient": "folder"}, "leave out --patient and --mask"),
        ({"layout": "none", "split": "official"}, "names a split of a known data set"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path, options, told):
    with pytest.raises(ScanlearnError, match=told):
        Catalog.from_source(covid_ct.make(tmp_path), **options)


def test_who_says_patient_or_mask_means_a_plain_folder(tmp_path):
    catalog = Catalog.from_source(covid_ct.make(tmp_path) / "Images-processed", patient="folder")
    assert "diagnosis" not in catalog.label_columns


def test_the_origin_stays_with_the_catalogue(tmp_path):
    catalog = Catalog.from_source(covid_ct.make(tmp_path))
    catalog.take([0, 1]).save(tmp_path / "few.parquet")
    kept = origin_of(Catalog.load(tmp_path / "few.parquet").table)
    assert kept["layout"] == "covid_ct" and kept["split"] == "official" and kept["official"]


# ---------------------------------------------------------------- a layout made up


def made_up(rows, **facts):
    return Layout(
        **{
            **{"name": "made_up", "title": "Made up", "licence": "CC0", "citation": "Nobody", "page": "nowhere"},
            **{"marks": ("mark.txt",), "read": lambda root: rows, **facts},
        }
    )


@pytest.fixture
def root(tmp_path):
    (tmp_path / "mark.txt").touch()
    return tmp_path


ROWS = {"paths": ["a.png", "b.png", "c.png"], "patient_id": ["1", "1", "2"], "finding": ["Mass|Nodule", "none", "Mass"]}


def test_numbers_of_patients_carry_the_name_of_their_data_set(root):
    catalog = catalog_of_layout(root, made_up(Rows(ROWS)))
    assert catalog.column("patient_id") == ["made_up:1", "made_up:1", "made_up:2"]
    shared = catalog_of_layout(root, made_up(Rows(ROWS), patients_of="chestxray14"))
    assert shared.column("patient_id")[0] == "chestxray14:1"


def test_counts_that_are_as_published_are_said_and_others_are_warned_of(root, capsys):
    counts = {"images": 3, "patients": 2, "Mass": 2, "split s train": 2, "boxes": 3}
    rows = Rows({**ROWS, "boxes": ["1 1 2 2;3 3 4 4", "none", "1 1 5 5"]}, {"s": ["train", "train", "test"]})
    catalog_of_layout(root, made_up(rows, counts=counts, splits={"s": Split(True, "Of them.")}))
    assert "boxes 3, as published" in capsys.readouterr().err.replace("\n", " ")
    catalog_of_layout(root, made_up(Rows(ROWS), counts={"images": 3, "Nodule": 4}))
    assert "differs from what was published: Nodule 1 (published 4)" in capsys.readouterr().err


def test_a_split_that_is_not_official_is_no_default_and_scans_in_none_of_its_parts_are_left_out(root, capsys):
    rows = Rows(ROWS, {"theirs": ["train", "", "test"]})
    layout = made_up(rows, splits={"theirs": Split(False, "Of others.")})
    assert {*catalog_of_layout(root, layout).column("split")} == {""}
    catalog = catalog_of_layout(root, layout, "theirs")
    assert catalog.column("split") == ["train", "test"] and [len(paths) for paths in catalog.column("paths")] == [1, 1]
    said = capsys.readouterr().err
    assert "not official: Of others." in said and "1 of 3 scans are in no part" in said


def test_a_split_of_which_this_copy_has_nothing_is_refused(root):
    layout = made_up(Rows(ROWS, {"theirs": ["", "", ""]}), splits={"theirs": Split(False, "Of others.")})
    with pytest.raises(ScanlearnError, match="No scan of this copy is in the split 'theirs'"):
        catalog_of_layout(root, layout, "theirs")


def test_a_copy_without_scans_is_one_sentence(root):
    with pytest.raises(ScanlearnError, match="has the marks of Made up but none of its scans"):
        catalog_of_layout(root, made_up(Rows({"paths": []})))


def test_patients_that_are_not_known_are_their_scans(root):
    catalog = catalog_of_layout(root, made_up(Rows(ROWS, patients_known=False)))
    assert not catalog.patients_known and catalog.column("patient_id") == catalog.column("scan_id")
    assert "patient_id" in FIXED.names


# ---------------------------------------------------------------- looking into folders


def test_alternatives_are_tried_in_their_order_and_patterns_match_any_level(folder):
    root = folder("b/x1/y.txt", "b/x2/z.txt", ".hidden/y.txt")
    assert first_of(root, "a|b/x*/z.txt|b") == root / "b/x2/z.txt"
    assert first_of(root, "a|*/y.txt") is None
    assert first_of(root, "b/x[0-9]/y.txt") == root / "b/x1/y.txt"


def test_a_new_name_in_a_folder_is_seen(folder):
    root = folder("a/1.txt")
    assert some_names(root) == ["a"]
    folder("b/1.txt")
    assert some_names(root) == ["a", "b"] and some_names(root / "nothing") == []


def test_folders_are_listed_to_a_depth(folder):
    root = folder("a/b/c/d.txt", "a/.git/x.txt", "__MACOSX/y.txt")
    assert folders_below(root) == ["a"] and folders_below(root, 3) == ["a", "a/b", "a/b/c"]


def test_a_huge_folder_is_looked_at_quickly(tmp_path):
    for number in range(5000):
        Path(tmp_path, f"{number}.png").touch()
    assert recognise(tmp_path) is None
    assert len(some_names(tmp_path, 10**6)) == 4096


def test_a_layout_is_had_by_name():
    assert layout_named("covid_ct").title == "COVID-CT"
