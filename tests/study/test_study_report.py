import base64
import csv
import gzip
import io
import json
import re
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest

from scanlearn.scans.store import open_store
from scanlearn.study.export import escape
from scanlearn.study.run import report_again, study
from scanlearn.study.study_report import comparison_table
from scanlearn.study.viewer import worst_and_best
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
    facts = {"labels": [{"asked": 5, "scans": 5}], "comparisons": {"5": [{**pair, "effects": effects}]}}
    ((methods, _, shown, *_, effect),) = comparison_table(facts, "Dice").rows
    assert methods == ("one − two" if sign > 0 else "two − one") and shown.value == "+0.100" and effect == written
