import base64
import csv
import gzip
import io
import json
import re
from itertools import combinations
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest

from scanlearn.scans.store import open_store
from scanlearn.study.export import escape
from scanlearn.study.page import Table, render
from scanlearn.study.pairs import comparison_tables
from scanlearn.study.run import report_again, study
from scanlearn.study.study_report import notices
from scanlearn.study.viewer import worst_and_best
from scanlearn.tasks.bootstrap import ONE_PATIENT
from study.reading import Page
from study.studies import volume_study


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("Hospital-of-Secrets")
    out = folder / "out"
    study(volume_study(folder), out)
    facts = json.loads((out / "study.json").read_text())
    return SimpleNamespace(folder=folder, out=out, facts=facts, page=(out / "report.html").read_text())


def test_the_page_is_one_whole_file_that_loads_nothing(done):
    page = Page(done.page)
    assert all(a.startswith(("data:", "#")) for a in page.addresses)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', done.page)[1]
    assert (
        "default-src 'none'" in policy
        and "http" not in policy
        and "unsafe-eval" not in policy.replace("wasm-unsafe", "")
    )
    assert policy.count("script-src") == 1 and "'unsafe-inline'" not in policy.partition("script-src")[2]


def test_every_picture_has_words_and_every_section_a_link(done):
    page = Page(done.page)
    assert page.images and all(image["alt"] for image in page.images)
    links = {a[1:] for a in page.addresses if a.startswith("#")}
    assert {"results", "cases", "checks", "repeat", "main"} <= links <= set(page.ids)


def test_the_page_says_what_the_statistics_say(done):
    text = " ".join(Page(done.page).words)
    for found in done.facts["verdicts"].values():
        assert found["sentence"] in text
    means = done.facts["means"]["4"]
    for method in ("scratch", "genesis"):
        assert f"{means[method]['value']:.3f}" in text
    assert "none of the 4 test patients and none of their files were trained on" in text


def test_no_path_leaves_with_the_results(done):
    for name in ("report.html", "study.json", "results.csv", "tables.tex"):
        assert "Hospital-of-Secrets" not in (done.out / name).read_text(), name


def test_figures_for_programs_and_papers(done):
    rows = list(csv.DictReader(io.StringIO((done.out / "results.csv").read_text())))
    assert [(r["method"], r["labels"], r["seed"]) for r in rows][:2] == [("scratch", "4", "0"), ("genesis", "4", "0")]
    by_hand = np.mean([float(r["dice"]) for r in rows if r["method"] == "genesis"])
    assert done.facts["means"]["4"]["genesis"]["value"] == pytest.approx(by_hand, abs=1e-6)
    table = (done.out / "tables.tex").read_text()
    assert table.count(r"\\") == 3 and f"{by_hand:.3f}" in table
    assert escape("a_b & 5%") == r"a\_b \& 5\%"


def test_the_volumes_in_the_page_are_the_tested_ones_in_their_place(done):
    found = re.search(r'<script type="application/json" id="volumes">(.*?)</script>', done.page, re.DOTALL)[1]
    volumes = json.loads(found)
    store = open_store(done.folder / "store")
    best = next(iter(done.facts["verdicts"].values()))["best"]
    cell = done.out / "cells" / f"{best}-4-seed0"
    for (row, title), volume in zip(worst_and_best(cell), volumes, strict=True):
        read = {k: nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(volume[k]))) for k in ("truth", "found")}
        np.testing.assert_allclose(read["truth"].affine, store.affine(row))
        truth, predicted = (np.asarray(read[k].dataobj) for k in ("truth", "found"))
        np.testing.assert_array_equal(truth, store.read_masks([row])[0])
        dice = 2 * ((truth == 1) & (predicted == 1)).sum() / ((truth == 1).sum() + (predicted == 1).sum())
        cases = pq.read_table(cell / "cases.parquet").to_pydict()
        tested = cases["dice_1"][cases["row"].index(row)]
        assert dice == pytest.approx(tested, abs=0.02) and f"{tested:.2f}" in title  # bf16 may turn single voxels
        place = np.argwhere(truth).mean(axis=0)
        np.testing.assert_allclose(volume["centre"], (store.affine(row) @ [*place, 1])[:3], atol=0.01)


