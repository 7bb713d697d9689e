import pytest

from scanlearn.catalog.patients import patients_by_pattern
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError


@pytest.fixture
def folder(tmp_path):
    for name in ("P1_a.png", "P1_b.png", "deep/P22_a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_a_pattern_finds_the_patient_in_the_names_of_a_folder(folder):
    catalog = Catalog.from_source(folder, patient=r"regex:(P\d+)_")
    assert catalog.patients.tolist() == ["P1", "P1", "P22"] and catalog.patients_known


def test_a_pattern_finds_the_patient_in_the_names_of_a_table_and_wins_over_its_column(folder):
    (folder / "t.csv").write_text("image,patient,y\nP1_a.png,x,0\nP1_b.png,y,1\ndeep/P22_a.png,z,0\n")
    catalog = Catalog.from_source(folder / "t.csv", patient=r"regex:(P\d+)_")
    assert catalog.patients.tolist() == ["P1", "P1", "P22"] and catalog.label_columns == ["y"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"(person\d+)_|(IM-\d+)-", {"patient_id": ["person7", "IM-0001"]}),
        (r"^(?P<patient>[^/]+)/", {"patient_id": ["x", "y"]}),
        (r"(?P<study>\d+)\.png", {}),
        (r"(p|I)\D+(?P<study>\d+)", {"patient_id": ["p", "I"], "study_id": ["p_7", "I_0001"]}),
    ],
)
def test_the_first_group_is_the_patient_and_groups_can_have_names(pattern, expected):
    scans = [["x/person7_1.png"], ["y/IM-0001-2.png"]]
    if expected:
        assert patients_by_pattern(f"regex:{pattern}", scans) == expected
    else:
        with pytest.raises(ScanlearnError, match="does not say which part is the patient"):
            patients_by_pattern(f"regex:{pattern}", scans)


def test_files_that_the_pattern_does_not_match_are_counted_and_never_named():
    with pytest.raises(ScanlearnError, match="no patient in the names of 2 of 3 scans") as caught:
        patients_by_pattern(r"regex:(P\d*)_", [["P1_a.png"], ["Doe.png"], ["x.png"]])
    assert "Doe" not in str(caught.value)
    with pytest.raises(ScanlearnError, match="of 1 of 1 scans"):
        patients_by_pattern(r"regex:(\d*)", [["a.png"]])  # an empty group is no patient


def test_the_files_of_one_scan_must_agree():
    with pytest.raises(ScanlearnError, match="several patients in the files of one scan, 1 times"):
        patients_by_pattern(r"regex:(\d+)", [["s/1.dcm", "s/2.dcm"], ["t/1.dcm"]])


@pytest.mark.parametrize("pattern", ["(", "(?P<1>x)", "a{99999999999999}", "(" * 200])
def test_invalid_patterns_are_refused(pattern):
    with pytest.raises(ScanlearnError, match="is no regular expression"):
        patients_by_pattern(f"regex:{pattern}", [["a"]])


def test_columns_and_folders_are_left_to_others():
    assert patients_by_pattern("patient", [["a"]]) == patients_by_pattern(None, [["a"]]) == {}
