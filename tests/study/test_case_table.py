import base64
import io

import numpy as np
import pytest
from PIL import Image

from scanlearn.errors import ScanlearnError
from scanlearn.study.case_table import FIGURES, SIDE, case_table, contours, dashes, outlined, text_of
from scanlearn.study.page import render
from scanlearn.study.pictures import FOUND, TRUTH
from scanlearn.study.report import report
from scanlearn.tasks.kept_cases import SLICES, KeptCases
from scanlearn.tasks.segmentation_metrics import segmentation_case


def keep(folder, count, size=64):
    """Squares that are found the further away the later they come, two structures each."""
    rng = np.random.default_rng(0)
    image = np.linspace(0, 0.9, size)[:, None] * np.ones(size)
    classes = {"whole": [1, 2], "core": [2]}
    with KeptCases(folder, list(classes)) as kept:
        for k in range(count):
            truth, found = (np.zeros((size, size), np.uint8) for _ in range(2))
            for mask, shift in ((truth, 0), (found, k % 16)):
                mask[20:40, 10 + shift : 30 + shift], mask[25:30, 15 + shift : 20 + shift] = 1, 2
            case = segmentation_case(found, truth, classes, (1.0, 1.0))
            kept.add("", k, case, image + 0.1 * rng.random((size, size)), truth, found, np.eye(4))
    return case_table(folder)


def pixels(picture):
    kind, _, data = picture.src.partition(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), np.int64)


def test_every_case_is_there_worst_first_with_the_figures_of_each_structure(tmp_path):
    table = keep(tmp_path, 20)
    assert sorted(case.number for case in table.cases) == list(range(1, 21)) and "20 scans" in table.caption
    dice = [np.mean([float(figures[0]) for _, figures in case.structures]) for case in table.cases]
    assert dice == sorted(dice)
    assert [name for name, _ in table.cases[0].structures] == ["whole", "core"] and len(table.head) == len(FIGURES)
    assert dict(table.cases[-1].structures)["core"] == ["1.000", "0.0 mm", "1.000", "1.000"]


def test_a_page_of_500_cases_is_small_and_its_pictures_wait_until_they_are_seen(tmp_path):
    table = keep(tmp_path, 500)
    page = render("predicted.html.jinja", title="t", version="1", sentence="s", metrics=_no_table(), every=table)
    assert page.count("<img") == page.count('loading="lazy"') == 500
    assert len(page) < 5e6 and '<details class="cases">' in page
    assert max(max(case.picture.width, case.picture.height) for case in table.cases) == SIDE


def _no_table():
    from scanlearn.study.page import Table

    return Table("none", ["a"], [["b"]])


def test_both_outlines_are_drawn_where_the_masks_are():
    mask, other = (np.zeros((40, 40), np.uint8) for _ in range(2))
    mask[10:20, 10:20], other[25:35, 5:15] = 1, 3
    seen = pixels(outlined(np.full((40, 40), 90, np.uint8), mask, other, None, "alt"))
    scale = SIDE // 40
    grey = np.abs(seen - 90).max(axis=-1) < 40
    assert grey[: 8 * scale].all() and grey[:, 37 * scale :].all()
    for colour, place in ((TRUTH, (10 * scale, 15 * scale)), (FOUND, (25 * scale, 10 * scale))):
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        around = seen[place[0] - 3 : place[0] + 4, place[1] - 12 : place[1] + 13].reshape(-1, 3)
        assert np.abs(around - wanted).max(axis=-1).min() < 90


def test_slices_of_volumes_are_upright_and_their_voxels_keep_their_shape():
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    picture = outlined(np.zeros((30, 10), np.uint8), *(np.zeros((30, 10), np.uint8),) * 2, affine, "alt")
    assert (picture.width, picture.height) == (SIDE, round(SIDE * 2 / 3))  # 30 mm across, 20 mm down


def test_contours_are_closed_around_each_class():
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5, 2:5], mask[3, 3] = 1, 2
    lines = contours(mask)
    assert len(lines) == 3 and all(np.allclose(line[0], line[-1]) for line in lines)  # around, its hole, the core


def test_dashes_are_every_other_piece():
    line = np.stack([np.arange(31.0), np.zeros(31)], axis=1)
    assert [(piece[0, 0], piece[-1, 0]) for piece in dashes(line, 5.0)] == [(0, 5), (10, 15), (20, 25)]
    assert dashes(line, 0.0)[0] is line


@pytest.mark.parametrize(
    ("figure", "value", "text"),
    [
        ("dice", 0.5, "0.500"),
        ("hd95", 4.26, "4.3 mm"),
        ("hd95", np.inf, "one is empty"),
        ("hd95", np.nan, "–"),
        ("sensitivity", np.nan, "–"),
    ],
)
def test_figures_of_a_case_in_words(figure, value, text):
    assert text_of(figure, value) == text


def test_the_page_of_a_run_has_every_tested_case(runs, people):
    page = report(runs.segment, people.path).read_text(encoding="utf-8")
    table = case_table(runs.segment)
    assert page.count('loading="lazy"') == len(table.cases) > 8
    assert "Every case" not in report(runs.classify, people.path).read_text(encoding="utf-8")


def test_damaged_files_and_those_that_lack_a_case_are_told(tmp_path):
    keep(tmp_path, 3)
    whole = (tmp_path / SLICES).read_bytes()
    (tmp_path / SLICES).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ScanlearnError, match=r"examples\.npz in .* is damaged"):
        case_table(tmp_path)
    (tmp_path / SLICES).write_bytes(bytes(b ^ (40 < i < 200) for i, b in enumerate(whole)))
    with pytest.raises(ScanlearnError, match=r"examples\.npz in .* is damaged"):
        case_table(tmp_path)
    np.savez(tmp_path / SLICES, image_0=np.zeros((4, 4), np.uint8), dice_0=0.5)
    with pytest.raises(ScanlearnError, match=r"another version"):
        case_table(tmp_path)


def test_without_cases_there_is_no_table(tmp_path):
    assert case_table(tmp_path) is None
