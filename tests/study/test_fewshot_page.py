import json
import re

import pytest
from runs import image_store

from scanlearn.networks.network import build_network
from scanlearn.study.fewshot_page import fewshot_page
from scanlearn.study.report import report
from scanlearn.tasks.fewshot.run import fewshot
from scanlearn.weights.encoder import save_network


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a small few-shot diagnosis, and its run."""
    folder = tmp_path_factory.mktemp("few")
    store = image_store(folder, count=60)
    network = build_network({"encoder": {"name": "resnet18", "spatial_dims": 2, "width": 4}})
    save_network(network, folder / "secretive" / "moco", input_size=[24, 24])
    options = {"part": "all", "shots": [1, 2], "queries": 4, "episodes": 6, "bootstrap": 10}
    fewshot(folder / "secretive" / "moco", store, target="label", out=folder / "out", **options)
    return folder / "out"


def test_the_page_has_every_figure_and_names_no_path(done):
    page = fewshot_page(done).read_text()
    results = json.loads((done / "results.json").read_text())
    for by_classifier in results["results"].values():
        for by_shots in by_classifier.values():
            for found in by_shots.values():
                assert all(f"{found[figure]['mean']:.3f}" in page for figure in ("accuracy", "auc", "f1"))
                assert f"<td>{found['pooled_auc']:.3f}</td>" in page
    assert "moco, simpleshot" in page and "pixels, nearest" in page and page.count("<figure") == 10
    assert "secretive" not in page and not re.search(r'(?:src|href)="(?:https?:)?//', page)
    accuracy = results["results"][results["sources"][0]]["prototypes"]["2"]["accuracy"]["mean"]
    assert f"With 2 labelled scans of each class, the accuracy of prototypes on moco is {accuracy:.3f}" in page


def test_figures_that_are_not_known_are_dashes(done, tmp_path):
    text = (done / "results.json").read_text()
    (tmp_path / "results.json").write_text(re.sub(r'"(mean|value|low|high)": [-\d.e]+', r'"\1": null', text))
    page = fewshot_page(tmp_path).read_text()
    assert "is not known" in page and "–" in page


def test_the_verb_report_writes_it_again(done):
    page = (done / "report.html").read_text()
    (done / "report.html").unlink()
    assert report(done).read_text() == page
