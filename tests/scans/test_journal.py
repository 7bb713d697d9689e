import numpy as np
import pytest

from scanlearn.scans.conform import Conformed
from scanlearn.scans.geometry import Placement
from scanlearn.scans.journal import Journal


def item(row, reason=""):
    found = Conformed(row, f"digest{row}", "", reason=reason)
    if not reason:
        found.array = np.ones((2, 5, 4, 3), np.int16)
        found.masked, found.factor, found.modality = True, 0.25, "CT"
        found.notes = ("was taken with a tilted gantry.",)
        found.affine = np.random.default_rng(row).normal(size=(4, 4))
        found.placement = Placement((5, 4, 3), (5, 4, 3), (0, 0, 0), (6, 4, 3))
        found.stats = {"minimum": -1000.0, "p_low": 1 / 3}
        found.voxels = {2: np.array([[1, 2, 0], [4, 3, 2]], np.int32), 7: np.zeros((0, 3), np.int32)}
    return found


def same(one, other):
    assert (
        one.stats == other.stats and one.placement == other.placement and one.affine.tobytes() == other.affine.tobytes()
    )
    assert one.array.dtype == other.array.dtype and one.array.shape[0] == other.array.shape[0]
    assert {v: a.tolist() for v, a in one.voxels.items()} == {v: a.tolist() for v, a in other.voxels.items()}
    names = ("row", "digest", "mask_digest", "reason", "masked", "factor", "modality", "notes")
    assert [getattr(one, n) for n in names] == [getattr(other, n) for n in names]
    return True


@pytest.fixture
def path(tmp_path):
    journal = Journal(tmp_path / "journal", "key")
    journal.append([item(0), item(1, "is empty.")])
    journal.append([item(2)], generation=3)
    journal.close()
    return tmp_path / "journal"


def test_rows_come_back_as_they_were_noted(path):
    again = Journal(path, "key")
    assert not again.begun_anew and again.generation == 3 and len(again.items) == 3
    assert all(same(found, item(n, "is empty." * (n == 1))) for n, found in enumerate(again.items))


@pytest.mark.parametrize("cut", [1, 30, 100])
def test_a_line_that_was_cut_off_is_dropped_and_the_next_one_follows(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path, "key")
    assert len(again.items) == 2 and again.generation == 0
    again.append([item(2)])
    again.close()
    assert [i.row for i in Journal(path, "key").items] == [0, 1, 2]


@pytest.mark.parametrize(
    "spoil", [lambda p: None, lambda p: p.write_bytes(b"\x00\xff"), lambda p: p.write_text("[]\n")]
)
def test_a_journal_of_another_key_or_a_damaged_one_is_begun_anew(path, spoil):
    spoil(path)
    again = Journal(path, "other")
    assert again.begun_anew and again.items == []
    again.close()
    assert not Journal(path, "other").begun_anew
