"""Unlabelled scans beside labelled ones, and the recipes of the ssCPCseg family."""

import json

import numpy as np
import pytest
import torch

from engine.runs import volume_store
from scanlearn.engine.beside import with_unlabelled
from scanlearn.engine.recipe import load_recipe
from scanlearn.errors import ScanlearnError
from scanlearn.scans.loader import Loader
from scanlearn.tasks.finetune import finetune
from scanlearn.tasks.trained import load_trained

SMALL = {"steps": 3, "batch_size": 4, "size": [16, 16, 16], "precision": "32-true", "log_every": 1}
PATCHES = {"objectives.predict.patch": 8, "objectives.predict.stride": 4, "objectives.predict.negatives": 4}
FAMILY = ("encdec", "vaeseg", "ss_vaeseg", "boundseg", "cpcseg", "ss_cpcseg", "mean_teacher")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return volume_store(tmp_path_factory.mktemp("volumes"), count=16)


def plan_of(unlabelled, batch_size=4):
    return load_recipe("encdec_small", {"segmentation.unlabelled": unlabelled, "batch_size": batch_size})


def mixed(store, unlabelled, **settings):
    rows = np.asarray(store.splits["train"])[:3]
    return rows, with_unlabelled(store, plan_of(unlabelled, **settings), rows)


def loader(store, fields, **settings):
    how = {"batch_size": 4, "size": [16, 16, 16], "seed": 0, "stop": 12, "masks": True, **settings}
    return Loader(store, fields["rows"], labelled=fields.get("labelled"), shares=fields.get("shares"), **how)


def test_none_leaves_the_labelled_scans_alone(store):
    rows, fields = mixed(store, "none")
    assert list(fields) == ["rows"] and np.array_equal(fields["rows"], rows)


def test_a_share_is_the_same_in_every_batch_and_each_kind_has_a_pace_of_its_own(store):
    rows, fields = mixed(store, 0.5)
    seen = []
    for batch in loader(store, fields):
        assert batch["labelled"].sum() == 2
        assert np.array_equal(batch["labelled"].numpy(), np.isin(batch["row"].numpy(), rows))
        seen += batch["row"].tolist()
    counts = [seen.count(row) for row in rows]
    assert sum(counts) == 24 and min(counts) == max(counts) == 8


def test_natural_walks_over_all_training_scans_alike(store):
    _, fields = mixed(store, "natural")
    train = store.splits["train"]
    batches = list(loader(store, fields, stop=len(train)))
    seen = np.concatenate([batch["row"].numpy() for batch in batches])
    assert sorted(seen) == sorted(np.repeat(train, 4))
    assert len({int(batch["labelled"].sum()) for batch in batches}) > 1  # as chance gives


def test_masks_of_unlabelled_scans_are_never_read_and_place_no_patch(store, monkeypatch):
    rows, fields = mixed(store, 0.5)
    read = []
    original = type(store).read_masks
    monkeypatch.setattr(type(store), "read_masks", lambda self, r, *a: read.extend(r) or original(self, r, *a))
    small = {"size": [8, 8, 8]}
    guided = list(loader(store, fields, foreground=1.0, **small))
    free = list(loader(store, fields, foreground=0.0, **small))
    assert set(read) <= set(rows.tolist())
    for a, b in zip(guided, free, strict=True):
        unlabelled = ~a["labelled"]
        assert (a["mask"][unlabelled] == 0).all()
        assert torch.equal(a["image"][unlabelled], b["image"][unlabelled])
    assert any(not torch.equal(a["image"], b["image"]) for a, b in zip(guided, free, strict=True))


def test_ranks_share_a_batch_as_one_process_has_it(store):
    _, fields = mixed(store, 0.5)
    whole = next(iter(loader(store, fields)))
    parts = [next(iter(loader(store, fields, rank=rank, world_size=2))) for rank in range(2)]
    assert torch.equal(torch.cat([part["row"] for part in parts]), whole["row"])
    assert torch.equal(torch.cat([part["labelled"] for part in parts]), whole["labelled"])


@pytest.mark.parametrize("asked", ["half", 0, 1.0, True, -0.5])
def test_what_is_no_share_is_refused(store, asked):
    with pytest.raises(ScanlearnError, match="none, natural, or a share"):
        mixed(store, asked)


def test_batches_and_stores_without_room_for_both_kinds_are_refused(store):
    with pytest.raises(ScanlearnError, match="larger batch_size"):
        mixed(store, 0.5, batch_size=1)
    with pytest.raises(ScanlearnError, match="fewer --labels"):
        with_unlabelled(store, plan_of(0.5), np.asarray(store.splits["train"]))


@pytest.mark.parametrize("name", FAMILY)
def test_every_recipe_of_the_family_trains_tests_and_is_loaded_again(store, tmp_path, name):
    settings = {**SMALL, **(PATCHES if "cpc" in name else {})}
    results = finetune(store, "segment", out=tmp_path / "run", labels=3, recipe=f"{name}_small", settings=settings)
    assert results["test"]["cases"] == len(store.splits["test"]) and results["labelled_scans"] == 3
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = {key for line in lines for key in line}
    assert set(load_recipe(f"{name}_small").objectives) <= logged
    assert load_trained(tmp_path / "run").network.decoder is not None


def test_regions_are_named_trained_and_tested(store, tmp_path):
    regions = {"ball": store.mask_classes[:1]}
    settings = {**SMALL, "objectives.segment.regions": regions, "segmentation.empty": "brats"}
    results = finetune(store, "segment", out=tmp_path / "run", labels=3, recipe="encdec_small", settings=settings)
    assert list(results["test"]["classes"]) == ["ball"] and results["test"]["empty"] == "brats"
    trained = load_trained(tmp_path / "run")
    assert trained.facts["regions"] == {"ball": [1]} and trained.network.decoder.out_channels == 2


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"objectives.segment.regions": {"ball": ["1x"]}},
            "'ball' names '1x', which the masks do not have: they have 1;",
        ),
        ({"objectives.segment.regions": {"ball": [2]}}, "'ball' names '2', which the masks do not have: they have 1;"),
        ({"objectives.segment.regions": {"ball": []}}, "'ball' names no class: they have 1;"),
        ({"segmentation.smallest": {"1x": 3}}, "did you mean '1'"),
    ],
)
def test_classes_and_regions_that_the_masks_do_not_have_end_before_the_training(store, tmp_path, settings, told):
    with pytest.raises(ScanlearnError, match=told):
        finetune(store, "segment", out=tmp_path / "run", recipe="encdec_small", settings={**SMALL, **settings})
    assert not (tmp_path / "run").exists()
