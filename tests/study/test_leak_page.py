import shutil

import numpy as np
import pytest
from PIL import Image

from engine.test_leaks import a_run, two_folders, write
from scanlearn.catalog.duplicates import Pairs
from scanlearn.cli import main
from scanlearn.engine.shared_pairs import COPY, FILE, HARMLESS, PATIENT, shared_pairs
from scanlearn.engine.sides import compare, side_of
from scanlearn.scans.prepare import prepare
from scanlearn.study.leak_page import check
from scans.test_fingerprints import jpeg75, radiograph


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Rows of ours: a0 to a5. Of theirs: 0 a0 again (another scan), 1 the bytes of a1, 2 JPEG of a2, 3 half of a3, 4 mirrored
    a4, 5 somebody else, 6 the pixels of a5 in another file, 7 and 8 the same bytes twice of one patient."""
    ours, theirs = two_folders(tmp_path_factory.mktemp("planted"))
    (theirs / "b6").mkdir()
    Image.fromarray(radiograph(5)).save(theirs / "b6/y.png", compress_level=1)
    for name in ("y.png", "z.png"):
        write(theirs / "b7", name, radiograph(60))
    return ours, theirs


def by_kind(sides, most=24):
    _, copies = compare(sides)
    return {shown.kind: shown for shown in shared_pairs(sides, copies, most)}


def rows_of(shown: Pairs):
    return [(int(a), int(b)) for a, b in zip(shown.first, shown.second, strict=True)]


def test_every_planted_pair_is_listed_once_under_what_it_is(planted):
    shown = by_kind([side_of(place, patient="folder") for place in planted])
    assert rows_of(shown[FILE].pairs) == [(1, 7)] and shown[FILE].pairs.bits.tolist() == [0]
    assert sorted(rows_of(shown[COPY].pairs)) == [(2, 8), (3, 9), (4, 10), (5, 12)]
    assert rows_of(shown[PATIENT].pairs) == [(0, 6)]
    assert rows_of(shown[HARMLESS].pairs) == [(13, 14)]
    turned = dict(zip(rows_of(shown[COPY].pairs), shown[COPY].pairs.mirrored.tolist(), strict=True))
    assert [pair for pair, mirrored in turned.items() if mirrored] == [(4, 10)]
    assert (np.diff(shown[COPY].pairs.bits) >= 0).all() and shown[COPY].pairs.bits.max() <= 15


def test_patients_are_listed_only_where_they_are_known(planted):
    assert by_kind([side_of(place) for place in planted])[PATIENT].total == 0


def test_pairs_of_two_places_come_before_those_within_one(tmp_path):
    for n, who in enumerate(("a", "b", "c", "d")):
        write(tmp_path / f"in/{who}", "x.png", radiograph(n // 2) if n % 2 == 0 else jpeg75(radiograph(n // 2)))
    (tmp_path / "in/table.csv").write_text(
        "image,patient,split\na/x.png,a,train\nb/x.png,b,train\nc/x.png,c,train\nd/x.png,d,test\n"
    )
    shown = by_kind([side_of(tmp_path / "in")], most=1)[COPY]
    assert shown.total == 2 and rows_of(shown.pairs) == [(2, 3)]


def headings(page):
    return [line[4:-5] for line in page.read_text().splitlines() if line.startswith("<h3>")]


def test_the_page_says_of_every_pair_what_it_is_and_where_it_lies(planted, tmp_path):
    text, sentences, page = check(planted, tmp_path / "page.html", patient="folder")
    titles = [title.partition(", ")[0] if "mirrored" not in title else "mirrored" for title in headings(page)]
    planned = [
        "the same file",
        "the same file",
        "the same pixels in another file",
        "resized",
        "mirrored",
        "one patient",
    ]
    assert sorted(titles) == sorted([*planned, "re-encoded or windowed otherwise"])
    html = page.read_text()
    assert html.count("<img") == 14
    for caption in ("ours, row 2", "theirs, row 2", "ours, row 5", "theirs, row 5", "theirs, row 9"):
        assert f"<figcaption>{caption}</figcaption>" in html
    assert all(str(place) not in html for place in planted) and str(tmp_path) not in html
    assert sentences[-1] == "1 of 5 comparisons found something that leaks. 1 file is there twice under one patient."
    assert text.splitlines()[0].split() == ["and", "patients", "files", "look", "alike", "mirrored"]


def test_a_run_keeps_no_pictures_and_the_page_says_so(planted, tmp_path):
    ours, theirs = planted
    store = prepare(ours, tmp_path / "store", patient="folder", size=(64, 64), workers=0)
    run = a_run(tmp_path / "run", store, store.splits["train"][:3])
    shutil.rmtree(store.path)
    _, _, page = check([run, theirs], tmp_path / "page.html", patient="folder")
    html = page.read_text()
    row = int(store.splits["train"][1]) + 1
    assert f"run pre-training, row {row}; no picture is kept" in html and html.count('alt="no picture"') >= 2


def test_nothing_found_is_a_page_as_well(planted, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["catalog", "check", str(planted[0]), "--patient", "folder"]) == 0
    said = capsys.readouterr()
    assert "Nothing was found that leaks." in said.err and "Page: ours-leaks.html" in said.err
    assert headings(tmp_path / "ours-leaks.html") == []
