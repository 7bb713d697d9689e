import numpy as np
import pytest

from discovery.stores import image_store, volume_store
from scanlearn.discovery.plan import Part, classes_of, margin_of, neighbours_of, part_of, size_of
from scanlearn.errors import ScanlearnError


def part(patients, scans=1):
    return Part("train", np.arange(patients * scans), np.repeat(np.arange(patients), scans))


def test_neighbours_are_the_published_ones_where_they_are_no_more_than_45_percent():
    assert neighbours_of(None, 200, part(445), 1, "--neighbours") == 200
    assert neighbours_of(None, 1000, part(5000), 1, "--neighbours") == 1000


def test_a_smaller_store_gets_a_share_and_it_is_said(capsys):
    assert neighbours_of(None, 200, part(140), 1, "--neighbours") == 63
    assert "63 neighbours of 140 in the train part, as 200 would be too many" in capsys.readouterr().err


@pytest.mark.parametrize(("asked", "wanted"), [(12, 12), (0.5, 50), (1, 1), (100.0, 100), (0.001, 1)])
def test_neighbours_are_a_number_or_a_share(asked, wanted):
    assert neighbours_of(asked, 200, part(100), 1, "--neighbours") == wanted


def test_what_is_asked_for_and_cannot_be_is_refused():
    with pytest.raises(ScanlearnError, match="101 neighbours are wanted and the train part has 100"):
        neighbours_of(101, 200, part(100), 1, "--neighbours")
    for asked in (0, -3, 2.5):
        with pytest.raises(ScanlearnError, match="--neighbours takes a number"):
            neighbours_of(asked, 200, part(100), 1, "--neighbours")


def test_patients_are_counted_and_not_their_scans():
    several = part(10, scans=4)
    assert [several.units(n) for n in (1, 3, 9, None)] == [10, 30, 40, 40]
    assert neighbours_of(0.5, 200, several, 1, "--neighbours") == 5


def test_a_part_without_scans_gives_no_neighbours():
    assert neighbours_of(30, 30, part(0), 1, "--neighbours-val") == 0


def test_words_by_default_and_words_without_patients(capsys):
    assert classes_of(None, 3, part(445), "per_class") == 44 and classes_of(None, 2, part(445), "per_class") == 100
    assert classes_of(None, 3, part(20), "per_class") == 10 and "10 words instead of 44" in capsys.readouterr().err
    assert classes_of(None, 3, part(20), "shared") == 44 == classes_of(44, 3, part(20), "shared")
    with pytest.raises(ScanlearnError, match=r"21 words need 21 reference patients and the train part has 20.*shared"):
        classes_of(21, 3, part(20), "per_class")


def test_the_default_crop_is_the_published_one_where_it_fits(tmp_path, capsys):
    large = volume_store(tmp_path / "large", parts=("train",) * 3, shapes=((90, 88, 44),))
    assert size_of(None, large, np.arange(3)) == (64, 64, 32)
    small = volume_store(tmp_path / "small", parts=("train",) * 3)
    assert size_of(None, small, np.arange(3)) == (8, 8, 8)
    assert "64x64x32 do not fit into scans of 26x26x20" in capsys.readouterr().err
    assert size_of(None, image_store(tmp_path / "flat"), np.arange(3)) == (16, 16)


def test_the_size_of_a_crop_in_voxels_and_in_shares(tmp_path):
    store = volume_store(tmp_path, parts=("train",) * 3)
    assert size_of([12, 12, 8], store, np.arange(3)) == (12, 12, 8)
    assert size_of(0.5, store, np.arange(3)) == (13, 13, 10) == size_of([0.5], store, np.arange(3))
    for wrong in ([8, 8], [8, 8, 0], -1):
        with pytest.raises(ScanlearnError, match="--size takes 3 numbers"):
            size_of(wrong, store, np.arange(3))


def test_margins_for_all_axes_or_for_each():
    assert margin_of(None, (100, 100, 30), 3) == (100, 100, 30) and margin_of(None, (0.0,), 2) == (0, 0)
    assert margin_of(0.1, (0.0,), 3) == (0.1, 0.1, 0.1) and margin_of([2, 0.1], (0.0,), 2) == (2, 0.1)
    with pytest.raises(ScanlearnError, match="--margins takes one number or 3"):
        margin_of([1, 2], (0.0,), 3)


def test_rows_are_units_where_patients_do_not_count(tmp_path):
    store = image_store(tmp_path)
    assert len(np.unique(part_of(store, "train", 1).patients)) * 2 == len(part_of(store, "train", None).rows)
    assert part_of(store, "train", None).units(None) == len(store.splits["train"])
