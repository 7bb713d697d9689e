import numpy as np
import pytest

from scanlearn.catalog.groups import patient_groups, random_keys
from scanlearn.catalog.splits import assert_disjoint, make_splits
from scanlearn.catalog.table import SPLITS, Catalog
from scanlearn.errors import ScanlearnError


def make(scans=600, patients=150, seed=0, **columns):
    generator = np.random.default_rng(seed)
    patient = np.concatenate([np.arange(patients), generator.integers(0, patients, scans - patients)])
    columns = {"sick": np.where(patient % 10 == 0, "yes", "no"), **columns}
    return Catalog.from_columns(
        {"scan_id": [f"s{i:04d}" for i in range(scans)], "patient_id": [f"p{p:03d}" for p in patient], **columns}
    )


def named(catalog, parts):
    ids = np.array(catalog.column("scan_id"))
    return {name: sorted(ids[rows].tolist()) for name, rows in parts.items()}


def patients_of(catalog, parts):
    return {name: set(catalog.patients[rows]) for name, rows in parts.items()}


def test_every_scan_is_in_one_part_and_no_patient_in_two():
    catalog = make()
    parts = make_splits(catalog, target="sick")
    assert list(parts) == list(SPLITS)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(catalog)))
    assert all(rows.dtype == np.int64 and (np.diff(rows) > 0).all() for rows in parts.values())
    assert_disjoint(catalog, parts)
    assert [len(found) for found in patients_of(catalog, parts).values()] == [105, 15, 30]


def test_each_part_gets_its_share_of_each_class():
    catalog = make()
    sick = set(catalog.patients[np.array(catalog.column("sick")) == "yes"])
    for seed in range(5):
        found = patients_of(catalog, make_splits(catalog, target="sick", seed=seed))
        for name, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
            assert abs(len(found[name] & sick) - share * len(sick)) <= 1


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_rows():
    catalog = make(findings=["A|B", "B", "", "C", "No Finding", "C"] * 100, sha256=[f"h{i % 590}" for i in range(600)])
    mixed = catalog.take(np.random.default_rng(1).permutation(len(catalog)))
    for target in (None, "sick", "findings"):
        expected = named(catalog, make_splits(catalog, target=target, seed=3))
        assert named(mixed, make_splits(mixed, target=target, seed=3)) == expected
        assert named(catalog, make_splits(catalog, target=target, seed=4)) != expected


def test_the_split_of_a_known_catalogue_never_changes():
    # Written down once: a change of these numbers moves patients of existing studies between training and test.
    catalog = Catalog.from_columns(
        {"scan_id": [f"s{i}" for i in range(10)], "patient_id": [f"p{i}" for i in range(10)]}
    )
    parts = make_splits(catalog, seed=0)
    assert {name: rows.tolist() for name, rows in parts.items()} == {
        "train": [0, 1, 3, 4, 6, 8, 9],
        "val": [2],
        "test": [5, 7],
    }
    assert random_keys(0, ["p0", "p1"]).tolist() == [15997131931264211229, 4975424488562682585]


def test_a_patient_with_two_classes_counts_for_the_commoner_one():
    # 20 patients of three scans; ten of them have two sick scans. Each half is divided in the same shares.
    sick = [word for i in range(20) for word in (("yes", "yes", "no") if i < 10 else ("no", "no", "yes"))]
    catalog = Catalog.from_columns(
        {
            "scan_id": [f"s{i}" for i in range(60)],
            "patient_id": [f"p{i // 3:02d}" for i in range(60)],
            "sick": sick,
        }
    )
    parts = make_splits(catalog, target="sick", fractions=(0.5, 0.2, 0.3))
    found = {name: sorted(int(p[1:]) < 10 for p in patients) for name, patients in patients_of(catalog, parts).items()}
    assert {name: (len(x), sum(x)) for name, x in found.items()} == {"train": (10, 5), "val": (4, 2), "test": (6, 3)}


@pytest.mark.parametrize("target", ["findings", "age", "mask"])
def test_findings_numbers_and_masks_can_be_balanced_too(target):
    generator = np.random.default_rng(0)
    rare = generator.random(600) < 0.1
    catalog = make(
        scans=600,
        patients=600,
        findings=np.where(rare, "Mass|Edema", "Edema"),
        age=np.where(rare, 90.0, generator.integers(20, 60, 600)),
        mask_path=np.where(rare, "/m.png", ""),
    )
    parts = make_splits(catalog, target=target)
    for rows, share in zip(parts.values(), (0.7, 0.1, 0.2), strict=True):
        slack = 6 if target == "age" else 1  # a number is balanced by fifths, of which the rare scans are a half
        assert abs(rare[rows].sum() - share * rare.sum()) <= slack


def test_patients_who_share_a_file_are_kept_together_and_counted(capsys):
    sha256 = [f"h{i}" for i in range(600)]
    sha256[1], sha256[2], sha256[3] = "h0", "h9999", "h9999"  # patients 0, 1 share a file, and 2, 3
    sha256[301] = sha256[300]
    for seed in range(10):
        catalog = make(patients=600, sha256=sha256)
        parts = make_splits(catalog, seed=seed)
        assert_disjoint(catalog, parts)
        part = np.zeros(600, int)
        for i, rows in enumerate(parts.values()):
            part[rows] = i
        assert part[0] == part[1] and part[2] == part[3] and part[300] == part[301]
    assert "6 patients share 3 identical files with another patient" in capsys.readouterr().err


