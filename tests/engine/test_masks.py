"""Pre-training that learns from masks too: what it learns, of whom, and that it says so."""

import json
import shutil

import numpy as np
import pytest
import torch
from runs import MASKS_SEEN, genesis_recipe, image_store, masks_recipe, moco_recipe, volume_store

from scanlearn.engine.checkpoint import checkpoints
from scanlearn.engine.leaks import not_seen
from scanlearn.engine.learner import build_learner
from scanlearn.engine.masks import channels, fill_in_classes, joined, seen_view
from scanlearn.engine.pretrain import pretrain, training_of
from scanlearn.engine.record import read_record
from scanlearn.engine.run_folder import RunFolder
from scanlearn.engine.train import Views
from scanlearn.errors import ScanlearnError
from scanlearn.scans.loader import Loader
from scanlearn.study.checks import leak_sentences
from scanlearn.study.facts import read_facts
from scanlearn.study.head import sentence
from scanlearn.tasks.finetune import choose_rows, fill_in, finetune, target_labels
from scanlearn.weights.encoder import load_network, read_card

SIZE = [16, 16, 16]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return volume_store(tmp_path_factory.mktemp("volumes"), count=12)


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    """Six steps, three masks."""
    out = tmp_path_factory.mktemp("runs") / "joint"
    pretrain(store, masks_recipe(steps=6), out, seed=3, labels=MASKS_SEEN)
    return out


def learner_and_batch(recipe, store, labels=MASKS_SEEN):
    """A joined learner with the views and the batch of its first step."""
    full = joined(recipe, store)
    training = training_of(full, store, None, "train", labels, 3)
    loader = Loader(
        store, training.rows, batch_size=4, size=SIZE, seed=3, stop=9, masks=True, labelled=training.labelled
    )
    batch = next(each for each in loader if 0 < each["labelled"].sum() < 4)
    views = Views(full, store, 3, torch.device("cpu"), torch.contiguous_format)(batch)
    return full, build_learner(full, seed=3, world_size=1), views, batch


