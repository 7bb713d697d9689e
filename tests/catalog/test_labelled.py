import numpy as np
import pytest

from scanlearn.catalog.splits import pick_labelled
from scanlearn.catalog.strata import group_strata
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError


def make(words, patients=None, **columns):
    count = len(words)
    patients = patients if patients is not None else range(count)
    ids = {"scan_id": [f"s{i:04d}" for i in range(count)], "patient_id": [f"p{p}" for p in patients]}
    return Catalog.from_columns({**ids, "label": words, **columns})


@pytest.fixture
def catalog():
    # 70 % common, 29 % other, 1 % rare; one scan in ten has no label; five scans a patient.
    words = np.array(["common"] * 700 + ["other"] * 290 + ["rare"] * 10, dtype=object)
    words[::10] = ""
    return make(words.tolist(), patients=np.arange(1000) // 5)


def test_smaller_budgets_lie_within_larger_ones(catalog):
    everything = pick_labelled(catalog, np.arange(1000), "label", "all", 0)
    assert len(everything) == 900 and len(set(everything.tolist())) == 900
    for count in (3, 10, 50, 100, 500):
        assert pick_labelled(catalog, np.arange(1000), "label", count, 0).tolist() == everything[:count].tolist()


def test_shares_of_the_labelled_scans_lie_within_each_other(catalog):
    everything = pick_labelled(catalog, np.arange(1000), "label", "all", 0).tolist()
    for share, count in (("1%", round(0.01 * len(everything))), ("10 %", round(0.1 * len(everything))), ("100%", None)):
        assert pick_labelled(catalog, np.arange(1000), "label", share, 0).tolist() == everything[:count]
    for wrong in ("0%", "101%", "half", "%"):
        with pytest.raises(ScanlearnError, match="a share such as 1%"):
            pick_labelled(catalog, np.arange(1000), "label", wrong, 0)


def test_a_share_that_is_no_whole_scan_is_one(catalog):
    """1 % of the 92 training images of Montgomery would be none (spec_dira §5.3)."""
    rows = np.flatnonzero(catalog.codes("label"))[:40]
    assert len(pick_labelled(catalog, rows, "label", "1%", 0)) == 1


def test_a_published_order_is_followed_by_every_seed_before_all_other_scans():
    places = [""] * 12
    for place, row in enumerate((7, 2, 9), 1):
        places[row] = str(place)
    words = ["a", "b"] * 6
    words[2] = ""  # numbered, but without a label
    catalog = make(words, labelled_order=places)
    everything = [pick_labelled(catalog, np.arange(12), "label", "all", seed).tolist() for seed in (0, 1)]
    assert all(rows[:2] == [7, 9] and sorted(rows[2:]) == [0, 1, 3, 4, 5, 6, 8, 10, 11] for rows in everything)
    assert everything[0] != everything[1]
    assert pick_labelled(catalog, np.arange(12), "label", 1, 5).tolist() == [7]
    assert pick_labelled(catalog, np.arange(8), "label", 1, 5).tolist() == [7]


@pytest.mark.parametrize("cell", ["first", "0", "-1", "1.5"])
def test_an_order_that_is_none_is_refused(cell):
    with pytest.raises(ScanlearnError, match="no place"):
        pick_labelled(make(["a", "b"], labelled_order=["1", cell]), np.arange(2), "label", 1, 0)


def test_every_class_is_there_and_the_others_in_proportion(catalog):
    codes = catalog.labels("label").codes
    shares = np.bincount(codes[codes >= 0]) / 900
    for seed in range(3):
        for count in (3, 10, 50, 200):
            found = np.bincount(codes[pick_labelled(catalog, np.arange(1000), "label", count, seed)], minlength=3)
            assert (found >= 1).all()
            assert np.abs(found - shares * count).max() <= 2


def test_patients_give_one_scan_before_any_gives_a_second(catalog):
    rows = pick_labelled(catalog, np.arange(1000), "label", 100, 0)
    assert len(set(catalog.patients[rows])) == 100
    rows = pick_labelled(catalog, np.arange(1000), "label", "all", 0)
    codes = catalog.labels("label").codes
    for code in range(3):
        mine = catalog.patients[rows[codes[rows] == code]]
        fresh = [patient not in mine[:i] for i, patient in enumerate(mine)]
        assert fresh == sorted(fresh, reverse=True)


def test_only_the_rows_asked_for_and_labelled_are_picked(catalog):
    rows = np.arange(500, 1000)
    picked = pick_labelled(catalog, rows, "label", "all", 0)
    assert set(picked.tolist()) == {row for row in rows if row % 10}


def test_the_choice_depends_on_the_seed_and_not_on_the_order_of_rows(catalog):
    order = np.random.default_rng(0).permutation(1000)
    mixed = catalog.take(order)
    first = pick_labelled(catalog, np.arange(1000), "label", 40, 5)
    again = pick_labelled(mixed, np.arange(1000)[::-1], "label", 40, 5)
    assert order[again].tolist() == first.tolist()
    assert pick_labelled(catalog, np.arange(1000), "label", 40, 6).tolist() != first.tolist()


def test_findings_that_never_stand_alone_are_covered():
    words = ["No Finding"] * 50 + ["A|B", "B|C", "B", "C|D|A", "D"] * 4
    catalog = make(words)
    codes = catalog.labels("label").codes
    for seed in range(5):
        order = pick_labelled(catalog, np.arange(70), "label", "all", seed)
        needed = next(n for n in range(1, 71) if (codes[order[:n]].sum(axis=0) > 0).all())
        assert needed <= 5
        assert (codes[pick_labelled(catalog, np.arange(70), "label", 6, seed)].sum(axis=0) > 0).all()


def test_budgets_too_small_for_every_class_are_refused(catalog):
    with pytest.raises(ScanlearnError, match="2 labelled scans cannot show every class of 'label'; ask for 3"):
        pick_labelled(catalog, np.arange(1000), "label", 2, 0)


def test_budgets_that_cannot_be_met_are_refused(catalog):
    with pytest.raises(ScanlearnError, match="901 labelled scans were asked for, but 900 have a label"):
        pick_labelled(catalog, np.arange(1000), "label", 901, 0)
    with pytest.raises(ScanlearnError, match="0 labelled scans"):
        pick_labelled(catalog, np.arange(1000), "label", 0, 0)
    with pytest.raises(ScanlearnError, match="None of the scans has a label"):
        pick_labelled(catalog, np.arange(0, 1000, 10), "label", 5, 0)


def test_masks_and_numbers_are_picked_too():
    numbers = np.arange(200.0)
    catalog = make(
        numbers, patients=np.arange(200) // 2, mask_path=["/m.png" if i % 4 == 0 else "" for i in range(200)]
    )
    picked = pick_labelled(catalog, np.arange(200), "mask", 10, 0)
    assert (picked % 4 == 0).all() and len(set(catalog.patients[picked])) == 10
    picked = pick_labelled(catalog, np.arange(200), "label", 25, 0)
    assert np.bincount((numbers[picked] // 40).astype(int)).tolist() == [5] * 5  # five from each fifth


def test_uncertain_findings_are_labelled_but_show_no_class():
    cells = ["?Mass", "?Mass|Edema", "Edema", "none", "", "Mass|-Edema"]
    catalog = Catalog.from_columns({"scan_id": [str(i) for i in range(6)], "findings": cells})
    assert sorted(pick_labelled(catalog, np.arange(6), "findings", "all", 0)) == [0, 1, 2, 3, 5]
    few = pick_labelled(catalog, np.arange(6), "findings", 2, 0)
    assert 5 in few  # the only scan that shows a mass
    strata = group_strata(catalog.labels("findings"), np.arange(6), 6)
    assert strata.tolist() == [2, 0, 0, 2, -1, 1]
