import base64
import io
import itertools
import shlex

import numpy as np
import pytest
from PIL import Image

from scanlearn.cli import main
from scanlearn.cli.arguments import build_parser, gather_lists
from scanlearn.cli.data import discover
from scanlearn.errors import ScanlearnError
from scanlearn.scans.prepare import prepare
from scanlearn.scans.words import open_words, write_words
from scanlearn.study import words_page as page_module
from scanlearn.study.words_done import repeat
from scanlearn.study.words_page import MOST_WORDS, crops_per_word, patient_numbers, shared_patients, words_page
from scanlearn.study.words_pictures import SHOWN, located, spread, word_row
from scans.made_scans import smooth
from study.names import PATIENTS
from study.reading import Page

SHAPES = {2: (48, 56), 3: (32, 36, 28)}
SIZES = {2: (16, 16), 3: (12, 12, 8)}
PLACES = 6
TOLD = {
    "neighbours": 8,
    "classes": PLACES,
    "size": [12, 12, 8],
    "reference": "per_class",
    "tissue": {"name": "general", "at_least": 0.5},
    "descriptors": {"from": "encoder", "name": "genesis", "sha256": "0123456789abcdef" * 4},
    "cache": "/home/Mueller-1970/secret",
    "points": [[0.5, 0.5]] * PLACES,
}


def make_store(folder, dims, *, recurs, identifiers="hashed"):
    """A scan of each of 16 people: the same anatomy with a little noise in all of them, or another one in each."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    images = [smooth(SHAPES[dims], 0 if recurs else i, 200) for i in range(len(PATIENTS))]
    images = [np.clip(image + generator.normal(0, 9, image.shape) + 20, 0, 255).astype(np.uint8) for image in images]
    file = folder / "Hospital-of-Secrets.npz"
    np.savez(file, image=np.stack(images), patient=np.array(PATIENTS))
    return prepare(file, folder / "store", workers=1, identifiers=identifiers)


def make_words(folder, store, *, words=PLACES, extra=2, settings=TOLD):
    """Words at fixed places: 8 training scans with crops at other scales, one validation scan."""
    dims = store.spatial_dims
    size, shape = np.array(SIZES[dims]), np.array(SHAPES[dims])
    places = np.random.default_rng(1).integers(0, shape - size + 1, (words, dims))
    lines = []
    for word, start in enumerate(places):
        train = np.roll(store.splits["train"], word)[:8]
        for part, rows in enumerate((train, store.splits["val"][:1])):
            for (rank, row), scale in itertools.product(enumerate(rows), range(1 + extra * (part == 0))):
                side = size + 2 * scale * (np.arange(dims) < 2)
                lines.append((word, row, part, scale, rank + part, rank * 1.5, start - (side - size) // 2, side))
    names = ("word", "row", "part", "scale", "rank", "distance", "start", "side")
    columns = {name: np.array(values) for name, values in zip(names, zip(*lines, strict=True), strict=True)}
    write_words(folder, store=store.info["key"], size=size.tolist(), settings=settings, **columns)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(store, folder of words) by what was made."""
    folder = tmp_path_factory.mktemp("made")
    found = {}
    for kind, dims, recurs in (("images", 2, True), ("volumes", 3, True), ("random", 3, False)):
        store = make_store(folder / kind, dims, recurs=recurs)
        found[kind] = store, make_words(folder / kind / "words<i>&", store)
    return found


@pytest.fixture(scope="module")
def pages(made):
    return {kind: Page(words_page(words, store.path).read_text("utf-8")) for kind, (store, words) in made.items()}


KINDS = ("images", "volumes")


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_well_formed_and_loads_nothing(pages, kind):
    page = pages[kind]
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert "script" not in page.tags and "default-src 'none'" in page.source
    assert page.tags.count("h1") == 1 and page.tags.count("main") == 1
    assert "words<i>&" in page.text and "<i>&" not in page.source


@pytest.mark.parametrize("kind", KINDS)
def test_every_crop_is_a_picture_that_says_what_it_shows(pages, kind):
    page = pages[kind]
    assert len(page.images) == 1 + PLACES * (1 + 1 + 9)
    assert all(len(image["alt"]) > 12 and int(image["width"]) > 0 for image in page.images)
    alts = [image["alt"] for image in page.images]
    assert len(set(alts)) == len(alts)
    assert sum(", the reference, patient " in alt for alt in alts) == PLACES
    assert sum("validation patient of rank 1" in alt for alt in alts) == PLACES


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_and_no_place_is_named(pages, made, kind):
    everything = pages[kind].everything()
    for name in (*PATIENTS, "Mueller", "Secrets", "/home", "patient-", "scan-", str(made[kind][1].parent)):
        assert name not in everything, name


def test_names_that_a_store_keeps_are_not_on_the_page(tmp_path):
    store = make_store(tmp_path, 2, recurs=True, identifiers="kept")
    assert PATIENTS[0] in store.catalog.column("patient_id")
    everything = Page(words_page(make_words(tmp_path / "words", store), store.path).read_text("utf-8")).everything()
    assert not any(name in everything for name in PATIENTS)


