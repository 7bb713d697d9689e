import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scanlearn.catalog.boxes import BOX_FINDINGS, COLUMN
from scanlearn.catalog.candidates import COLUMNS
from scanlearn.catalog.table import FIXED, PLACES, Catalog
from scanlearn.errors import ScanlearnError


@pytest.fixture
def catalog():
    return Catalog.from_columns(
        {
            "scan_id": ["a", "b", "c"],
            "paths": [["/x/a.png"], ["/x/b1.dcm", "/x/b2.dcm"], ["/x/c.png"]],
            "patient_id": ["007", "007", "8"],
            "mask_path": ["/m/a.png", "", ""],
            "view": ["PA", "AP", ""],
            "finding": ["normal", " virus ", ""],
            "age": [60.0, float("nan"), 31.0],
        }
    )


def test_every_catalogue_has_the_fixed_columns_and_then_the_labels(catalog):
    assert catalog.table.column_names == [*FIXED.names, "finding", "age"]
    assert catalog.table.schema.field("paths").type == pa.list_(pa.string())
    assert catalog.label_columns == ["finding", "age"]
    assert len(catalog) == 3
    assert catalog.column("paths")[1] == ["/x/b1.dcm", "/x/b2.dcm"]
    assert catalog.column("split") == catalog.column("sha256") == ["", "", ""]
    assert repr(catalog) == "Catalog(3 scans, 2 patients, labels: ['finding', 'age'])"


def test_places_in_scans_are_no_labels_but_a_number_of_nodules_is():
    columns = {"boxes": ["1 2 3 4", "none"], "box_findings": ["Mass", ""], "candidates": ["", "1.5 2 3 0;4 5 6 1"]}
    catalog = Catalog.from_columns({"scan_id": ["a", "b"], **columns, "nodules": ["1 2 3 6.5", ""], "sex": ["F", "M"]})
    assert catalog.label_columns == ["sex"] and catalog.extra_columns == [*columns, "nodules", "sex"]
    assert {"boxes", "box_findings", *COLUMNS, "slice"} == set(PLACES) and {COLUMN, BOX_FINDINGS} < set(PLACES)
    with pytest.raises(ScanlearnError, match="no label column 'boxes'"):
        catalog.labels("boxes")
    assert Catalog.from_columns({"scan_id": ["a", "b"], "nodules": ["3", "0"]}).label_columns == ["nodules"]


def test_ids_stay_as_given_and_whole_floats_lose_their_point(catalog):
    assert catalog.patients.tolist() == ["007", "007", "8"] and catalog.patients.dtype.kind == "U"
    assert catalog.column("age") == ["60", "", "31"]
    assert catalog.column("finding") == ["normal", "virus", ""]


def test_scans_without_a_patient_stand_for_themselves_and_it_is_remembered():
    catalog = Catalog.from_columns({"scan_id": ["a", "b"], "patient_id": ["p", ""]})
    assert catalog.patients.tolist() == ["p", "b"] and not catalog.patients_known
    assert "(not known)" in repr(catalog)
    assert not catalog.take([0]).patients_known and not catalog.with_column("x", [1, 2]).patients_known


def test_what_is_saved_is_loaded(catalog, tmp_path):
    for one in (catalog, Catalog.from_columns({"scan_id": ["a"]})):
        one.save(tmp_path / "folder" / "catalog.parquet")
        back = Catalog.load(tmp_path / "folder" / "catalog.parquet")
        assert back.table.equals(one.table) and back.patients_known == one.patients_known
        assert Catalog.from_source(tmp_path / "folder").table.equals(one.table)


def test_loading_something_else_says_what_it_is(tmp_path):
    with pytest.raises(ScanlearnError, match="There is no catalogue"):
        Catalog.load(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(ScanlearnError, match="not a Parquet file"):
        Catalog.load(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "plain.parquet")
    with pytest.raises(ScanlearnError, match="plain table and no saved catalogue"):
        Catalog.load(tmp_path / "plain.parquet")


def test_take_keeps_the_order_asked_for(catalog):
    assert catalog.take(np.array([2, 0])).column("scan_id") == ["c", "a"]
    assert catalog.take(np.array([True, False, True])).column("scan_id") == ["a", "c"]
    assert len(catalog.take([])) == 0


def test_with_column_fills_fixed_columns_and_adds_labels(catalog):
    filled = catalog.with_column("sha256", ["1", "2", "3"]).with_column("fold", np.array([0, 1, 0]))
    assert filled.column("sha256") == ["1", "2", "3"] and filled.column("fold") == ["0", "1", "0"]
    assert filled.table.column_names == [*catalog.table.column_names, "fold"]
    assert catalog.column("sha256") == ["", "", ""]
    with pytest.raises(ScanlearnError, match="no split 'tset'; did you mean 'test'"):
        catalog.with_column("split", ["train", "tset", ""])


def test_scan_ids_are_unique():
    with pytest.raises(ScanlearnError, match="same scan_id"):
        Catalog.from_columns({"scan_id": ["a", "a"]})


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match=r"columns of 2 scans have other lengths: \{'x': 1\}"):
        Catalog.from_columns({"scan_id": ["a", "b"], "x": [1]})


def test_unknown_columns_are_refused_with_the_nearest(catalog):
    with pytest.raises(ScanlearnError, match="no column 'findings'; did you mean 'finding'"):
        catalog.column("findings")
    with pytest.raises(ScanlearnError, match="no label column 'findngs'; did you mean 'finding'"):
        catalog.labels("findngs")
    with pytest.raises(ScanlearnError, match="no label column 'patient_id'"):
        catalog.labels("patient_id")


def test_labels_of_columns_views_and_masks(catalog):
    assert catalog.labels("finding").codes.tolist() == [0, 1, -1]
    assert catalog.labels("view").classes == ["AP", "PA"]
    masks = catalog.labels("mask")
    assert masks.kind == "mask" and masks.codes.tolist() == masks.labelled.tolist() == [True, False, False]
    with pytest.raises(ScanlearnError, match="No scan of the catalogue has a mask"):
        catalog.take([1, 2]).labels("mask")


def test_rows_of_finds_scans_by_their_ids(catalog):
    assert catalog.rows_of(["c", "a"]).tolist() == [2, 0]
    with pytest.raises(ScanlearnError, match="2 of 3 scans are not in the catalogue, the first is 'x'"):
        catalog.rows_of(["a", "x", "y"])


def test_lists_of_findings_and_numpy_columns_become_text():
    catalog = Catalog.from_columns(
        {
            "scan_id": np.array(["a", "b"]),
            "findings": pa.array([["Mass", "Edema"], []]),
            "flag": np.array([True, False]),
            "huge": [1e300, 2.0],
        }
    )
    assert catalog.column("findings") == ["Mass|Edema", ""]
    assert catalog.column("flag") == ["true", "false"]
    assert [float(x) for x in catalog.column("huge")] == [1e300, 2.0]
    assert catalog.labels("findings").kind == "multilabel"
    with pytest.raises(ScanlearnError, match=r"column 'odd' .* cannot be read as text"):
        Catalog.from_columns({"scan_id": ["a"], "odd": pa.array([{"x": 1}])})
