import pytest

from scanlearn.catalog.masks import mask_names, with_mask_names
from scanlearn.catalog.origin import origin_of, with_origin
from scanlearn.catalog.table import Catalog
from scanlearn.catalog.union import union
from scanlearn.errors import ScanlearnError


def catalog(dataset, patients="abc", **columns):
    ids = [f"s{n}" for n in range(len(patients))]
    paths = [[f"/{dataset}/{name}.png"] for name in ids]
    given = {"scan_id": ids, "paths": paths, "dataset": [dataset] * len(ids), "patient_id": list(patients)}
    return Catalog.from_columns({**given, **columns})


def test_scans_of_all_sources_stand_one_after_the_other_under_their_data_set():
    both = union([catalog("lidc"), catalog("deep lesion", "xy", lesion=["lung", "liver"])])
    assert both.column("scan_id") == ["lidc_s0", "lidc_s1", "lidc_s2", "deep_lesion_s0", "deep_lesion_s1"]
    assert both.column("dataset") == ["lidc"] * 3 + ["deep lesion"] * 2
    assert both.column("paths")[3] == ["/deep lesion/s0.png"] and both.column("patient_id") == list("abcxy")
    assert both.column("lesion") == ["", "", "", "lung", "liver"] and both.patients_known


def test_equal_ids_in_two_data_sets_are_one_patient_and_it_is_said(capsys):
    both = union([catalog("lidc"), catalog("deeplesion", "cd")])
    assert both.count_patients(range(5)) == 4
    said = capsys.readouterr().err
    assert "1 patients have the same id" in said and "'c'" not in said


def test_a_data_set_without_a_split_is_divided_where_others_have_one(capsys):
    given = catalog("deeplesion", split=["train", "val", "test"])
    both = union([given, catalog("lidc", "pqrstuvwxy")])
    assert both.column("split")[:3] == ["train", "val", "test"]
    assert sorted(set(both.column("split")[3:])) == ["test", "train", "val"]
    assert "lidc has no split" in capsys.readouterr().err
    assert set(union([catalog("lidc"), catalog("deeplesion", "xyz")]).column("split")) == {""}
    assert set(union([given, catalog("lidc", "pq")]).column("split")[3:]) == {"train"}  # too few to divide


def test_what_is_known_of_each_data_set_and_of_masks_that_agree_is_kept():
    one, other = catalog("one", mask_path=["/m"] * 3), catalog("other", "xyz", mask_path=["/m"] * 3)
    one = Catalog(with_origin(with_mask_names(one.table, {1: "nodule"}), {"layout": "one", "value_offset": -32768}))
    assert mask_names(union([one, other]).table) == {}
    named = Catalog(with_mask_names(other.table, {1: "nodule"}))
    both = union([one, named])
    assert mask_names(both.table) == {1: "nodule"}
    assert origin_of(both.table) == {"datasets": {"one": {"layout": "one", "value_offset": -32768}, "other": {}}}


def test_sources_of_one_name_or_of_several_are_refused():
    with pytest.raises(ScanlearnError, match="called 'lidc': rename"):
        union([catalog("lidc"), catalog("lidc", "xyz")])
    mixed = catalog("lidc").with_column("dataset", ["a", "b", "b"])
    with pytest.raises(ScanlearnError, match="2 names in its column 'dataset'"):
        union([catalog("lidc"), mixed])


def test_patients_of_the_whole_are_known_where_all_are():
    unknown = Catalog.from_columns({"scan_id": ["s0"], "paths": [["/a"]], "dataset": ["x"]})
    assert not union([catalog("lidc"), unknown]).patients_known