def test_anatomy_that_recurs_is_told_from_anatomy_that_does_not(pages):
    for kind in KINDS:
        assert "clearly more alike than crops of different words" in pages[kind].text
        assert "for 100\xa0% the most similar crop of another patient is of the same word" in pages[kind].text
    assert "hardly more alike than crops of different words" in pages["random"].text


def test_figures_that_discovery_measured_come_first(made, tmp_path):
    store, _ = made["images"]
    measured = {"within": 0.434, "between": -0.001, "own": 0.25, "chance": 0.125, "words": 6, "crops": 48}
    folder = make_words(tmp_path / "words", store, settings={**TOLD, "recurrence": measured})
    text = Page(words_page(folder, store.path).read_text("utf-8")).text
    assert "mean correlation 0.43 against 0.00; for 25\xa0% the most similar" in text and "(by chance 12\xa0%)" in text
    assert "the figures at the top are those of discovery, from 48 whole crops of 6 words" in text


def test_the_page_tells_what_was_done_and_checked_and_how_to_repeat_it(pages):
    text = pages["volumes"].text
    assert (
        "6 words in 12 patients: 48 training crops and 6 validation crops of 12\xa0×\xa012\xa0×\xa08\xa0voxels" in text
    )
    assert "Patients in both the training and the validation crops: 0." in text
    assert "Crops of scans in the test part of the store: 0." in text
    assert "tissue.at least 0.5" in text and "descriptors.sha256 0123456789ab…" in text and "cache secret" in text
    command = "scanlearn discover STORE --out 'words<i>&-again' --neighbours 8 --classes 6 --size '[12, 12, 8]'"
    assert f"{command} --reference per_class --tissue general --encoder genesis" in text
    assert "scanlearn pretrain STORE --recipe semantic_genesis_3d_small --words 'words<i>&'" in text


@pytest.mark.parametrize("kind", ["autoencoder", "encoder", "array"])
def test_the_command_that_repeats_is_one_that_the_command_line_takes(made, tmp_path, kind):
    store, _ = made["volumes"]
    told = {
        **{"neighbours": 63, "neighbours_val": 0, "classes": 6, "extra_crops": 2, "reference": "shared", "seed": 3},
        **{"coordinate_space": "mm", "small": "skip", "tissue": {"name": "none"}, "margins": [0.0, 0.1, 0.0]},
        **{"apart": 5.0, "tries": 200, "per_patient": None, "size": [12, 12, 8]},
        "descriptors": {"from": kind, "recipe": "autoencoder_3d_small", "name": "genesis"},
    }
    command = repeat(open_words(make_words(tmp_path / "words", store, settings=told)))
    parsed = build_parser().parse_args(gather_lists(discover, shlex.split(command.text)[1:])).discover
    expected = {key: value for key, value in told.items() if key not in ("descriptors", "neighbours_val")}
    expected |= {"tissue": "none", "per_patient": 0, "store": "STORE", "out": "words-again", "neighbours_val": None}
    expected["autoencoder"] = "words/autoencoder/recipe.yaml" if kind == "autoencoder" else None
    expected["encoder"] = "genesis" if kind == "encoder" else None
    assert {key: getattr(parsed, key) for key in expected} == expected
    assert ("only Python" in command.why) == (kind == "array")


def test_crops_that_reach_over_the_edge_are_counted(made, pages):
    store, folder = made["volumes"]
    words = open_words(folder, store)
    over = sum(
        any(a < 0 or a + n > top for a, n, top in zip(start, side, store.shape(int(row)), strict=True))
        for start, side, row in zip(words.start, words.side, words.row, strict=True)
    )
    assert over > 0
    assert f"Crops that reach over the edge of their scan: {over}; what lies outside" in pages["volumes"].text


def test_patients_in_both_parts_are_counted(made):
    store, folder = made["images"]
    words = open_words(folder, store)
    assert shared_patients(words, patient_numbers(store)) == 0
    assert shared_patients(words, np.ones(len(store), int)) == 1
    assert crops_per_word(words) == (8, 8)


def test_without_the_store_the_page_says_what_is_missing(made, tmp_path):
    store, _ = made["images"]
    folder = make_words(tmp_path / "words", store)
    page = Page(words_page(folder).read_text("utf-8"))
    assert not page.images and "6 words in 12 scans" in page.text and "alike" not in page.text
    assert "written without the store, so it lacks the crops" in page.text
    assert "scanlearn report words --store STORE" in page.text
    assert "can only be told with the store" in page.text


def test_the_verb_report_writes_the_page_of_words(made):
    store, folder = made["images"]
    before = (
        (folder / "report.html").read_bytes()
        if (folder / "report.html").is_file()
        else words_page(folder, store.path).read_bytes()
    )
    (folder / "report.html").unlink()
    assert main(["report", str(folder), "--store", str(store.path)]) == 0
    assert (folder / "report.html").read_bytes() == before


