"""Fine-tuning with few labels, the from-scratch twin included, and one test on patients nobody trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from scanlearn.catalog.labels import Labels
from scanlearn.catalog.splits import pick_labelled
from scanlearn.console import say
from scanlearn.engine.leaks import Checked, not_seen
from scanlearn.engine.recipe import Recipe, override, parse_recipe, recipe_dict, with_base
from scanlearn.engine.resume import resumable
from scanlearn.engine.run_folder import RunFolder, run_of
from scanlearn.engine.train import Result, Training, train
from scanlearn.errors import Interrupted, ScanlearnError, unknown
from scanlearn.files import write_json
from scanlearn.scans.store import Store, open_store
from scanlearn.tasks.bootstrap import ONE_PATIENT, in_words
from scanlearn.tasks.feature_reuse import feature_reuse
from scanlearn.tasks.frozen import finetune_frozen
from scanlearn.tasks.kinds import KINDS, MODES, TASKS
from scanlearn.tasks.trained import save_head
from scanlearn.tasks.validation import validation_figure
from scanlearn.weights.encoder import read_card


def finetune(
    store: str | Path | Store,
    task: str,
    *,
    out: str | Path,
    init: str | Path = "none",
    like: str | Path | None = None,
    target: str | None = None,
    classes: list[str] | None = None,
    labels: int | str = "all",
    mode: str = "full",
    recipe: str | Path | None = None,
    seed: int = 0,
    resume: bool = False,
    workers: int = 0,
    settings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Fine-tune on labelled training scans and test once on the store's test part.

    Args:
        store: a prepared data set with labels, masks or boxes.
        task: classify | segment | detect.
        out: the run folder to write.
        init: weights to start from, or "none" for the from-scratch twin.
        like: with init "none": a run whose architecture and input size the twin takes.
        target: classify: the label column.
        classes: only these classes of the column, in this order; scans of other classes count as unlabelled, or, where
            a scan may have several labels, as having none of these.
        labels: labelled training scans to use: a number, a share such as "1%", or "all".
        mode: full (everything trains) | linear (head on the frozen encoder) | frozen (logistic regression on features).
        recipe: another recipe than finetune_classify, finetune_segment or finetune_detect.
        seed: chooses the labelled scans, new weights and everything drawn.
        settings: recipe settings to change.

    Returns:
        What is written to results.json: ``{"task", "target", "labels", "test": metrics, ...}``.
    """
    store = store if isinstance(store, Store) else open_store(store)
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if mode not in KINDS[task].modes:
        raise ScanlearnError(f"The task {task} trains the whole network: there is no mode {mode} for it, only full.")
    init = str(init)
    source = init if init != "none" else (str(like) if like else None)
    column = target_labels(store, task, target, classes)
    plan = fill_in(task, store, source, column, recipe, settings, mode)
    told = KINDS[task].told(plan, column)

    def again(name: str, changed: dict[str, Any]) -> Path:
        run = Path(out) / name
        if not (run / "results.json").is_file():
            how: dict[str, Any] = {"init": init, "like": like, "mode": mode, "recipe": recipe, "workers": workers}
            how |= {"target": target, "classes": classes, "labels": labels, "seed": seed}
            how |= {"settings": {**(settings or {}), **changed}, "resume": (run / "recipe.yaml").is_file()}
            finetune(store, task, out=run, **how)
        return run

    column, taught = KINDS[task].teach(store, target, column, plan, seed, again)
    rows = choose_rows(store, column, labels, seed)
    facts = {
        "task": task,
        "target": target,
        "mode": mode,
        "init": run_of(init).name if init != "none" else "none",
        "seed": seed,
        "labelled_scans": len(rows),
        "labelled_patients": store.catalog.count_patients(rows),
        "classes": KINDS[task].outputs(store, column),
        "multilabel": column.kind == "multilabel",
        "input_size": input_size(plan),
        **told,
        "split": how_split(store),
        "store_settings": store.info["settings"],
        "all_8bit": store.info["intensity"]["all_8bit"],
        "mask_values": store.info["mask_values"],
    }
    say(
        f"{task}: {facts['labelled_scans']} labelled scans of {facts['labelled_patients']} patients, from {facts['init']}."
    )
    checked = not_seen(init, store)
    if mode == "frozen":
        results = finetune_frozen(store, init, column, taught, rows, Path(out), facts, plan, checked)
    else:
        results = _train_and_test(
            store, task, column, taught, rows, plan, Path(out), facts, init, seed, resume, workers, checked
        )
    show(results)
    return results


def _train_and_test(
    store: Store,
    task: str,
    column: Labels,
    taught: Labels,
    rows: np.ndarray,
    plan: Recipe,
    out: Path,
    facts: dict[str, Any],
    init: str,
    seed: int,
    resume: bool,
    workers: int,
    checked: Checked,
) -> dict[str, Any]:
    walked = KINDS[task].beside(store, plan, rows)
    training = Training(
        **walked,
        **KINDS[task].supervision(store, taught),
        parts={
            "fine-tuning": walked["rows"],
            "val": np.asarray(store.splits["val"]),
            "test": np.asarray(store.splits["test"]),
        },
        notes={"task": task, "init": facts["init"]},
        checked=checked,
    )
    weights = None if init == "none" else init
    validate = validation_figure(task, store, taught, facts["input_size"]) if plan.stopping.every else None
    how: dict[str, Any] = {"seed": seed, "init": weights, "resume": resume, "workers": workers, "validate": validate}
    result = train(plan, store, training, out, **how)
    if result.stopped:
        raise Interrupted(f"The run was stopped at step {result.steps}; go on with --resume.")
    run = RunFolder(out)
    with run.held(), resumable(run):
        return _test(result, store, task, column, facts, run, init)


