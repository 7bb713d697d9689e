"""Boxes of published files on the grid of a store, and back: a painted rectangle is found where its box says."""

import numpy as np
import pytest
from PIL import Image

from scanlearn.errors import ScanlearnError
from scanlearn.scans.laid_boxes import padded, store_boxes, to_file, to_grid
from scanlearn.scans.prepare import prepare

SHAPE = (120, 80)  # rows, columns
BOXES = {0: [(8, 16, 24, 40)], 1: [], 2: [(40, 80, 32, 24), (4, 4, 8, 16)]}  # x, y, width, height


def picture(boxes):
    image = np.full(SHAPE, 30, np.uint8)
    for x, y, width, height in boxes:
        image[y : y + height, x : x + width] = 220
    return image


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    lines = ["patientId,x,y,width,height,Target"]
    for i in range(12):
        boxes = BOXES.get(i, [(10 + i, 20, 16, 16)])
        image = picture(boxes)
        image[0, 0] = i  # no two files are equal
        Image.fromarray(image).save(tmp_path / "images" / f"p{i:02}.png")
        lines += [f"p{i:02},{x},{y},{w},{h},1" for x, y, w, h in boxes] or [f"p{i:02},,,,,0"]
    (tmp_path / "boxes.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def stored(folder, **options):
    return prepare(folder / "images", folder / "store", boxes=folder / "boxes.csv", workers=0, **options)


@pytest.mark.parametrize("size, fit", [((60, 60), "pad"), ((60, 60), "stretch"), ((240, 200), "pad"), (None, "pad")])
def test_a_painted_rectangle_lies_where_its_box_was_moved_to_and_back(folder, size, fit):
    store = stored(folder, size=size, fit=fit)
    rows, corners, looked_at = store_boxes(store)
    assert len(store) == 12 and looked_at.all() and len(rows) == 12
    moved = to_grid(store, rows, corners)
    images = np.stack(store.read(range(12)))[:, 0].astype(float)
    for row, (top, left, bottom, right) in zip(rows, moved, strict=True):
        inside = images[row, round(top + 1) : round(bottom - 1), round(left + 1) : round(right - 1)]
        assert inside.min() > 180, (row, inside.min())
        share = (images[row] - 30).clip(0).sum() / 190
        area = sum((b[2] - b[0]) * (b[3] - b[1]) for r, b in zip(rows, moved, strict=True) if r == row)
        assert share == pytest.approx(area, rel=0.06)
    np.testing.assert_allclose(to_file(store, rows, moved), corners, atol=1e-9)


def test_boxes_that_reach_over_the_image_are_cut_at_its_edge_on_the_way_back(folder):
    store = stored(folder, size=(60, 60), fit="pad")  # 10 columns of padding on either side
    found = to_file(store, np.array([0, 0]), np.array([[-5.0, 0, 70, 60], [0, 0, 60, 8]]))
    np.testing.assert_allclose(found[0], [0, 0, 120, 80])
    assert found[1, 3] == found[1, 1] == 0  # beside the image: nothing is left


def test_the_store_keeps_boxes_though_they_are_a_value_for_each_patient_and_no_names(folder, capsys):
    store = stored(folder)
    assert "boxes" in store.catalog.extra_columns and "leads" not in capsys.readouterr().out
    table = folder / "images" / "names.csv"
    table.write_text("path,boxes\n" + "\n".join(f"p{i:02}.png,Mr Smith {i}" for i in range(12)) + "\n")
    other = prepare(table, folder / "other", workers=0)
    assert "boxes" not in other.catalog.extra_columns
    with pytest.raises(ScanlearnError, match="holds no boxes of 2D images: prepare it with --boxes"):
        store_boxes(other)


def test_boxes_of_each_row_stand_side_by_side_with_zeros_behind():
    rows, corners = np.array([2, 0, 2]), np.arange(12.0).reshape(3, 4)
    table = padded(rows, corners, 4)
    assert table.shape == (4, 2, 4) and table.dtype == np.float32
    assert table[2].tolist() == [corners[0].tolist(), corners[2].tolist()] and table[0, 0].tolist() == [4, 5, 6, 7]
    assert not table[1].any() and not table[0, 1].any()
    assert padded(rows[:0], corners[:0], 3).shape == (3, 1, 4)


def test_arrays_have_no_files_that_a_table_of_boxes_could_name(folder):
    np.savez(folder / "x.npz", x=np.random.default_rng(0).random((4, 16, 16), np.float32))
    with pytest.raises(ScanlearnError, match="names image files, and the source is one file of arrays"):
        prepare(folder / "x.npz", folder / "arrays", boxes=folder / "boxes.csv", workers=0)