def test_files_join_patients_over_others():
    catalog = Catalog.from_columns(
        {"scan_id": list("abcdef"), "patient_id": list("UVVWXX"), "sha256": ["1", "1", "2", "2", "3", "3"]}
    )
    groups = patient_groups(catalog)
    assert groups.of_row.tolist() == [0, 0, 0, 0, 1, 1]
    assert (groups.names, groups.joined, groups.files) == (["U", "X"], 3, 2)


def test_scans_without_a_hash_join_nobody():
    assert patient_groups(make()).joined == 0


def test_a_given_split_is_honoured():
    given = ["train", "val", "test"] * 20
    catalog = make(scans=60, patients=60, split=given)
    for seed in (0, 1):
        parts = make_splits(catalog, seed=seed)
        assert {name: rows.tolist() for name, rows in parts.items()} == {
            name: list(range(i, 60, 3)) for i, name in enumerate(SPLITS)
        }


def test_what_a_given_split_lacks_is_cut_out_of_training(capsys):
    given = np.where(np.arange(100) < 80, "train", "test")
    catalog = make(scans=100, patients=100, split=given)
    parts = make_splits(catalog)
    assert parts["test"].tolist() == list(range(80, 100))
    assert len(parts["val"]) == 10 and len(parts["train"]) == 70  # 0.1 / (0.7 + 0.1) of 80
    assert "The given split has no val: cut out of its training patients." in capsys.readouterr().err
    parts = make_splits(catalog, fractions=(0.8, 0, 0.2))
    assert len(parts["val"]) == 0 and len(parts["train"]) == 80


def test_a_given_split_that_parts_a_patient_is_refused():
    catalog = make(scans=60, patients=59, split=["train"] * 59 + ["test"])
    with pytest.raises(ScanlearnError, match="'train' and 'test' share 1 patient;"):
        make_splits(catalog)


def test_a_given_split_with_blanks_or_without_training_is_refused():
    with pytest.raises(ScanlearnError, match="blank in 20 of 60 rows"):
        make_splits(make(scans=60, patients=60, split=["train", "test", ""] * 20))
    with pytest.raises(ScanlearnError, match="names no scan for train"):
        make_splits(make(scans=60, patients=60, split=["val", "test"] * 30))


@pytest.mark.parametrize("fractions", [(0.7, 0.3), (0.7, 0.1, 0.3), (1.2, -0.2, 0), (0.5, 0.5, float("nan"))])
def test_fractions_are_three_and_sum_to_one(fractions):
    with pytest.raises(ScanlearnError, match="fractions"):
        make_splits(make(), fractions=fractions)


def test_no_part_is_empty_unless_its_fraction_is_0():
    assert [len(rows) for rows in make_splits(make(3, 3), fractions=(0.98, 0.01, 0.01)).values()] == [1, 1, 1]
    assert [len(rows) for rows in make_splits(make(1, 1), fractions=(1, 0, 0)).values()] == [1, 0, 0]
    with pytest.raises(ScanlearnError, match="2 patients cannot fill the 3 parts train, val, test"):
        make_splits(make(9, 2))


def test_classes_absent_from_a_part_are_said(capsys):
    make_splits(make(30, 30, kind=["odd"] + ["usual"] * 29), target="kind")
    assert capsys.readouterr().err.count("1 of 2 classes of 'kind' have no scan in") == 2


def test_unknown_patients_are_said(capsys):
    make_splits(Catalog.from_columns({"scan_id": list("abcdef")}))
    assert "The patient of some scans is not known" in capsys.readouterr().err


def test_assert_disjoint_names_the_parts_and_the_number_of_patients_but_no_patient():
    catalog = make()
    parts = {"pretrain": np.arange(0, 300), "train": np.arange(300, 310), "test": np.arange(400, 600)}
    shared = set(catalog.patients[:300]) & set(catalog.patients[300:310])
    with pytest.raises(ScanlearnError, match=f"'pretrain' and 'train' share {len(shared)} patients") as caught:
        assert_disjoint(catalog, parts)
    assert not any(patient in str(caught.value) for patient in shared)


def test_assert_disjoint_finds_one_file_under_two_patients():
    sha256 = [f"h{i}" for i in range(60)]
    sha256[50] = sha256[51] = sha256[3]
    catalog = make(60, 60, sha256=sha256)
    with pytest.raises(ScanlearnError, match="'train' and 'test' share 1 identical file under different patients"):
        assert_disjoint(catalog, {"train": np.arange(40), "test": np.arange(40, 60)})
    assert_disjoint(catalog, {"train": np.arange(4, 40), "test": np.arange(40, 60), "none": np.zeros(0, np.int64)})


def test_a_large_catalogue_is_divided_without_loops_over_scans():
    scans = 200_000
    generator = np.random.default_rng(0)
    catalog = Catalog.from_columns(
        {
            "scan_id": [f"s{i}" for i in range(scans)],
            "patient_id": generator.integers(0, 60_000, scans),
            "label": generator.integers(0, 5, scans),
            "sha256": [f"{i:x}" for i in generator.integers(0, 10**8, scans)],
        }
    )
    parts = make_splits(catalog, target="label")
    assert_disjoint(catalog, parts)
    assert abs(len(parts["train"]) / scans - 0.7) < 0.01