def test_both_terms_are_learned_and_logged(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(line["restore"] > 0 and line["segment"] > 0 for line in lines if line["kind"] == "train")
    decoder = load_network(run).decoder
    assert (decoder.out_channels, decoder.image_channels) == (1 + 2, 1)


def test_segment_trains_encoder_body_and_its_own_channels_and_restore_the_others(store):
    _, learner, views, batch = learner_and_batch(masks_recipe(), store)
    last = learner.network.decoder.out_tr.final_conv.weight
    for name, own, others in (("segment", slice(1, 3), slice(0, 1)), ("restore", slice(0, 1), slice(1, 3))):
        learner.zero_grad()
        loss, _ = learner(views, batch, {"restore": 0.0, "segment": 0.0} | {name: 1.0})
        loss.backward()
        assert last.grad[own].abs().sum() > 0 and not last.grad[others].any()
        weights = [p for n, p in learner.network.encoder.named_parameters() if n.endswith("conv1.weight")]
        assert weights and all(p.grad.any() for p in weights)


def test_the_term_is_that_of_fine_tuning(store):
    full, learner, views, batch = learner_and_batch(masks_recipe(), store)
    column = target_labels(store, "segment", None)
    settings = {"network.encoder": full.network.encoder, "size": SIZE, "objectives.segment.batch_dice": False}
    plan = fill_in("segment", store, None, column, None, settings, "full")
    alone = build_learner(plan, seed=0, world_size=1)
    state = learner.network.state_dict()
    for part in ("weight", "bias"):
        state[f"decoder.out_tr.final_conv.{part}"] = state[f"decoder.out_tr.final_conv.{part}"][1:]
    alone.network.load_state_dict(state)
    ours, _ = learner(views, batch, {"restore": 0.0, "segment": 1.0})
    theirs, _ = alone({"image": views["clean"], "mask": views["mask"]}, batch, {"segment": 1.0})
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    for a, b in zip(learner.network.encoder.parameters(), alone.network.encoder.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_the_masks_are_those_that_fine_tuning_would_pick_nested_and_of_the_training_part(store):
    column = target_labels(store, "segment", None)
    seen = {}
    for labels in (2, 4, "all"):
        training = training_of(joined(masks_recipe(), store), store, None, "train", labels, 5)
        seen[labels] = set(np.flatnonzero(training.labelled))
        assert seen[labels] == set(choose_rows(store, column, labels, 5)) <= set(store.splits["train"])
        assert np.array_equal(np.sort(training.rows), np.sort(store.splits["train"]))
    assert seen[2] < seen[4] < seen["all"]


def test_the_run_says_that_masks_were_seen_wherever_it_is_told_of(store, run):
    assert read_record(RunFolder(run)).masks == read_card(run)["notes"]["masks"] == MASKS_SEEN
    facts = read_facts(run)
    assert facts.task == "" and f"and the masks of {MASKS_SEEN} by" in sentence(facts)
    assert any(f"with the masks of {MASKS_SEEN} scans" in text for text in not_seen(run, store).done)
    results = run.with_name("tuned")
    settings = {"steps": 1, "batch_size": 2, "precision": "32-true"}
    finetune(store, "segment", init=run, out=results, labels=3, settings=settings)
    assert load_network(results).decoder.image_channels is None
    assert any(f"and on the masks of {MASKS_SEEN};" in text for text in leak_sentences(read_facts(results)))


def test_without_masks_the_record_says_none_and_labels_are_refused(store, tmp_path):
    pretrain(store, genesis_recipe(steps=1), tmp_path / "run")
    assert read_record(RunFolder(tmp_path / "run")).masks == 0
    with pytest.raises(ScanlearnError, match="learns without masks: leave --labels out"):
        pretrain(store, genesis_recipe(steps=1), tmp_path / "other", labels=3)


def test_it_resumes_exactly_and_with_other_masks_not_at_all(store, run, tmp_path):
    broken = tmp_path / "joint"
    shutil.copytree(run, broken)
    newest = checkpoints(broken / "checkpoints")[-1]
    newest.unlink()
    with pytest.raises(ScanlearnError, match="labelled"):
        pretrain(store, masks_recipe(steps=6), broken, seed=3, labels=4, resume=True)
    pretrain(store, broken / "recipe.yaml", broken, seed=3, labels=MASKS_SEEN, resume=True)
    ours, theirs = load_network(run).state_dict(), load_network(broken).state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_masks_of_the_test_part_are_not_to_be_had(store, tmp_path):
    with pytest.raises(ScanlearnError, match="leave --part out"):
        pretrain(store, masks_recipe(), tmp_path / "run", part="all")


def test_it_is_joined_by_a_setting_to_recipes_of_other_kinds(tmp_path):
    """To one of contrast without a decoder, on pictures whose two views are cut out at different places."""
    rng = np.random.default_rng(0)
    image = (rng.random((16, 24, 24)) * 255).astype(np.uint8)
    np.savez(tmp_path / "images.npz", image=image, mask=(image > 128).astype(np.uint8), patient=np.arange(16))
    from scanlearn.scans.prepare import prepare

    store = prepare(tmp_path / "images.npz", tmp_path / "store", workers=1)
    recipe = moco_recipe(steps=1, monitor={"every": -1})
    recipe.objectives["segment"] = {"weight": 1.0, "view": "key"}
    pretrain(store, recipe, tmp_path / "run", labels=4)
    saved = read_facts(tmp_path / "run").recipe
    assert saved["objectives"]["segment"]["mask"] == "key.mask"
    assert saved["network"]["decoder"]["name"] == "unet" and "segment" in RunFolder(tmp_path / "run").read_metrics()[-1]
    with pytest.raises(ScanlearnError, match="holds no masks"):
        other = tmp_path / "other"
        other.mkdir()
        pretrain(image_store(other), recipe, tmp_path / "none")


def test_filling_in_twice_changes_nothing(store):
    data = masks_recipe().to_dict()
    fill_in_classes(data, store)
    once = json.dumps(data)
    fill_in_classes(data, store)
    assert json.dumps(data) == once


def test_channels_are_those_of_what_is_drawn():
    decoder = {"name": "unet"}
    assert channels({"objectives": {"segment": {}}, "channels": 4}, decoder, 6) == {
        "out_channels": 6,
        "image_channels": None,
    }
    both = {"objectives": {"segment": {}, "restore": {}}, "channels": 4}
    assert channels(both, decoder, 6) == {"out_channels": 10, "image_channels": 4}
    assert channels(both, {"image_channels": 1}, 6) == {"out_channels": 7, "image_channels": 1}


def test_the_mask_is_that_of_the_view():
    assert seen_view({}, ["clean", "distorted"]) == {"view": "clean", "mask": "mask"}
    assert seen_view({"view": "distorted"}, ["clean", "distorted"]) == {"view": "distorted", "mask": "distorted.mask"}
    assert seen_view({"view": "image", "mask": "mask"}, ["image", "teacher"]) == {"view": "image", "mask": "mask"}
