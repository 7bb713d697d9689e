"""Validation that decides: kept weights, a falling rate, an early end, and the same after a kill."""

import json
import math
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from runs import SMALL_MOCO, genesis_recipe, image_store, train_validated, validated_recipe, volume_store
from test_resume import assert_equal_bit_for_bit, final_state
from test_train import HERE

from scanlearn.engine.checkpoint import checkpoints
from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.recipe import parse_recipe
from scanlearn.engine.run_folder import RunFolder
from scanlearn.engine.stopping import Stopping
from scanlearn.engine.train import Training
from scanlearn.engine.train import train as train_directly
from scanlearn.errors import ScanlearnError
from scanlearn.scans.store import open_store
from scanlearn.weights.encoder import load_network, read_card


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    volume_store(folder)
    return folder / "store"


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, store):
    """A run that validation ended early, in its folder."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    return train_validated(store, out, seed=3), out


def stopping_of(learner=None, schedule=None, steps_per_epoch=1, **settings):
    data = genesis_recipe().to_dict() | {"stopping": {"every": 1, **settings}}
    if schedule is not None:
        data["schedule"] = {"name": "plateau", **schedule}
    return Stopping(parse_recipe(data), learner or torch.nn.Linear(1, 1), steps_per_epoch)


# ---------------------------------------------------------------- the counting, against a plain loop


def plain(figures, patience, min_delta, plateau, gamma, plateau_delta):
    """Keras's callbacks by hand: the step of the end (or None), the step of the lowest figure, the rate's factor."""
    factor, end, low = 1.0, None, 0
    waited = {"end": 0, "plateau": 0}
    best = {"end": math.inf, "plateau": math.inf}
    for step, figure in enumerate(figures, start=1):
        low = step if figure < min([math.inf, *figures[: step - 1]]) else low
        for name, delta in (("end", min_delta), ("plateau", plateau_delta)):
            waited[name] += 1
            if figure < best[name] - delta:
                best[name], waited[name] = figure, 0
        if waited["plateau"] == plateau:
            factor, waited["plateau"] = factor * gamma, 0
        if waited["end"] == patience:
            end = step
            break
    return end, low, factor


@pytest.mark.parametrize("seed", range(8))
def test_plateaus_end_and_best_weights_come_as_in_a_plain_loop(seed):
    generator = np.random.default_rng(seed)
    figures = (np.exp(-np.arange(60) / 15) + 0.05 * generator.standard_normal(60)).tolist()
    stopping = stopping_of(patience=9, min_delta=0.01, schedule={"gamma": 0.3, "patience": 4, "min_delta": 0.02})
    ended = None
    for step, figure in enumerate(figures, start=1):
        stopping.note(step, figure)
        if stopping.over:
            ended = step
            break
    assert (ended, stopping.best_step, stopping.factor) == plain(figures, 9, 0.01, 4, 0.3, 0.02)
    assert stopping.best == min(figures[:ended])


def test_the_rate_falls_to_the_floor_and_not_below_and_a_warm_up_may_be_lower():
    stopping = stopping_of(schedule={"gamma": 0.5, "patience": 1, "floor": 1e-6})
    rates = []
    for step in range(1, 15):
        stopping.note(step, 1.0)  # the first is the best, each other one a plateau
        rates.append(stopping.rate(1e-3))
    assert rates[:3] == [1e-3, 5e-4, 2.5e-4] and rates[9] == 1e-3 * 0.5**9
    assert rates[10:] == [1e-6] * 4 and stopping.rate(1e-7) == 1e-7


def test_without_a_plateau_schedule_the_rate_is_left_alone():
    stopping = stopping_of()
    for step in range(1, 30):
        stopping.note(step, 1.0)
    assert stopping.rate(0.25) == 0.25 and not stopping.over


def test_validations_come_every_so_many_steps_or_passes_and_at_the_last_step():
    due = [step for step in range(1, 12) if stopping_of(every=4).due(step, 11)]
    assert due == [4, 8, 11]
    passes = [step for step in range(1, 12) if stopping_of(every=2, per_epoch=True, steps_per_epoch=3).due(step, 11)]
    assert passes == [6, 11]


def test_the_best_weights_come_back_with_their_buffers_and_no_later_step_moves_them():
    learner = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    stopping = stopping_of(learner)
    stopping.note(1, 0.5)
    best = {name: value.clone() for name, value in learner.state_dict().items()}
    learner(torch.randn(8, 2))  # moves the statistics
    with torch.no_grad():
        learner[0].weight += 1.0
    for step, figure in ((2, 0.7), (3, 0.5)):  # of equal figures the first counts
        stopping.note(step, figure)
    stopping.restore()
    assert_equal_bit_for_bit(best, learner.state_dict())
    assert stopping.told(3)["weights_of_step"] == 1


def test_without_restore_best_the_last_weights_stay_and_it_is_said():
    learner = torch.nn.Linear(2, 2)
    stopping = stopping_of(learner, restore_best=False)
    stopping.note(1, 0.5)
    with torch.no_grad():
        learner.weight += 1.0
    last = learner.weight.clone()
    stopping.note(2, 0.7)
    stopping.restore()
    assert torch.equal(learner.weight, last)
    assert stopping.told(2) == {
        "stopped_at": 2,
        "why": "the last step was reached",
        "best_step": 1,
        "best_figure": 0.5,
        "weights_of_step": 2,
        "rate_factor": 1.0,
    }


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_a_figure_that_is_no_number_is_refused_with_the_step(figure):
    with pytest.raises(ScanlearnError, match=r"The validation at step 1,200 gave (nan|inf), no number to go by"):
        stopping_of().note(1200, figure)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda s: s["numbers"].update(best=math.nan), "numbers"),
        (lambda s: s["numbers"].update(end_waited=-1), "numbers"),
        (lambda s: s["numbers"].update(end_waited=1.0), "numbers"),
        (lambda s: s["numbers"].pop("factor"), "numbers"),
        (lambda s: s["weights"].pop("bias"), "another network"),
        (lambda s: s["weights"].update(bias=torch.zeros(3)), "another network"),
        (lambda s: s["weights"].update(bias=torch.zeros(2, dtype=torch.float64)), "another network"),
        (lambda s: s["weights"].update(bias=[0.0, 0.0]), "another network"),
    ],
)
def test_a_state_that_is_damaged_or_of_another_network_is_refused(change, why):
    learner = torch.nn.Linear(2, 2)
    stopping = stopping_of(learner)
    stopping.note(1, 0.5)
    state = stopping.state_dict()
    stopping_of(learner).load_state_dict(state)  # as it is, it is taken
    change(state)
    with pytest.raises(ValueError, match=why):
        stopping_of(learner).load_state_dict(state)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": {"name": "plateau"}}, "The schedule plateau goes by validations: set stopping.every"),
        ({"stopping": {"patience": 3}}, r"stopping.patience goes by validations: set stopping.every"),
        ({"stopping": {"every": -1}}, "Setting stopping.every must be"),
        ({"stopping": {"evry": 1}}, "did you mean 'every'"),
        ({"schedule": {"name": "plateau", "patience": 0}, "stopping": {"every": 1}}, "Setting schedule.patience must"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(settings, message):
    with pytest.raises(ScanlearnError, match=message):
        genesis_recipe(**settings)


def test_validations_without_a_figure_are_refused_before_anything_is_written(tmp_path, store):
    with pytest.raises(ScanlearnError, match="asks for validations, and this training has no figure"):
        opened = open_store(store)
        train_directly(validated_recipe(), opened, Training(np.asarray(opened.splits["train"])), tmp_path / "run")
    with pytest.raises(ScanlearnError, match="fsdp cuts them up: train with --strategy ddp"):
        train_validated(store, tmp_path / "run", strategy="fsdp")
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- whole runs


def test_a_run_ends_early_with_the_weights_of_its_best_validation(tmp_path, store, unbroken):
    result, out = unbroken
    told = {"stopped_at": 16, "best_step": 6, "weights_of_step": 6, "rate_factor": 0.25}
    assert told.items() <= result.stopping.items()
    assert result.stopping["why"] == "5 validations without a better figure"
    assert result.steps == 16 and not result.stopped and read_card(out)["notes"]["finished"]
    lines = RunFolder(out).read_metrics("validation")
    assert [line["step"] for line in lines] == list(range(2, 17, 2))
    assert min(lines, key=lambda line: line["figure"])["step"] == 6
    rates = {line["step"]: line["learning_rate"] for line in RunFolder(out).read_metrics("train")}
    assert (rates[10], rates[12], rates[14], rates[16]) == pytest.approx((0.1, 0.05, 0.05, 0.025))
    # A run of six steps ends with just these weights.
    short = train_validated(store, tmp_path / "short", validated_recipe(steps=6), seed=3)
    assert_equal_bit_for_bit(load_network(tmp_path / "short").state_dict(), load_network(out).state_dict())
    assert short.stopping["why"] == "the last step was reached" and short.stopping["best_step"] == 6


@pytest.mark.parametrize(("where", "step"), [("step", 5), ("step", 13), ("checkpoint", 12), ("export", 1)])
def test_a_killed_and_resumed_run_decides_as_the_unbroken_one(tmp_path, train, store, unbroken, where, step):
    out = tmp_path / "killed"
    status, said = train("validated", store, out, where=where, step=step)
    assert status == -signal.SIGKILL, said[-2000:]
    status, said = train("validated", store, out, resume=True)
    assert status == 0, said[-2000:]
    assert_equal_bit_for_bit(final_state(unbroken[1]), final_state(out))
    ends = [torch.load(checkpoints(RunFolder(path).checkpoints)[-1], weights_only=True) for path in (unbroken[1], out)]
    assert ends[0]["step"] == ends[1]["step"] == 16
    assert ends[0]["stopping"]["numbers"] == ends[1]["stopping"]["numbers"]
    assert_equal_bit_for_bit(*(end["stopping"]["weights"] for end in ends))
    lines = [RunFolder(path).read_metrics("validation") for path in (unbroken[1], out)]
    assert lines[0] == lines[1]


def test_a_run_that_ended_early_is_not_gone_on_with(store, unbroken):
    result, out = unbroken
    before = {path.name: path.read_bytes() for path in (out / "encoder").iterdir()}
    again = train_validated(store, out, seed=3, resume=True)
    assert again.stopping == result.stopping and again.steps == 16
    assert before == {path.name: path.read_bytes() for path in (out / "encoder").iterdir()}


def test_looking_at_validation_changes_nothing_in_the_training(tmp_path, store):
    constant = {"schedule": {"name": "constant"}, "steps": 12}
    looked = validated_recipe(**constant, stopping={"every": 1, "restore_best": False})
    alone = validated_recipe(**constant, stopping={"every": 0})
    states = []
    for name, recipe in (("looked", looked), ("alone", alone)):
        train_validated(store, tmp_path / name, recipe, seed=3)
        states.append(final_state(tmp_path / name))
    assert_equal_bit_for_bit(*states)
    kept = torch.load(checkpoints(tmp_path / "alone" / "checkpoints")[-1], weights_only=True)
    assert set(kept) == {"learner", "optimizer", "step"}
    assert RunFolder(tmp_path / "alone").read_metrics("validation") == []


def test_two_ranks_go_by_one_figure_and_end_at_one_step(tmp_path, store):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(HERE / "killed.py"), "validated", str(store), str(tmp_path / "ranks"), "ddp"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert read_card(tmp_path / "ranks")["notes"]["finished"], done.stderr[-3000:]
    split = {**validated_recipe().to_dict()["network"], "batch_norm": "split", "batch_norm_groups": 2}
    alone = train_validated(store, tmp_path / "alone", validated_recipe(network=split), seed=3)
    assert alone.steps < 40
    one, two = (RunFolder(tmp_path / name).read_metrics("validation") for name in ("alone", "ranks"))
    # Running statistics are each rank's own, so the figures are near and not equal; the decisions are.
    assert [line["step"] for line in one] == [line["step"] for line in two]
    np.testing.assert_allclose([line["figure"] for line in one], [line["figure"] for line in two], atol=0.02)


def test_a_run_from_before_there_was_a_setting_is_resumed(tmp_path):
    store = image_store(tmp_path)
    pretrain(store, "moco_v2_small", tmp_path / "run", settings=SMALL_MOCO)
    file = RunFolder(tmp_path / "run").recipe
    data = yaml.safe_load(file.read_text())
    del data["stopping"]
    for name in ("patience", "min_delta", "floor"):
        del data["schedule"][name]
    file.write_text(json.dumps(data))
    assert pretrain(store, "moco_v2_small", tmp_path / "run", resume=True).steps == 2
