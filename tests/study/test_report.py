import json
import re
import shutil

import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.files import write_json
from scanlearn.study.report import report
from study.names import COLUMN, PATIENTS, RUN
from study.reading import Page


@pytest.fixture(scope="module")
def pages(runs, people, volumes):
    made = {kind: report(getattr(runs, kind), people.path) for kind in ("pretrain", "classify", "segment")}
    made["volumes"] = report(volumes.run, volumes.store.path)
    return {kind: Page(path.read_text(encoding="utf-8")) for kind, path in made.items()}


KINDS = ("pretrain", "classify", "segment", "volumes")


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_well_formed_and_loads_nothing(pages, kind):
    page = pages[kind]
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert not {"script", "iframe", "object", "embed", "form", "video", "audio"} & set(page.tags)
    style = page.source[page.source.index("<style>") : page.source.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in page.source
    assert page.tags.count("h1") == 1 and page.tags.count("main") == 1
    assert len(page.source) < 3_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_says_what_it_shows(pages, kind):
    page = pages[kind]
    assert len(page.images) > 8
    assert all(len(image["alt"]) > 8 and int(image["width"]) > 0 for image in page.images)
    assert all(image["src"].startswith("data:image/") for image in page.images)


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_and_no_place_is_named(pages, kind, runs):
    everything = pages[kind].everything()
    for name in (*PATIENTS, "Garcia", "Secrets", "_scan_", "scan_0", str(runs.folder), str(runs.folder.parent)):
        assert name not in everything, name


def test_hostile_names_stay_text(pages):
    everything = pages["classify"].everything()
    assert "<script>" not in everything and "<b>ing" not in everything and f"<i>{RUN[-1]}" not in everything
    assert "<script>alert(1)</script>" in pages["classify"].text
    assert COLUMN in pages["classify"].text and RUN in pages["pretrain"].text


def test_a_pretraining_page_shows_what_was_seen_and_found_alike(pages):
    page = pages["pretrain"]
    for words in ("What the network saw", "original", "query", "key", "Curves", "RankMe", "five nearest scans"):
        assert words in page.text
    assert "33 unlabelled scans of 11 patients" in page.text
    assert "Patients in more than one part: 0. Identical files in more than one part: 0." in page.text
    assert "1 scan left out of the store, 48 kept." in page.text and "is no PNG, JPEG, BMP" in page.text
    assert f"scanlearn probe '{RUN}' STORE" in page.text


def test_a_classifiers_page_has_figures_threshold_curve_and_cases(pages):
    text = pages["classify"].text
    for words in (
        "AUROC",
        "average precision",
        "95\xa0% interval",
        "Most wrong",
        "Most right",
        "ROC curve",
        "How that was",
    ):
        assert words in text
    assert f"The weights come from {RUN}, which trained on 11 patients; none of them are in the test part." in text
    assert "scanlearn finetune STORE --task classify" in text and "--init none --like" in text


def test_a_segmenters_page_shows_both_outlines(pages):
    page = pages["segment"]
    for words in ("Dice", "HD95", "missed", "invented", "reference", "prediction", "Worst cases"):
        assert words in page.text
    outlined = [image for image in page.images if "outline of the reference" in image["alt"]]
    assert outlined and all("svg" in image["src"][:20] for image in outlined)


def test_a_restoring_page_compares_clean_distorted_and_restored(pages):
    text = pages["volumes"].text
    assert "Mean squared error against the clean scan, over these 4: distorted" in text
    assert all(words in text for words in ("clean", "distorted", "restored"))


def test_without_the_store_the_page_says_what_is_missing(runs, people):
    page = Page(report(runs.classify).read_text(encoding="utf-8"))
    assert "written without the store, so it lacks the most wrong and most right scans" in page.text
    assert "scanlearn report classify --store STORE" in page.text
    assert "Most wrong" not in page.text and "ROC curve" in page.text
    report(runs.classify, people.path)


def test_the_same_run_gives_the_same_page(runs, people):
    first = report(runs.pretrain, people.path).read_bytes()
    assert report(runs.pretrain, people.path).read_bytes() == first


def test_another_store_is_refused_and_the_old_page_stays(runs, volumes, people):
    before = report(runs.pretrain, people.path).read_bytes()
    with pytest.raises(ScanlearnError, match="is not the store"):
        report(runs.pretrain, volumes.store.path)
    assert (runs.pretrain / "report.html").read_bytes() == before


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ScanlearnError, match="holds no run"):
        report(tmp_path)


@pytest.mark.parametrize("left", [{"step": 2, "finished": False}, {"step": 0}])
def test_a_run_that_was_stopped_says_so_and_how_to_go_on(runs, people, tmp_path, left):
    run = tmp_path / "stopped"
    shutil.copytree(runs.pretrain, run)
    path = run / "encoder" / "encoder.json"
    write_json(path, {**json.loads(path.read_text()), "notes": left})
    page = Page(report(run, people.path).read_text(encoding="utf-8"))
    assert "Not finished: 4 of 4 steps" in page.text and "--resume" in page.text
    assert ("no trained weights yet" in page.text) == ("finished" not in left)


def test_a_collapse_is_said_at_the_top_and_answered_below(runs, people, tmp_path):
    run = tmp_path / "flat"
    shutil.copytree(runs.pretrain, run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 4, "kind": "monitor", "rankme": null, "warning": "The features have collapsed: all flat."}\n'
        )
    text = Page(report(run).read_text(encoding="utf-8")).text
    assert "Mind: The features have collapsed: all flat." in text
    assert re.search(r"Warning\. +Steps? [\d to]*4: The features have collapsed", text)
    assert "--recipe flat/recipe.yaml --out flat-slower --optimizer.lr 0.0125" in text


def test_text_is_readable_on_its_ground(pages):
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6});", pages["pretrain"].source))
    for ink, ground, least in (
        ("ink", "ground", 12),
        ("muted", "ground", 5.5),
        ("accent", "ground", 5.5),
        ("ink", "panel", 12),
    ):
        assert contrast(colours[ink], colours[ground]) >= least, (ink, ground)


def contrast(first, second):
    """Contrast ratio of two colours (WCAG 2.2)."""
    light = sorted((luminance(first), luminance(second)))
    return (light[1] + 0.05) / (light[0] + 0.05)


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_validations_are_drawn_with_the_step_whose_weights_were_kept(runs, people, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs.pretrain, run)
    lines = [
        {"step": s, "kind": "validation", "figure": f, "best": b, "best_step": s}
        for s, f, b in [(2, 1.5, 1.5), (4, 1.2, 1.2)]
    ]
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    page = Page(report(run, people.path).read_text())
    assert "The loss on the validation part; lowest at step 4." in page.text