def _test(
    result: Result, store: Store, task: str, column: Labels, facts: dict[str, Any], run: RunFolder, init: str
) -> dict[str, Any]:
    head: Any = result.learner.objectives[task].eval()
    save_head(head.exported(), run.encoder, facts)
    network = result.network.eval()
    device = next(network.parameters()).device
    with torch.no_grad():
        tested = KINDS[task].test(network, head, store, column, facts, run, device)
    results = {**facts, "steps": result.steps, **tested}
    if result.stopping is not None:
        results["stopping"] = result.stopping
    if init != "none" and facts["mode"] == "full" and len(store.splits["test"]):
        rows = np.asarray(store.splits["test"])
        results["feature_reuse"] = feature_reuse(init, network, store, rows, facts["input_size"])
    write_json(run.results, results)
    return results


def target_labels(store: Store, task: str, target: str | None, classes: list[str] | None = None) -> Labels:
    """The labels that the task learns, of some classes or all."""
    return KINDS[task].labels(store, target, classes)


def choose_rows(store: Store, column: Labels, labels: int | str, seed: int) -> np.ndarray:
    """Labelled training rows: the same for every method at one (labels, seed), and nested in the count."""
    return pick_labelled(store.catalog, np.asarray(store.splits["train"]), column, labels, seed)  # type: ignore[arg-type]


def fill_in(
    task: str,
    store: Store,
    source: str | None,
    column: Labels,
    recipe: str | Path | None,
    settings: dict[str, Any] | None,
    mode: str,
) -> Recipe:
    """The recipe with everything that follows from the store and from the weights: network, input size, classes."""
    data = with_base(recipe_dict(recipe or f"finetune_{task}"))
    data["spatial_dims"] = store.spatial_dims
    settings = dict(settings or {})
    if source is not None:
        card = read_card(source)
        data["network"] = {**data["network"], **card["network"]}
        if card["notes"].get("input_size") and not KINDS[task].whole:
            settings.setdefault("size", card["notes"]["input_size"])
        data["channels"] = card["network"]["encoder"].get("in_channels", 1)
    size = settings.pop("size", None)
    if size is None and store.spatial_dims == 2:
        size = list(store.shape(0))
    for key, value in settings.items():
        override(data, key, value)
    if "steps" in settings and "epochs" not in settings:
        data["epochs"] = None  # who asks for steps means steps, also where the recipe counts passes over the data
    network = dict(data["network"])
    if isinstance(network["encoder"], str):
        network["encoder"] = {"name": network["encoder"]}
    network["batch_norm"] = "local"
    data["network"] = network
    set_size(data, size, store.spatial_dims, KINDS[task].whole)
    KINDS[task].fill_in(data, store, column, mode)
    return parse_recipe(data)


def input_size(plan: Recipe) -> list[int]:
    """What the network sees of a scan, voxels along each axis: a patch, or what the views crop to."""
    if plan.size:
        return list(plan.size)
    return list(_sized(plan.views["image"]["ops"])[0]["size"])


def _sized(ops: list[Any]) -> list[dict[str, Any]]:
    """The settings of the ops that bring an image to a size."""
    return [op[n] for op in ops if isinstance(op, dict) for n in ("random_resized_crop", "resize") if n in op]


def set_size(data: dict[str, Any], size: Any, spatial_dims: int, whole: bool) -> None:
    """2D views that crop or resize do so to that size, and those of whole images resize; all else reads patches."""
    if size is None:
        return
    ops = data["views"]["image"]["ops"]
    if whole and not _sized(ops):
        ops.insert(0, {"resize": {}})
    if spatial_dims == 2 and _sized(ops):
        _sized(ops)[0]["size"] = list(size)
        return
    data["views"]["image"]["ops"] = [op for op in ops if not (isinstance(op, dict) and "random_resized_crop" in op)]
    data["size"] = list(size)


def how_split(store: Store) -> str:
    """Who divided the scans: a published split by its name, the column of the source, or chance."""
    origin = store.info["settings"].get("origin", {})
    if origin.get("split"):
        whose = "official" if origin.get("official") else "in wide use, not official"
        return f"{origin['split']} of {origin['layout']} ({whose})"
    if store.info["settings"].get("split_file"):
        return f"of a file (sha256 {store.info['settings']['split_file'][:12]})"
    if any(store.catalog.words("split").to_pylist()):
        return "given by the source"
    return f"random by patient (seed {store.info['splits']['seed']})"


def show(results: dict[str, Any]) -> None:
    """The main figures, with their intervals."""
    test = results["test"]
    for name in KINDS[results["task"]].figures:
        say(f"  {name:12} {in_words(test['macro'][name])}")
    units = {"scan": "scans", "study": "studies"}[results.get("per", "scan")]
    whose = f"{test['patients']} held-out patients; patients resampled for the interval"
    say(f"  on {test['cases']} {units} of {whose if test['patients'] > 1 else f'one held-out patient; {ONE_PATIENT}'}")
    say(f"  split: {results['split']}")