def test_words_of_another_store_are_refused_and_the_old_page_stays(made, pages):
    before = (made["images"][1] / "report.html").read_bytes()
    with pytest.raises(ScanlearnError, match="discovered in another store"):
        words_page(made["images"][1], made["volumes"][0].path)
    assert (made["images"][1] / "report.html").read_bytes() == before


def test_of_many_words_a_page_shows_some_evenly(made, tmp_path, monkeypatch):
    store, _ = made["images"]
    monkeypatch.setattr(page_module, "MOST_WORDS", 10)
    page = Page(words_page(make_words(tmp_path / "words", store, words=25), store.path).read_text("utf-8"))
    assert page.tags.count("article") == 10 and "word-0" in page.ids and "word-24" in page.ids
    assert "10 of 25 words are shown" in page.text


@pytest.mark.parametrize("kind", [*KINDS, "random"])
def test_a_page_of_a_hundred_words_stays_below_four_megabytes(pages, kind):
    pictures = sum(len(image["src"]) for image in pages[kind].images)
    assert pictures / PLACES * MOST_WORDS < 4_000_000
    assert len(pages[kind].source) - pictures < 100_000


@pytest.mark.parametrize(("count", "most"), [(1, 10), (2, 10), (10, 10), (11, 10), (200, 10), (1000, 8), (30, 2)])
def test_patients_are_shown_from_the_nearest_to_the_farthest(count, most):
    shown = spread(count, most)
    assert len(shown) == len(set(shown)) == min(count, most)
    assert sorted(shown) == list(shown) and shown[0] == 0 and shown[-1] == count - 1
    assert most == 2 or count < 3 or shown[1] == 1


def decoded(picture):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.src.partition(",")[2]))).convert("L")).astype(int)


AXES = {
    "RAS": np.diag([1.0, 1, 1]),
    "LPS": np.diag([-1.0, -1, 1]),
    "SRA": np.eye(3)[[1, 2, 0]],
    "PIL": -np.eye(3)[[2, 0, 1]],
}


@pytest.mark.parametrize("axes", AXES)
def test_the_box_lies_around_the_word_whatever_way_the_scan_is_turned(axes):
    class Scan:
        spatial_dims = 3

        def __init__(self):
            self.image = np.zeros((1, 40, 30, 50), np.uint8)
            self.image[0, 4:14, 20:28, 30:45] = 255

        def shape(self, row):
            return self.image.shape[1:]

        def affine(self, row):
            affine = np.eye(4)
            affine[:3, :3] = AXES[axes] @ np.diag([1.0, 2.0, 1.5])
            return affine

        def window(self, rows):
            return np.zeros(len(rows), np.float32), np.full(len(rows), 255, np.float32)

        def read(self, rows, boxes):
            return [self.image[(slice(None), *map(slice, *box))] for box in boxes]

    found = located(Scan(), 0, np.array([4, 20, 30]), np.array([10, 8, 15]), "Word 0 on its reference scan")
    image = decoded(found.picture)
    assert len(found.boxes) == 2
    inside = np.zeros(image.shape, bool)
    for left, top, width, height in found.boxes:
        x, y = left * image.shape[1] / 100, top * image.shape[0] / 100
        right, bottom = x + width * image.shape[1] / 100, y + height * image.shape[0] / 100
        inside[round(y) : round(bottom), round(x) : round(right)] = True
    assert (image[inside] > 128).mean() > 0.93 and (image[~inside] < 128).mean() > 0.98


def test_the_mean_is_that_of_the_crops_beside_it(made):
    store, folder = made["random"]
    words = open_words(folder, store)
    row = word_row(store, words, np.flatnonzero(words.word == 2), patient_numbers(store))
    train = [decoded(picture) for picture in row.crops if "validation" not in picture.alt]
    mean = decoded(row.mean)
    assert len(train) == 8 <= SHOWN
    assert np.abs(np.mean([image[: len(mean)] for image in train], axis=0) - mean).mean() < 4
    assert np.abs(train[0][: len(mean)] - mean).mean() > 12


def test_the_same_words_give_the_same_page(made, pages):
    store, folder = made["volumes"]
    assert words_page(folder, store.path).read_text("utf-8") == pages["volumes"].source


def test_words_of_a_handful_of_patients_carry_a_warning(made, tmp_path):
    store, folder = made["images"]
    words = open_words(folder, store)
    few = (words.rank < 3) & (words.scale == 0)
    names = ("word", "row", "part", "scale", "rank", "distance", "start", "side")
    columns = {name: getattr(words, name)[few] for name in names}
    write_words(tmp_path / "few", store=store.info["key"], size=words.size, settings={}, **columns)
    page = Page(words_page(tmp_path / "few", store.path).read_text("utf-8"))
    assert "No word has 5 training patients: too few to tell" in page.text
    assert "mean of 3" in page.text and "other scales" not in page.text.partition("What was done")[0]
