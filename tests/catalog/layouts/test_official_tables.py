"""The tables that owners published, read whole: the wheel of torchxrayvision carries some of them.

    pip install --no-deps torchxrayvision

Without it these tests are skipped. No image is there; their names stand in for them.
"""

import gzip
import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from scanlearn.catalog.layouts import chestxray14, chexpert, radiographs, siim_pneumothorax
from scanlearn.catalog.layouts.known import catalog_of_layout
from scanlearn.catalog.layouts.layout import layout_named
from scanlearn.catalog.listing import Listing
from scanlearn.scans.run_lengths import decode, encode

_SPEC = importlib.util.find_spec("torchxrayvision")
pytestmark = pytest.mark.skipif(
    _SPEC is None, reason="torchxrayvision, whose wheel carries official tables, is not installed (pip --no-deps)"
)


@pytest.fixture
def unpack(tmp_path, monkeypatch):
    """Unpack a table of the wheel under its own name, and let the images that it names seem to be there."""

    def make(packed, name, suffix=""):
        data = Path(next(iter(_SPEC.submodule_search_locations)), "data", packed)
        text = gzip.decompress(data.read_bytes()).decode()
        (tmp_path / name).write_text(text)
        images = dict.fromkeys(line.split(",", 1)[0] + suffix for line in text.splitlines()[1:])
        monkeypatch.setattr(radiographs, "list_folder", lambda root: Listing(images=[*images]))
        return tmp_path

    return make


def test_chestxray14_has_the_images_patients_findings_and_boxes_that_were_published(unpack, capsys):
    unpack("BBox_List_2017.csv.gz", chestxray14.BOXES)
    catalog = catalog_of_layout(
        unpack("Data_Entry_2017_v2020.csv.gz", "Data_Entry_2017_v2020.csv"), "chestxray14", "none"
    )
    said = capsys.readouterr().err
    differing = said.partition("this copy differs from what was published: ")[2].partition(".\n")[0]
    assert differing == (
        "split official train 0 (published 86,524), split official test 0 (published 25,596)"  # lists are not in it
    )
    assert len(catalog) == 112_120 and len({*catalog.column("patient_id")}) == 30_805
    assert Counter(catalog.column("view")) == {"PA": 67_310, "AP": 44_810}
    assert sum(map(bool, catalog.column("boxes"))) == 880
    boxed = {who for who, cell in zip(catalog.column("patient_id"), catalog.column("boxes"), strict=True) if cell}
    assert len(boxed) == 726
    ages = [int(age) for age in catalog.column("age")]
    assert min(ages) == 0 and max(ages) == 95
    prefix = [paths[0].rpartition("/")[2][:8] for paths in catalog.column("paths")]
    assert [who.removeprefix("chestxray14:") for who in catalog.column("patient_id")] == prefix


def test_chexpert_has_the_views_findings_and_uncertain_ones_that_were_published(unpack, capsys):
    root = unpack("chexpert_train.csv.gz", "train.csv")
    header = (root / "train.csv").read_text().partition("\n")[0]
    (root / "valid.csv").write_text(
        f"{header}\nCheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg,,,Frontal,AP{',0.0' * 14}\n"
    )
    catalog = catalog_of_layout(root, "chexpert").take(np.arange(223_414))
    assert "differs from what was published: split official val 0 (published 234)." in capsys.readouterr().err
    assert len({*catalog.column("patient_id")}) == 64_540 and len({*catalog.column("study_id")}) == 187_641
    assert Counter(catalog.column("view")) == {"AP": 161_590, "PA": 29_420, "lateral": 32_387, "LL": 16, "RL": 1}
    assert Counter(catalog.column("sex"))[""] == 1 and catalog.column("age").count("0") == 3
    labels = catalog.labels("findings")
    uncertain = dict(zip(labels.classes, (labels.codes == -1).sum(axis=0).tolist(), strict=True))
    assert uncertain == dict(zip(chexpert.FINDINGS, chexpert.UNCERTAIN, strict=True))
    present = dict(zip(labels.classes, (labels.codes == 1).sum(axis=0).tolist(), strict=True))
    assert present["Atelectasis"] == 33_376
    absent = Counter(word for cell in catalog.column("findings") for word in cell.split("|"))
    assert absent["-Atelectasis"] == 1_328 - 253  # those beside "No Finding", which `none` says for all findings


def test_siim_has_the_images_and_masks_that_were_published(unpack, monkeypatch):
    monkeypatch.setattr(siim_pneumothorax, "read_headers", lambda paths: [None] * len(paths))
    root = unpack("siim-pneumothorax-train-rle.csv.gz", "train-rle.csv", ".dcm")
    rows = layout_named("siim_pneumothorax").read(root)
    assert len(rows) == 12_047 and Counter(rows.columns["findings"]) == {"Pneumothorax": 2_669, "none": 9_378}
    lines = (line.partition(",") for line in (root / "train-rle.csv").read_text().splitlines()[1:])
    texts = [(name, runs.strip()) for name, _, runs in lines if runs.strip() != "-1"]
    assert len(texts) == 3_576 and max(Counter(name for name, _ in texts).values()) == 10
    assert sum(count > 1 for count in Counter(name for name, _ in texts).values()) == 624
    centres = []
    for _, runs in texts[::16]:  # of all 3,576 the mean is (315, 486)
        mask = decode(runs, (1024, 1024))
        assert encode(mask) == runs
        centres.append([axis.mean() for axis in np.nonzero(mask)])
    assert np.allclose(np.mean(centres, axis=0), (315, 486), atol=50)  # in the apex; without the transpose they swap