def test_the_page_can_be_written_again_without_computing(done):
    before = {path: path.stat().st_mtime_ns for path in done.out.glob("cells/*/results.json")}
    assert report_again(done.out) == done.out / "report.html"
    assert {path: path.stat().st_mtime_ns for path in done.out.glob("cells/*/results.json")} == before


@pytest.mark.parametrize(("value", "written"), [(0.5, "+0.50"), (-0.5, "+0.50"), (None, "–")])
def test_the_effect_size_points_where_the_difference_points(value, written):
    sign = -1 if value is not None and value < 0 else 1
    difference = {"value": 0.1 * sign, "low": -0.1, "high": 0.3}
    pair = {"a": "one", "b": "two", "difference": difference, "p": 0.2, "p_holm": 0.4}
    effects = {"hedges_g": {"value": value}, "superiority": {"value": 0.9}}
    facts = {"labels": [{"asked": 5, "scans": 5}], "twins": {}, "verdicts": {"5": {"best": "one"}}}
    (table,) = comparison_tables({**facts, "comparisons": {"5": [{**pair, "effects": effects}]}}, "Dice")
    ((methods, _, shown, *_, effect),) = table.rows
    assert methods == ("one − two" if sign > 0 else "two − one") and shown.value == "+0.100" and effect == written


def facts_of_seven(twins):
    """Seven methods at two label counts: 42 pairs, whose intervals cannot be told."""
    methods, nothing = ["scratch", *"abcdef"], float("nan")
    pair = {
        "difference": {"value": -0.1, "low": nothing, "high": nothing},
        "p": nothing,
        "p_holm": nothing,
        "effects": {},
    }
    return {
        "labels": [{"asked": 5, "scans": 5}, {"asked": "all", "scans": 40}],
        "comparisons": {at: [{"a": a, "b": b, **pair} for a, b in combinations(methods, 2)] for at in ("5", "all")},
        "twins": dict.fromkeys("abcdef", "scratch") if twins else {},
        "verdicts": {"5": {"best": "c"}, "all": {"best": "d"}},
    }


@pytest.mark.parametrize(("twins", "asked"), [(True, ["scratch", "scratch"]), (False, ["c", "d"])])
def test_of_many_pairs_those_with_scratch_or_with_the_best_stand_open_and_the_others_are_folded(twins, asked):
    first, others = comparison_tables(facts_of_seven(twins), "Dice")
    assert (first.folded, others.folded) == (False, True) and others.caption == "The other 30 pairs"
    assert [(row[1], set(row[0].split(" − "))) for row in first.rows] == [
        (labels, {of, other})
        for labels, of in zip(("5", "40"), asked, strict=True)
        for other in ["scratch", *"abcdef"]
        if other != of
    ]
    assert len(others.rows) == 30 and not {row[0] for row in first.rows[:6]} & {row[0] for row in others.rows[:15]}
    assert "Holm: over all 21 pairs at one label count, shown or folded" in first.note
    assert all(row[2:] == [("+0.100", ""), "–", "–", "–"] for row in first.rows + others.rows)


def test_a_folded_table_is_behind_its_caption():
    tables = [Table(name, ["pair", "p"], [["one − two", "0.1"]], folded=name == "rest") for name in ("first", "rest")]
    words = dict.fromkeys(("title", "version", "sentence"), "") | {"key_figures": [], "panels": []}
    page = render("fewshot.html.jinja", **words, tables=tables)
    open_table, _, folded = page.partition("<details>")
    assert "<span>first</span></caption>" in open_table and "<table>" in open_table
    assert (
        folded.lstrip().startswith("<summary>rest</summary>") and "<caption>" not in folded and "</details>" in folded
    )


@pytest.mark.parametrize(("seeds", "said"), [(1, "there are no intervals"), (3, "the intervals speak of seeds alone")])
def test_a_study_with_one_test_patient_says_what_its_intervals_are(seeds, said):
    facts = {"missing": [], "test": {"patients": 1}, "question": {"seeds": seeds, "pretraining_seeds": 2}, "twins": {}}
    store = SimpleNamespace(catalog=SimpleNamespace(patients_known=True))
    assert notices(facts, store) == [f"The test part is of one patient, so {said}: {ONE_PATIENT}."]
    facts["test"]["patients"] = 2
    assert notices(facts, store) == []
