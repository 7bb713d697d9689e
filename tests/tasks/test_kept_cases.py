import io
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest

from scanlearn.tasks.kept_cases import LONGEST, KeptCases, example_slice, thinned
from scanlearn.tasks.segmentation_metrics import segmentation_case

SHAPE = (9, 8, 7)


def ball(place, radius=2):
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"))
    return (((grid - np.reshape(place, (3, 1, 1, 1))) ** 2).sum(0) <= radius**2).astype(np.uint8)


def keep(folder, cases, empty="left_out"):
    with KeptCases(folder, ["ball"], empty) as kept:
        for k, (truth, found) in enumerate(cases):
            case = segmentation_case(found, truth, {"ball": [1]}, (1.0, 1.0, 1.0))
            kept.add(f"scan-{k}", 10 + k, case, np.full(SHAPE, 0.5), truth, found, np.eye(4))
    return kept


def test_every_case_has_a_row_and_a_slice(tmp_path):
    cases = [(ball((4, 4, 3)), ball((4, 4, 3 + shift % 3))) for shift in range(20)]
    keep(tmp_path, cases)
    table = pq.read_table(tmp_path / "cases.parquet").to_pydict()
    assert table["row"] == list(range(10, 30)) and table["dice_ball"][0] == 1.0
    assert {"hd95_ball", "sensitivity_ball", "specificity_ball"} <= table.keys()
    with np.load(tmp_path / "examples.npz") as kept:
        for k in range(20):
            assert kept[f"image_{k}"].shape == SHAPE[:2] and kept[f"image_{k}"][0, 0] == 127
            assert kept[f"dice_{k}"] == table["dice_ball"][k] and kept[f"row_{k}"] == 10 + k
            np.testing.assert_array_equal(kept[f"truth_{k}"], ball((4, 4, 3))[..., 3])
            np.testing.assert_array_equal(kept[f"affine_{k}"], np.eye(4))


def test_slices_are_on_disk_as_soon_as_they_are_there(tmp_path):
    """Memory holds one scan, however many there are."""
    with KeptCases(tmp_path, ["ball"]) as kept:
        for k in range(3):
            case = segmentation_case(ball((4, 4, 3)), ball((4, 4, 3)), {"ball": [1]}, (1.0, 1.0, 1.0))
            kept.add("", k, case, np.zeros(SHAPE), ball((4, 4, 3)), ball((4, 4, 3)), np.eye(4))
            kept._slices.fp.flush()
            (temporary,) = tmp_path.glob(".examples*")
            assert temporary.read_bytes().count(b"image_") == k + 1


def test_an_error_leaves_what_was_there(tmp_path):
    keep(tmp_path, [(ball((4, 4, 3)), ball((4, 4, 3)))])
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(RuntimeError), KeptCases(tmp_path, ["ball"]):
        raise RuntimeError
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_the_convention_of_brats_stands_in_the_table(tmp_path):
    nothing = np.zeros(SHAPE, np.uint8)
    cases = [(nothing, nothing), (ball((4, 4, 3)), nothing), (nothing, ball((4, 4, 3)))]
    keep(tmp_path, cases, "brats")
    table = pq.read_table(tmp_path / "cases.parquet").to_pydict()
    assert table["dice_ball"] == [1.0, 0.0, 0.0]
    diagonal = float(np.linalg.norm(SHAPE))
    assert table["hd95_ball"] == pytest.approx([0.0, diagonal, diagonal])
    keep(tmp_path, cases)
    table = pq.read_table(tmp_path / "cases.parquet").to_pydict()
    assert np.isnan(table["dice_ball"][0]) and np.isinf(table["hd95_ball"][1:]).all()


def test_the_slice_is_that_with_most_of_the_reference_else_of_the_prediction():
    image, nothing = np.broadcast_to(np.arange(7.0), SHAPE), np.zeros(SHAPE, np.uint8)
    for truth, found, at in (
        (ball((4, 4, 2)), ball((4, 4, 5)), 2),
        (nothing, ball((4, 4, 5)), 5),
        (nothing, nothing, 3),
    ):
        assert (example_slice(image, truth, found)[0] == at).all()


def test_large_slices_are_thinned_out():
    assert thinned(np.zeros((LONGEST, 3))).shape == (LONGEST, 3)
    assert thinned(np.arange(600.0)[:, None]).ravel().tolist() == list(np.arange(0.0, 600.0, 3))


def test_the_file_of_slices_is_an_ordinary_npz(tmp_path):
    keep(tmp_path, [(ball((4, 4, 3)), ball((4, 4, 3)))])
    with zipfile.ZipFile(io.BytesIO((tmp_path / "examples.npz").read_bytes())) as file:
        assert file.testzip() is None and all(name.endswith(".npy") for name in file.namelist())
