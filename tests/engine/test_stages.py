"""Stages: what begins anew, what is handed over, how long each is, and that a run killed around a border is the same."""

import dataclasses
import math
import signal

import pytest
import torch
from runs import RECIPES, genesis_recipe, image_store, moco_recipe, staged_best_recipe, staged_recipe
from test_resume import assert_equal_bit_for_bit, assert_equal_optimizers, final_state, moments

from scanlearn.engine import train as training_loop
from scanlearn.engine.learner import weights_at
from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.recipe import load_recipe
from scanlearn.engine.run_folder import RunFolder
from scanlearn.engine.stages import Stage, judged_by, phase_at, phases, scans_in, settled, stretched
from scanlearn.engine.train import rate_at, total_steps
from scanlearn.errors import ScanlearnError
from scanlearn.weights.encoder import load_network


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Of each recipe: its store and the folder of a run that nobody killed."""
    made = {}

    def of(method):
        if method not in made:
            folder = tmp_path_factory.mktemp(method)
            image_store(folder)
            pretrain(folder / "store", RECIPES[method][0](), folder / "unbroken", seed=3)
            made[method] = folder / "store", folder / "unbroken"
        return made[method]

    return of


# Checkpoints are written at steps 3, 6, 9 and 12; a new training begins after step 6, with an opponent.
@pytest.mark.parametrize(("step", "workers", "resumed"), [(6, 0, 3), (7, 2, 6), (8, 0, 6), (11, 2, 9)])
def test_a_run_killed_before_at_and_after_a_border_ends_as_the_unbroken_one(
    tmp_path, train, unbroken, step, workers, resumed
):
    store, whole = unbroken("staged")
    status, said = train("staged", store, tmp_path / "killed", workers=workers, where="step", step=step)
    assert status == -signal.SIGKILL, said[-2000:]
    status, said = train("staged", store, tmp_path / "killed", workers=workers, resume=True)
    assert status == 0 and f"at step {resumed} of 12" in said, said[-2000:]
    assert_equal_bit_for_bit(final_state(whole), final_state(tmp_path / "killed"))
    assert told(whole) == told(tmp_path / "killed")
    optimizer = assert_equal_optimizers(whole, tmp_path / "killed")
    steps = [int(values["step"]) for values in optimizer["state"].values() if "step" in values]
    assert steps == [6] * moments(optimizer) == [6] * 10  # the opponent's optimiser began with the last stage


def test_a_run_killed_after_it_began_anew_from_the_best_weights_ends_as_the_unbroken_one(tmp_path, train, unbroken):
    store, whole = unbroken("staged_best")
    status, _ = train("staged_best", store, tmp_path / "killed", where="step", step=8)
    assert status == -signal.SIGKILL
    status, said = train("staged_best", store, tmp_path / "killed", resume=True)
    assert status == 0 and "at step 6 of 12" in said, said[-2000:]
    assert_equal_bit_for_bit(final_state(whole), final_state(tmp_path / "killed"))


def told(run):
    """(step, stage, loss, rate) of each line of the log."""
    lines = RunFolder(run).read_metrics("train")
    return [(line["step"], line["stage"], line["loss"], line["learning_rate"]) for line in lines]


def test_the_log_and_the_screen_name_the_stage(tmp_path, capsys):
    store = image_store(tmp_path)
    pretrain(store, staged_recipe(), tmp_path / "run", seed=3)
    assert [stage for _, stage, _, _ in told(tmp_path / "run")] == ["di"] * 2 + ["dir"] * 4 + ["last"] * 6
    assert "tiny_staged, last, step 12/12" in capsys.readouterr().err
    looks = RunFolder(tmp_path / "run").read_metrics("monitor")
    assert [line["step"] for line in looks] == [1, 6, 12]  # the features are watched across the border


def spied(monkeypatch, tmp_path, recipe):
    """The learner's and the optimiser's state before and after the hand-over of a run."""
    seen = {}
    hand_over = training_loop.hand_over

    def spy(phase, learner, optimizer, stopping, seed):
        seen["phase"] = phase
        seen["before"] = {k: v.clone() for k, v in learner.state_dict().items()}
        seen["momentum before"] = len(optimizer.state)
        hand_over(phase, learner, optimizer, stopping, seed)
        seen["after"] = {k: v.clone() for k, v in learner.state_dict().items()}
        seen["momentum after"], seen["best"] = len(optimizer.state), stopping.best
        seen["opponent before"], seen["opponent after"] = (
            {name: state.pop(name) for name in list(state) if "opponent" in name}
            for state in (seen["before"], seen["after"])
        )
        seen["groups"] = [len(group["params"]) for group in optimizer.param_groups]

    monkeypatch.setattr(training_loop, "hand_over", spy)
    seen["result"] = pretrain(image_store(tmp_path), recipe, tmp_path / "run", seed=3)
    return seen


def test_a_fresh_stage_keeps_networks_queue_and_pointer_and_forgets_optimiser_and_opponent(monkeypatch, tmp_path):
    seen = spied(monkeypatch, tmp_path, staged_recipe())
    assert seen["phase"].first == 6 and seen["phase"].handed_over
    assert_equal_bit_for_bit(seen["before"], seen["after"])
    # 6 batches of 8 went into a queue of 20; keys and queries are in the state too.
    assert int(seen["after"]["objectives.momentum_contrast.pointer"]) == 48 % 20
    assert any("key_encoder" in name for name in seen["after"])
    assert seen["momentum before"] > 0 and seen["momentum after"] == 0 and min(seen["groups"]) > 0
    before, after = seen["opponent before"], seen["opponent after"]
    assert len(before) == 10 and not any(torch.equal(before[name], after[name]) for name in before)


def test_what_a_training_hands_over_is_kept_under_the_number_of_its_last_stage(monkeypatch, tmp_path):
    seen = spied(monkeypatch, tmp_path, staged_recipe())
    (kept,) = (tmp_path / "run" / "stages").iterdir()
    assert kept.name == "2"  # the first one went on in the second
    network = load_network(kept).state_dict()
    assert_equal_bit_for_bit({f"network.{name}": value for name, value in network.items()}, of_network(seen["after"]))
    assert not all(torch.equal(value, network[name]) for name, value in seen["result"].network.state_dict().items())


def of_network(state):
    return {name: value for name, value in state.items() if name.startswith("network.")}


def test_a_stage_that_is_not_fresh_hands_nothing_over(monkeypatch, tmp_path):
    stages = [{"steps": 2, "weights": {"restore": 0.0, "adversary": 0.0}}, {"steps": 4, "batch_size": 4}]
    assert "phase" not in spied(monkeypatch, tmp_path, staged_recipe(stages=stages))
    assert not (tmp_path / "run" / "stages").exists()


def test_from_best_the_weights_of_the_lowest_figure_go_on_and_the_search_begins_anew(monkeypatch, tmp_path):
    figures = iter([5.0, 3.0, 4.0, 9.0, 8.0, 7.0])
    notes = []
    monkeypatch.setattr("scanlearn.engine.pretrain.held_out_figure", lambda *_: lambda learner: figure(learner))

    def figure(learner):
        notes.append({k: v.clone() for k, v in learner.state_dict().items()})
        return next(figures)

    seen = spied(monkeypatch, tmp_path, staged_best_recipe())
    best = {name: value for name, value in notes[1].items() if "opponent" not in name}
    assert_equal_bit_for_bit(seen["after"], best)  # the second of three validations was the best
    assert any(not torch.equal(seen["before"][name], seen["after"][name]) for name in seen["after"])
    assert seen["best"] == math.inf and seen["result"].stopping["best_figure"] == 7.0


def test_validation_goes_by_the_last_weights_of_its_own_training(monkeypatch, tmp_path):
    weights = []
    monkeypatch.setattr(
        "scanlearn.engine.pretrain.held_out_figure", lambda *_: lambda learner: weights.append(learner.judged_by) or 1.0
    )
    pretrain(image_store(tmp_path), staged_recipe(stopping={"every": 2}), tmp_path / "run", seed=3)
    assert [w["restore"] for w in weights] == [10.0] * 3 + [2.0] * 3  # not 0 in the first two steps


def test_validating_changes_no_queue_pointer_key_network_or_statistics(tmp_path):
    store = image_store(tmp_path)
    pretrain(store, staged_recipe(), tmp_path / "plain", seed=3)
    watched = staged_recipe(stopping={"every": 1, "restore_best": False})
    pretrain(store, watched, tmp_path / "watched", seed=3)
    assert_equal_bit_for_bit(final_state(tmp_path / "plain"), final_state(tmp_path / "watched"))


# ---------------------------------------------------------------- lengths, rates, batches


def test_the_schedule_starts_again_and_the_rate_is_the_stages(tmp_path):
    recipe = staged_recipe(schedule={"name": "cosine", "warmup_steps": 0})
    course = phases(recipe)
    rates = [rate_at(recipe, phase_at(course, step), step, 1) for step in range(12)]
    assert rates[:6] == pytest.approx([0.05 * 0.5 * (1 + math.cos(math.pi * i / 6)) for i in range(6)])
    assert rates[6:] == pytest.approx([0.02 * 0.5 * (1 + math.cos(math.pi * i / 6)) for i in range(6)])


def test_the_schedule_goes_on_where_no_stage_is_fresh():
    recipe = genesis_recipe(schedule={"name": "cosine"})
    rates = [rate_at(recipe, phases(recipe)[0], step, 1) for step in range(12)]
    recipe.stages = [Stage(5, {"restore": 0.5}), Stage(7)]
    course = phases(recipe)
    assert rates == [rate_at(recipe, phase_at(course, step), step, 1) for step in range(12)]
    assert [(p.begun, p.over, p.handed_over) for p in course] == [(0, 12, False)] * 2


def test_epochs_of_a_stage_are_passes_at_its_own_batch_size():
    stages = [{"epochs": 3}, {"epochs": 2, "batch_size": 4, "fresh": True}]
    recipe = staged_recipe(stages=stages)
    assert recipe.epochs == 5 and total_steps(recipe, 21) == 3 * 21 // 8 + 2 * 21 // 4
    once = settled(recipe, 21)
    assert [(s.epochs, s.steps) for s in once] == [(3, 7), (2, 10)]
    assert settled(dataclasses.replace(recipe, stages=once), 21) == once
    # Before the scans are known the epochs share the steps by what they cost: 3/8 to 2/4.
    assert [p.end for p in phases(dataclasses.replace(recipe, steps=700))] == [300, 700]


def test_a_run_in_epochs_keeps_its_steps_and_resumes_with_the_option_given_again(tmp_path):
    store = image_store(tmp_path)
    scans = len(store.splits["train"])
    file = tmp_path / "staged.yaml"
    staged_recipe(stages=[{"epochs": 2}, {"epochs": 2, "fresh": True, "batch_size": 4}]).save(file)
    pretrain(store, file, tmp_path / "run", settings={"epochs": 6})
    saved = load_recipe(tmp_path / "run" / "recipe.yaml")
    assert [(s.epochs, s.steps) for s in saved.stages] == [(3, 3 * scans // 8), (3, 3 * scans // 4)]
    assert saved.epochs == 6 and saved.steps == sum(s.steps for s in saved.stages)
    again = pretrain(store, file, tmp_path / "run", settings={"epochs": 6}, resume=True)
    assert again.steps == saved.steps


def test_asking_for_steps_stretches_stages_in_epochs_by_what_they_cost(tmp_path):
    file = tmp_path / "staged.yaml"
    staged_recipe(stages=[{"epochs": 3}, {"epochs": 2, "batch_size": 4, "fresh": True, "name": "x"}]).save(file)
    recipe = load_recipe(file, {"steps": 700})
    assert recipe.epochs is None and recipe.steps == 700
    assert [(s.steps, s.epochs, s.batch_size, s.fresh, s.name) for s in recipe.stages] == [
        (300, None, None, False, ""),
        (400, None, 4, True, "x"),
    ]
    assert total_steps(recipe, 12345) == 700


def test_stretching_keeps_everything_but_the_steps():
    stage = Stage(6, {"a": 1.0}, "x", None, 4, 0.1, True, "best")
    assert stretched([Stage(2), stage], 400) == [Stage(100), dataclasses.replace(stage, steps=300)]


def test_every_scan_is_visited_as_often_across_a_change_of_the_batch(tmp_path, monkeypatch):
    from scanlearn.scans.loader import Loader, Steps

    store = image_store(tmp_path)
    rows = store.splits["train"]
    loader = Loader(store, rows, batch_size=[(0, 8), (3, 4)], size=None, seed=1, stop=9)
    seen = [loader.steps.rows_at(step) for step in range(9)]
    assert [len(part) for part in seen] == [8] * 3 + [4] * 6
    walk = Loader(store, rows, batch_size=1, size=None, seed=1, stop=48).steps
    assert isinstance(walk, Steps)
    assert [int(row) for part in seen for row in part] == [int(walk.rows_at(t)[0]) for t in range(48)]


def test_minutes_and_remaining_time_count_the_scans_of_each_stage():
    recipe = staged_recipe().to_dict()
    assert scans_in(recipe, 0, 12) == 6 * 8 + 6 * 4
    assert scans_in(recipe, 5, 8) == 8 + 2 * 4 and scans_in(recipe, 12, 14) == 16
    assert scans_in(moco_recipe().to_dict(), 3, 5) == 16


def test_phases_name_their_weights_and_whose_validation_they_share():
    course = phases(staged_recipe())
    assert [p.name for p in course] == ["di", "dir", "last"]
    assert [judged_by(course, p)["restore"] for p in course] == [10.0, 10.0, 2.0]
    assert weights_at(staged_recipe(), 1)["restore"] == 0.0 and weights_at(staged_recipe(), 99)["restore"] == 2.0
    unnamed = staged_recipe(stages=[{"steps": 1}, {"steps": 2}])
    assert [p.name for p in phases(unnamed)] == ["stage 1", "stage 2"] and phases(moco_recipe())[0].name == ""


@pytest.mark.parametrize(
    ("stages", "changes", "said"),
    [
        ([{"steps": 2}, {"epochs": 2}], {}, "all say their steps, or all their epochs"),
        ([{"weights": {"restore": 0.0}}], {}, "all say their steps, or all their epochs"),
        ([{"steps": 2, "start": "middle"}], {}, "no start of a stage 'middle'"),
        ([{"steps": 2}, {"steps": 2, "start": "best", "fresh": True}], {}, "with stopping.every"),
        ([{"steps": 2}, {"steps": 2, "start": "best"}], {"stopping": {"every": 2}}, "only with fresh: true"),
        ([{"steps": 2}, {"steps": 2, "fresh": True}], {"stopping": {"every": 1, "patience": 2}}, "stopping.patience"),
        ([{"steps": 2}, {"steps": 2, "batch_size": 4}], {"epochs": 3}, "give each its own"),
        ([{"steps": 2, "weights": {"restor": 1.0}}], {}, "restore"),
        ([{"steps": 0}], {}, "stages.*steps must be"),
    ],
)
def test_stages_that_cannot_be_meant_are_refused(stages, changes, said):
    with pytest.raises(ScanlearnError, match=said):
        staged_recipe(stages=stages, **changes)


def test_validations_and_training_on_everything_exclude_each_other(tmp_path):
    with pytest.raises(ScanlearnError, match="leave --part out"):
        pretrain(image_store(tmp_path), staged_best_recipe(), tmp_path / "run", part="all")
