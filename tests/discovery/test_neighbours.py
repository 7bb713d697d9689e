import numpy as np
import pytest

from scanlearn.discovery import neighbours
from scanlearn.discovery.neighbours import nearest
from scanlearn.errors import ScanlearnError


def plain(values, query, candidates, groups, count, per_patient=1, usable=None):
    """One query after another, one candidate after another, in float64."""
    distance = [
        float(np.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(values[query], values[c], strict=True))))
        for c in candidates
    ]
    order = sorted(range(len(candidates)), key=lambda i: (-1 if candidates[i] == query else distance[i], candidates[i]))
    taken, rows, distances = {}, [], []
    for i in order:
        if usable is not None and not usable(candidates[i]):
            continue
        if per_patient is not None and taken.get(groups[i], 0) >= per_patient:
            continue
        taken[groups[i]] = taken.get(groups[i], 0) + 1
        rows.append(candidates[i])
        distances.append(distance[i])
        if len(rows) == count:
            break
    return rows, distances


@pytest.mark.parametrize("per_patient", [1, 2, None])
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_neighbours_equal_a_plain_search_whatever_the_blocks(monkeypatch, per_patient, block):
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", 8 * 5 * block)
    rng = np.random.default_rng(0)
    values = rng.random((60, 5)).astype(np.float32)
    values[20:30] = values[10:20]  # identical scans
    candidates = np.sort(rng.choice(60, 45, replace=False))
    groups = rng.integers(0, 20, 60)[candidates]
    queries = candidates[[5, 0, 40, 17]]
    rows, distance = nearest(values, queries, candidates, groups, 8, per_patient=per_patient)
    for q, query in enumerate(queries):
        wanted, far = plain(values, query, candidates, groups, 8, per_patient)
        assert rows[q].tolist() == wanted
        np.testing.assert_allclose(distance[q], far, rtol=1e-6, atol=1e-7)


def test_the_reference_comes_first_and_counts_also_where_others_have_its_descriptor():
    values = np.zeros((6, 3), np.float32)
    rows, distance = nearest(values, np.array([4, 2]), np.arange(6), np.arange(6), 3)
    assert rows.tolist() == [[4, 0, 1], [2, 0, 1]] and not distance.any()


def test_the_nearest_scan_of_each_patient_is_taken():
    values = np.array([[0.0], [1.0], [2.0], [0.5], [3.0]], np.float32)
    rows, _ = nearest(values, np.array([0]), np.arange(5), np.array([9, 9, 7, 7, 8]), 3)
    assert rows.tolist() == [[0, 3, 4]]


def test_validation_scans_are_neighbours_of_a_training_reference():
    values = np.array([[0.0], [5.0], [4.0], [-1.0]], np.float32)
    rows, distance = nearest(values, np.array([0]), np.array([1, 2, 3]), np.array([1, 2, 3]), 2)
    assert rows.tolist() == [[3, 2]] and distance.tolist() == [[1.0, 4.0]]


def test_a_large_common_part_of_all_descriptors_costs_no_digits():
    rng = np.random.default_rng(1)
    values = (1000.0 + rng.random((200, 16)) * 1e-2).astype(np.float32)
    rows, _ = nearest(values, np.array([3]), np.arange(200), np.arange(200), 50)
    assert rows[0].tolist() == plain(values, 3, list(range(200)), list(range(200)), 50)[0]


def test_scans_that_do_not_fit_are_passed_over():
    values = np.arange(10, dtype=np.float32)[:, None]
    rows, _ = nearest(
        values, np.array([0, 9]), np.arange(10), np.arange(10), 3, usable=lambda q, at: (at % 3 == 0) | (at > 7 + q)
    )
    assert rows.tolist() == [[0, 3, 6], [9, 6, 3]]


def test_descriptors_in_a_file_give_the_same(tmp_path):
    values = np.random.default_rng(2).random((300, 4)).astype(np.float32)
    values.tofile(tmp_path / "values")
    mapped = np.memmap(tmp_path / "values", np.float32, "r", shape=(300, 4))
    arguments = (np.array([7, 100]), np.arange(0, 300, 2), np.arange(150), 20)
    for one, other in zip(nearest(values, *arguments), nearest(mapped, *arguments), strict=True):
        np.testing.assert_array_equal(one, other)


def test_too_few_neighbours_are_refused():
    with pytest.raises(ScanlearnError, match="5 neighbours are wanted, but only 3"):
        nearest(np.zeros((6, 2)), np.array([0]), np.arange(6), np.arange(6) // 2, 5)
