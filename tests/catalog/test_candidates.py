"""Lists of candidates as LUNA16 and PE-CAD have them: mm of two worlds, one cell for each scan."""

import numpy as np
import pytest

from scanlearn.catalog.candidates import candidates_of, cells_of, read_candidates, with_candidates
from scanlearn.catalog.identifiers import telling_columns
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError


@pytest.fixture
def catalog():
    return Catalog.from_columns(
        {"scan_id": ["a", "b", "c"], "paths": [["/x/pe_1.mhd"], ["/x/pe_2.nii.gz"], ["/x/q.mhd"]]}
    )


def table(
    path, header="seriesuid,coordX,coordY,coordZ,class", rows=("pe_1,1.5,-2,3,1", "pe_2,0,0,7,0", "pe_1,4,5,6,0")
):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_points_are_counted_to_the_right_and_to_the_front(tmp_path, catalog):
    found = with_candidates(catalog, table(tmp_path / "c.csv"))
    rows, places, words = candidates_of(found)
    assert rows.tolist() == [0, 0, 1] and words == ["1", "0", "0"]
    assert np.array_equal(places, [[-1.5, 2, 3], [-4, -5, 6], [0, 0, 7]])
    assert found.column("candidates") == ["-1.5 2 3 1;-4 -5 6 0", "0 0 7 0", ""]
    same = with_candidates(catalog, table(tmp_path / "c.csv"), world="RAS", column="emboli")
    assert np.array_equal(candidates_of(same, "emboli")[1][0], [1.5, -2, 3])


def test_names_of_columns_are_told_by_their_words(tmp_path):
    points = read_candidates(table(tmp_path / "c.csv", "Volume,X,Y,Z,Label"), "RAS")
    assert points == {"pe_1": ["1.5 -2 3 1", "4 5 6 0"], "pe_2": ["0 0 7 0"]}
    assert cells_of(points, ["pe_2", "pe_3"]) == ["0 0 7 0", "none"]


@pytest.mark.parametrize(
    ("header", "rows", "told"),
    [
        ("seriesuid,coordX,coordY,coordZ", ("a,1,2,3",), "no column for 'word'"),
        ("seriesuid,coordX,coordY,coordZ,class", ("pe_1,1,2,3,1", "pe_1,1,,3,1"), "Row 2 of .* is no candidate"),
        ("seriesuid,coordX,coordY,coordZ,class", ("pe_1,1,2,inf,1",), "Row 1 of .* is no candidate"),
        ("seriesuid,coordX,coordY,coordZ,class", ("pe_1,1,2,3,a b",), "Row 1 of .* is no candidate"),
        ("seriesuid,coordX,coordY,coordZ,class", ("other,1,2,3,1",), "No scan of .* is in the catalogue"),
    ],
)
def test_what_is_no_list_of_candidates_is_one_sentence(tmp_path, catalog, header, rows, told):
    with pytest.raises(ScanlearnError, match=told):
        with_candidates(catalog, table(tmp_path / "c.csv", header, rows))


def test_two_scans_of_one_name_are_refused(tmp_path):
    twice = Catalog.from_columns({"scan_id": ["a", "b"], "paths": [["/x/pe_1.mhd"], ["/y/pe_1.mhd"]]})
    with pytest.raises(ScanlearnError, match="Several scans have a name"):
        with_candidates(twice, table(tmp_path / "c.csv"))


def test_an_unknown_world_is_refused(tmp_path):
    with pytest.raises(ScanlearnError, match="no world of coordinates 'RAI'"):
        read_candidates(table(tmp_path / "c.csv"), "RAI")


@pytest.mark.parametrize(
    ("column", "cell", "kept"),
    [
        ("candidates", "-1.5 2 {} 1;4 5 6e-05 0", True),
        ("nodules", "1 2 {} 5.65", True),
        ("candidates", "1 2 {} 47110815", False),
        ("candidates", "1 2 3 Doe{}", False),
        ("elsewhere", "1 2 {} 1", False),
    ],
)
def test_places_stay_in_a_store_and_words_that_may_be_names_do_not(column, cell, kept):
    cells = [cell.format(n) for n in range(12)]
    catalog = Catalog.from_columns(
        {"scan_id": [f"s{n}" for n in range(12)], "patient_id": [*"abcdefghijkl"], column: cells}
    )
    assert (column not in telling_columns(catalog)) is kept
