"""The command line: one function per verb. A function's signature is its options; its docstring is its help."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from scanlearn import __version__
from scanlearn.errors import ScanlearnError, nearest


def prepare(
    source: str,
    out: str,
    size: list[int] | None = None,
    spacing: list[float] | None = None,
    window: str | None = None,
    fit: Literal["pad", "stretch"] = "pad",
    target: str | None = None,
    patient: str | None = None,
    mask: str | None = None,
    seed: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    identifiers: Literal["hashed", "kept"] = "hashed",
    max_scan_bytes: str | None = None,
    max_scan_seconds: float = 600.0,
) -> None:
    """Turn a folder or table of scans into a store that training reads fast.

    Look first: --dry-run says how many scans, patients and labels there are, what would be left out, and how large the
    store becomes. What was interrupted, even by a kill or a full disk, goes on when the same command is given again.
    Scans that cannot be used are left out, counted by reason, and listed in OUT/store.json.

    Args:
        source: a folder of scans or mixed DICOM, nnU-Net, Decathlon or BIDS, a table (CSV), a dataset.json, or an .npz.
        out: the store to write; one that was made from the same files and settings is kept.
        size: pixels of 2D scans, e.g. --size '[256, 256]'; 3D scans keep their grid unless --spacing is given.
        spacing: voxel size in mm to resample 3D scans to, e.g. --spacing '[1, 1, 2]'.
        window: HU window by name (lung, soft_tissue, bone, brain, genesis, ...) or 'low,high'.
        fit: how 2D scans of other shapes are brought to size: pad keeps the proportions, stretch does not.
        target: label column by which the split into train/val/test is stratified.
        patient: column that says whose scan it is, folder (each sub-folder is a patient) or e.g. 'regex:(P[0-9]+)_'.
        mask: column with the path of the segmentation mask (guessed from the usual names).
        seed: of the split.
        workers: processes that read (one for each core by default); 0 reads in this process.
        overwrite: replace a store that was made from other files or settings.
        strict: stop at the first scan that cannot be used instead of leaving it out; the private list names its file.
        dry-run: write nothing; look at the headers and a few scans, and say what would be written.
        identifiers: hashed puts pseudonyms of scans and patients into the store; kept puts their names there.
        max-scan-bytes: scans larger than this once decoded are left out, e.g. 8GB (4 GiB by default).
        max-scan-seconds: scans that take longer to read are left out.
    """
    given = dict(locals())
    from scanlearn.console import next_command
    from scanlearn.scans.prepare import prepare as run

    found = run(
        source,
        out,
        size=tuple(size) if size else None,
        spacing=tuple(spacing) if spacing else None,
        window=_window(window),
        fit=fit,
        target=target,
        patient=patient,
        mask=mask,
        seed=seed,
        workers=workers,
        overwrite=overwrite,
        strict=strict,
        dry_run=dry_run,
        identifiers=identifiers,
        max_scan_bytes=_bytes(max_scan_bytes),
        max_scan_seconds=max_scan_seconds,
    )
    if dry_run:
        print(found)
        next_command(_again(prepare, given, without="dry_run"))
        return
    recipe = "moco_v2_small" if found.spatial_dims == 2 else "models_genesis_3d_small"
    next_command(f"scanlearn pretrain {out} --recipe {recipe} --out runs/{recipe}")


def _again(verb: Callable[..., None], given: dict[str, Any], without: str) -> str:
    """The command that was given, without one of its options."""
    import inspect
    import shlex

    words = ["scanlearn", verb.__name__]
    for name, parameter in inspect.signature(verb).parameters.items():
        if name in _POSITIONAL.get(verb.__name__, ()):
            words.append(str(given[name]))
        elif given[name] != parameter.default and name != without:
            words += ["--" + name.replace("_", "-"), *([] if given[name] is True else [str(given[name])])]
    return shlex.join(words)


def _bytes(text: str | None) -> int | None:
    import re

    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMGT]?)i?B?", text, re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise ScanlearnError(f"--max-scan-bytes takes a size such as 500MB or 8GB, not {text!r}.")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


def _window(text: str | None) -> str | tuple[float, float] | None:
    if text is None or "," not in text:
        return text
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ScanlearnError(f"--window takes a name or 'low,high' in HU, not {text!r}.") from error
    return low, high


def names(store: str, out: str | None = None) -> None:
    """Lead back from the pseudonyms of a store or of predictions to names and files, and say why scans were left out.

    Only who made them can: the list lies in that user's private folder (SCANLEARN_PRIVATE).

    Args:
        store: what `prepare` or `predict` wrote.
        out: a CSV file to write, for its owner's eyes only; without it the table is printed.
    """
    from scanlearn.console import next_command
    from scanlearn.scans.names import names_of, write_csv
    from scanlearn.scans.store import open_store

    sink = Path(out) if out else None
    if (Path(store) / "predictions.json").is_file():
        from scanlearn.tasks.way_back import names_of_predictions

        write_csv(names_of_predictions(Path(store)), sink)
        return
    write_csv(names_of(open_store(store)), sink)
    next_command(f"scanlearn pretrain {store} --recipe moco_v2_small --out runs/moco_v2_small")


def discover(
    store: str,
    out: str,
    neighbours: float | None = None,
    neighbours_val: float | None = None,
    classes: int | None = None,
    size: list[float] | None = None,
    extra_crops: int = 2,
    reference: Literal["per_class", "shared"] = "per_class",
    coordinate_space: Literal["normalised", "voxel", "mm"] = "normalised",
    small: Literal["pad", "skip"] = "pad",
    tissue: Literal["general", "lung", "none"] = "general",
    margins: list[float] | None = None,
    apart: float = 5.0,
    tries: int = 200,
    per_patient: int = 1,
    autoencoder: str | None = None,
    skips: bool = False,
    encoder: str | None = None,
    seed: int = 0,
    workers: int = 0,
) -> None:
    """Find places that recur in similar patients: the words that Semantic Genesis and TransVW learn from.

    OUT gets a table of crops by word, a few MB; no voxel is copied. What was interrupted goes on when the same command
    is given again. Validation patients get words of their own crops; the test part is never read.

    Args:
        store: what `prepare` wrote.
        out: the folder to write.
        neighbours: scans of a word, a number or a share of the patients below 1 (200 in 3D, 1000 in 2D, or 45 %).
        neighbours-val: the same for validation patients (30).
        classes: words (44 in 3D, 100 in 2D, half of the patients at most).
        size: of a crop, voxels or shares of a scan up to 1, e.g. --size 64 64 32 (the default, where it fits).
        extra-crops: crops of each training scan at other scales, beside the one at base scale.
        reference: per_class takes another reference patient for each word, shared one for all.
        coordinate-space: the same place is the same share of the scan (normalised), the same voxel, or the same mm.
        small: scans that a crop would reach out of are padded (pad) or passed over (skip).
        tissue: what a crop must show; lung is the published test, for CT in the window genesis.
        margins: between the edge of a reference and a crop, voxels or shares of the scan below 1.
        apart: voxels, at least, between two places.
        tries: places looked at on one reference before another is taken.
        per-patient: scans of one patient in a word, at most; 0 takes rows, such as slices, as they are.
        autoencoder: recipe of the auto-encoder (autoencoder_3d_small or autoencoder_2d_small) or a YAML file.
        skips: give the auto-encoder skips, as the released code has them.
        encoder: a run, encoder folder or .safetensors file whose features are taken instead of an auto-encoder's.
        seed: of everything that is drawn.
        workers: processes that read while the auto-encoder is trained.
    """
    from scanlearn.console import next_command, say
    from scanlearn.discovery.discover import discover as run

    words = run(
        store,
        out,
        neighbours=neighbours,
        neighbours_val=neighbours_val,
        classes=classes,
        size=size,
        extra_crops=extra_crops,
        reference=reference,
        coordinate_space=coordinate_space,
        small=small,
        tissue=tissue,
        margins=margins,
        apart=apart,
        tries=tries,
        per_patient=per_patient or None,
        autoencoder=autoencoder,
        skips=skips,
        encoder=encoder,
        seed=seed,
        workers=workers,
    )
    say(f"Look at them: scanlearn report {out} --store {store}")
    recipe = f"semantic_genesis_{len(words.size)}d_small"
    next_command(f"scanlearn pretrain {store} --recipe {recipe} --words {out} --out runs/{recipe}")


def pretrain(
    store: str,
    recipe: str,
    out: str,
    init: str | None = None,
    resume: bool = False,
    seed: int = 0,
    part: Literal["train", "all"] = "train",
    workers: int = 0,
    strategy: Literal["auto", "ddp", "fsdp"] = "auto",
    timeout: float = 1800.0,
    words: str | None = None,
    **settings: Any,
) -> None:
    """Train a network on unlabelled scans. Any setting of the recipe is an option too: --optimizer.lr 0.01 --steps 500

    Args:
        store: what `prepare` wrote.
        recipe: a method by name (see `scanlearn recipes`) or a YAML file.
        out: the run folder to write.
        init: weights to start from: a run, its encoder folder, or a .safetensors file.
        resume: go on with the run in --out from its newest checkpoint, bit for bit.
        seed: of the weights and of everything that is drawn.
        part: train keeps the patients of the validation and test parts out; all uses every scan.
        workers: processes that read; 0 reads in a thread beside the training.
        strategy: how several devices share the work (start them with torchrun or SLURM).
        timeout: seconds without a batch after which reading counts as hung.
        words: a table that `scanlearn discover` wrote, for recipes that learn from words.
    """
    from scanlearn.console import next_command
    from scanlearn.engine.pretrain import pretrain as run

    result = run(
        store,
        recipe,
        out,
        init=init,
        resume=resume,
        seed=seed,
        part=part,
        workers=workers,
        strategy=strategy,
        timeout=timeout,
        words=words,
        settings=settings,
    )
    if result.stopped:
        next_command(f"scanlearn pretrain {store} --recipe {recipe} --out {out} --resume")
        return
    if not _first_rank():
        return
    _report(out, store)
    next_command(f"scanlearn finetune {store} --task classify --init {out} --out {out}-finetuned --target COLUMN")


def _first_rank() -> bool:
    from scanlearn.objectives.ranks import rank

    return rank() == 0


def _report(run: str, store: str | None) -> None:
    from scanlearn.console import say
    from scanlearn.study.report import report as write

    say(f"Report: {write(run, store)}")


def import_weights(
    file: str, layout: str, out: str, batch_stats: Literal["running", "always"] = "running", store: str | None = None
) -> None:
    """Bring in weights that others published, with an account of every tensor; then start from them with --init.

    No code in the file is run. Weights have terms of their own: they are shown, and kept by every run that starts from
    them.

    Args:
        file: what was downloaded (.pt, .pth, .model, .h5, .safetensors).
        layout: whose it is: genesis, semantic_genesis, transvw, genesis_keras, genesis_nnunet, ...
        out: the folder to write.
        batch-stats: what batch norm takes in evaluation: running statistics, or always those of the batch.
        store: estimate the running statistics anew on the training scans of this store.
    """
    from scanlearn.console import next_command
    from scanlearn.weights.layouts import import_weights as run

    run(file, layout, out, batch_stats=batch_stats, store=store)
    next_command(f"scanlearn finetune {store or 'STORE'} --task segment --init {out} --out {out}-finetuned")


def probe(
    run: str, store: str, target: str | None = None, part: Literal["train", "val", "test", "all"] = "train"
) -> None:
    """Ask frozen features what they know: nearest-neighbour and linear probes, kept apart by patient.

    Args:
        run: a pre-training run, its encoder folder or a .safetensors file.
        store: what `prepare` wrote, with a label column.
        target: the label column (every usable one by default).
        part: the part of the store whose scans are probed.
    """
    from scanlearn.console import next_command
    from scanlearn.tasks.probe import probe as measure
    from scanlearn.tasks.probe import probe_table

    print(probe_table(measure(run, store, target=target, part=part)))
    next_command(
        f"scanlearn finetune {store} --task classify --init {run} --out {run}-finetuned --target {target or 'COLUMN'}"
    )


def embed(run: str, store: str, out: str) -> None:
    """Write one feature vector per scan.

    Args:
        run: a run, its encoder folder or a .safetensors file.
        store: what `prepare` wrote.
        out: the file to write, .parquet or .npz.
    """
    from scanlearn.console import next_command
    from scanlearn.tasks.embed import embed as write

    write(run, store, out)
    next_command(f"scanlearn probe {run} {store}")


def finetune(
    store: str,
    task: Literal["classify", "segment"],
    init: str,
    out: str,
    target: str | None = None,
    classes: list[str] | None = None,
    labels: str = "all",
    mode: Literal["full", "linear", "frozen"] = "full",
    like: str | None = None,
    recipe: str | None = None,
    seed: int = 0,
    resume: bool = False,
    workers: int = 0,
    **settings: Any,
) -> None:
    """Fine-tune with few labels, test once on held-out patients, and say how sure the figures are.

    Args:
        store: what `prepare` wrote, with labels or masks.
        task: classify or segment.
        init: a pre-training run (or weights), or none for the from-scratch twin.
        out: the run folder to write.
        target: classify: the label column.
        classes: only these classes of it, e.g. --classes '[bacteria, virus]'; the last one counts as positive.
        labels: how many labelled scans may be used, a number or all.
        mode: full trains everything; linear trains a head on the frozen encoder; frozen fits a logistic regression.
        like: with --init none, the run whose architecture and input size the from-scratch twin takes.
        recipe: settings by name or YAML (finetune_classify, finetune_segment by default).
        seed: of the choice of labels, of new weights and of everything that is drawn.
        resume: go on with the run in --out.
        workers: processes that read.
    """
    from scanlearn.console import next_command
    from scanlearn.tasks.finetune import finetune as run

    run(
        store,
        task,
        init=init,
        like=like,
        out=out,
        target=target,
        classes=classes,
        labels=labels if labels == "all" else _count(labels),
        mode=mode,
        recipe=recipe,
        seed=seed,
        resume=resume,
        workers=workers,
        settings=settings,
    )
    if _first_rank():
        _report(out, store)
        if init != "none":
            more = f" --target {target}" if target else ""
            next_command(
                f"scanlearn finetune {store} --task {task} --init none --like {init} --out {out}-scratch{more} --labels {labels}"
            )
        else:
            next_command(f"scanlearn predict {out} INPUT --out predictions")


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise ScanlearnError(f"--labels takes a number of labelled scans or all, not {text!r}.")
    return int(text)


def predict(run: str, input: str, out: str, identifiers: Literal["hashed", "kept"] = "hashed") -> None:
    """Apply a fine-tuned run to new scans: a table of probabilities, or masks on each input's own grid.

    Args:
        run: a fine-tuned run.
        input: a scan, a folder or a table of scans.
        out: the folder to write.
        identifiers: hashed calls the scans by pseudonyms (`scanlearn names OUT` leads back); kept by their files' names.
    """
    from scanlearn.console import next_command
    from scanlearn.tasks.predict import predict as apply

    apply(run, input, out, identifiers=identifiers)
    next_command(f"scanlearn report {run}")


def study(
    source: str,
    out: str,
    task: Literal["classify", "segment"] | None = None,
    target: str | None = None,
    classes: list[str] | None = None,
    methods: list[str] | None = None,
    labels: list[str] | None = None,
    seeds: int | None = None,
    pretraining_seeds: int | None = None,
    pretraining_steps: int | None = None,
    pretraining_minutes: float | None = None,
    encoder: str | None = None,
    words: str | None = None,
    budget: str | None = None,
    jobs: int = 1,
    slurm: dict[str, Any] | None = None,
    plan: bool = False,
    **settings: Any,
) -> None:
    """Does pre-training help on these scans, by how much, how sure is it? Every method, label count and seed, tested once.

    Run it again to go on where it stopped. OUT/report.html gives the answer, study.json, results.csv and tables.tex the
    figures. Other options are settings of every fine-tuning, e.g. --optimizer.lr 0.0003 --steps 500.

    Args:
        source: a store that `prepare` wrote, or a study as YAML (docs/how-to/run-a-study.md); options win over the file.
        out: the folder of the study.
        task: classify or segment.
        target: classify: the label column.
        classes: only these classes of it; the last one counts as positive.
        methods: scratch and recipes by name, e.g. --methods scratch moco_v2_small models_genesis_2d_small.
        labels: how many labelled scans may be used, e.g. --labels 50 100 all.
        seeds: fine-tunings of each method and label count (5 by default; 3 are the fewest that can show a difference).
        pretraining_seeds: pre-trainings of each method (1 by default).
        pretraining_steps: the same number of steps for every pre-training; each recipe's own by default.
        pretraining_minutes: or the same time for every pre-training, measured on this machine.
        encoder: one encoder for all methods, e.g. resnet18; each recipe's own by default.
        words: the table that `scanlearn discover` wrote, for all methods that learn from words.
        budget: the time that the study may take, e.g. 90m or 12h; pre-training is shortened to fit.
        jobs: processes side by side on this machine.
        slurm: submit to SLURM with these settings, e.g. --slurm '{slurm_partition: gpu, timeout_min: 120}'.
        plan: only print the grid, its time, memory and disk, from a short measurement.
    """
    from scanlearn.console import next_command, say
    from scanlearn.engine.recipe_file import read_yaml
    from scanlearn.study.run import study as run

    given: dict[str, Any] = {
        "task": task,
        "target": target,
        "classes": classes,
        "methods": methods,
        "labels": labels,
        "seeds": seeds,
    }
    given |= {"pretraining_seeds": pretraining_seeds, "pretraining_steps": pretraining_steps, "encoder": encoder}
    given |= {"pretraining_minutes": pretraining_minutes, "budget": budget, "finetuning": settings or None}
    given |= {"words": words}
    is_file = source.endswith((".yaml", ".yml"))
    asked = read_yaml(Path(source), f"The study {source}") if is_file else {"store": source}
    asked |= {name: value for name, value in given.items() if value is not None}
    page = run(asked, out, jobs=jobs, slurm=slurm, plan_only=plan)
    if page is None:
        next_command(f"the same command without --plan, or with --budget, runs it and writes {out}/report.html")
    else:
        say(f"Report: {page}")
        next_command(f"scanlearn report {out} --open")


def report(run: str, store: str | None = None, open: bool = False) -> None:
    """Write the page of a run, a study or a table of words, one file without network: curves, pictures, figures.

    Args:
        run: the folder of a run, of a study or of words.
        store: the store it was made from, for the pictures of scans; a study knows its own.
        open: show it in the browser; it is served on this machine alone (127.0.0.1) until Ctrl-C.
    """
    from scanlearn.console import next_command, say

    if (Path(run) / "study.yaml").is_file():
        from scanlearn.study.run import report_again

        path = report_again(Path(run))
    else:
        from scanlearn.study.report import report as write

        path = write(run, store)
    say(f"Report: {path}")
    if open:
        from scanlearn.study.serve import serve

        serve(Path(path))
    next_command("scanlearn recipes")


def recipes(name: str | None = None) -> None:
    """List the methods, or show one as YAML to copy and change.

    Args:
        name: a recipe to print.
    """
    from scanlearn.console import next_command
    from scanlearn.engine.recipe import load_recipe, recipe_names

    if name is not None:
        import yaml

        recipe = load_recipe(name)
        print(yaml.safe_dump(recipe.to_dict(), sort_keys=False, width=110))
        next_command(recipe.command)
        return
    for known in recipe_names():
        recipe = load_recipe(known)
        print(f"{known:28} {recipe.spatial_dims}D  {recipe.title}")
    print(
        "\nscanlearn recipes NAME prints one; --any.setting value changes it; a YAML file of your own works the same."
    )
    next_command("scanlearn recipes moco_v2_small")


def doctor() -> None:
    """Say what this machine has and how fast a run would be on it; name what is missing."""
    from scanlearn.console import next_command
    from scanlearn.engine.doctor import examine

    print(examine())
    next_command("scanlearn demo")


def demo(out: str = "demo-out", seeds: int = 3) -> None:
    """See it work on a real brain in a few minutes: pre-train, fine-tune with few labels, compare with the scratch twin.

    Args:
        out: the folder to write.
        seeds: repetitions of each fine-tuning.
    """
    from scanlearn.console import next_command
    from scanlearn.demo import demo as run

    page = run(Path(out), seeds)
    print(page)
    next_command("scanlearn prepare YOUR_FOLDER --out stores/mine")


VERBS: tuple[Callable[..., None], ...] = (
    prepare,
    names,
    discover,
    pretrain,
    import_weights,
    probe,
    embed,
    finetune,
    study,
    predict,
    report,
    recipes,
    doctor,
    demo,
)
TAKES_SETTINGS = ("pretrain", "finetune", "study")
_POSITIONAL: dict[str, tuple[str, ...]] = {
    "prepare": ("source",),
    "names": ("store",),
    "discover": ("store",),
    "pretrain": ("store",),
    "import_weights": ("file",),
    "probe": ("run", "store"),
    "embed": ("run", "store"),
    "finetune": ("store",),
    "study": ("source",),
    "predict": ("run", "input"),
    "report": ("run",),
    "recipes": ("name",),
}

HELP = """Learn from scans nobody labelled: pre-train, probe, fine-tune and compare networks for medical images.

The way:  prepare -> pretrain -> probe -> finetune -> study -> predict -> report

  scanlearn demo                                                    see it work on a real brain
  scanlearn prepare scans/ --out stores/chest                       any folder, table or .npz of scans
  scanlearn pretrain stores/chest --recipe moco_v2_small --out runs/moco
  scanlearn discover stores/chest --out words                       places that recur, for Semantic Genesis
  scanlearn finetune stores/chest --task classify --target finding --labels 100 --init runs/moco --out runs/moco-100
  scanlearn finetune stores/chest --task classify --target finding --labels 100 --init none --out runs/scratch-100
  scanlearn study stores/chest --task classify --target finding --methods scratch moco_v2_small --labels 50 all --out studies/a
"""


def split_settings(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take recipe settings (``--optimizer.lr 0.1``, ``--steps=5``) out of the arguments; values are read as YAML."""
    import dataclasses

    import yaml

    from scanlearn.engine.recipe import Recipe

    reserved = {"seed", "init", "name"}
    fields = {f.name for f in dataclasses.fields(Recipe)} - reserved
    rest: list[str] = []
    settings: dict[str, Any] = {}
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        key, _, value = word[2:].partition("=")
        first = key.partition(".")[0]
        if not word.startswith("--") or (first not in fields and "." not in key):
            rest.append(word)
            continue
        if first not in fields:
            raise ScanlearnError(f"There is no setting --{key}{nearest(first, fields)}")
        if "=" not in word:
            if not waiting:
                raise ScanlearnError(f"--{key} needs a value.")
            value = waiting.pop(0)
        settings[key] = yaml.safe_load(value)
    return rest, settings


def gather_lists(verb: Callable[..., None], arguments: Sequence[str]) -> list[str]:
    """``--labels 50 100 all`` as ``--labels [50, 100, all]``, for options that take a list."""
    import inspect
    import json

    kinds = {f"--{name}": str(p.annotation) for name, p in inspect.signature(verb).parameters.items()}
    gathered: list[str] = []
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        gathered.append(word)
        if not kinds.get(word, "").startswith("list["):
            continue
        values = []
        while waiting and not waiting[0].startswith("--"):
            values.append(waiting.pop(0))
        if len(values) == 1 and values[0].startswith("["):
            gathered += values
        elif values:
            words = [json.dumps(v) if kinds[word].startswith("list[str]") else v for v in values]
            gathered.append(f"[{', '.join(words)}]")
    return gathered


def build_parser() -> Any:
    """The parser of all verbs, from their signatures and docstrings."""
    import inspect

    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Any = None) -> None:  # type: ignore[override]
            raise ScanlearnError(_plain_message(message, self))

    parser = Parser(prog="scanlearn", description=HELP, formatter_class=_raw_formatter())
    parser.add_argument("--version", action="version", version=f"scanlearn {__version__}")
    verbs = parser.add_subcommands(dest="verb", required=True, title="verbs", metavar="VERB")
    for verb in VERBS:
        text = (inspect.getdoc(verb) or "").split("\n\nArgs:")[0]
        sub = Parser(description=text)
        for name, parameter in inspect.signature(verb).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                continue
            _add_parameter(sub, verb, name, parameter)
        verbs.add_subcommand(_word(verb), sub, help=text.splitlines()[0])
    return parser


def _word(verb: Callable[..., None]) -> str:
    """The verb as it is typed."""
    return verb.__name__.replace("_", "-")


def _add_parameter(sub: Any, verb: Callable[..., None], name: str, parameter: Any) -> None:
    import typing

    option = "--" + name.replace("_", "-")
    kind, text = typing.get_type_hints(verb)[name], _help_of(verb, option[2:])
    if name in _POSITIONAL.get(verb.__name__, ()):
        optional = {"nargs": "?", "default": None} if parameter.default is None else {}
        sub.add_argument(name, help=text, **({"type": kind} if not optional else {}), **optional)
    elif kind is bool:
        sub.add_argument(option, action="store_true", help=text)
    elif parameter.default is parameter.empty:
        sub.add_argument(option, type=kind, required=True, help=text)
    else:
        sub.add_argument(option, type=kind, default=parameter.default, help=text)


def _help_of(verb: Callable[..., None], name: str) -> str:
    import inspect

    for line in (inspect.getdoc(verb) or "").splitlines():
        if line.strip().startswith(f"{name}:"):
            return line.split(":", 1)[1].strip().replace("%", "%%")
    return ""


def _raw_formatter() -> Any:
    import argparse

    return argparse.RawDescriptionHelpFormatter


def _plain_message(message: str, parser: Any) -> str:
    """One sentence, with the nearest option for an unknown one."""
    import re

    unknown = re.search(r"[Uu]nrecognized arguments?: (--[\w.-]+)", message)
    if unknown:
        known = [o for action in parser._actions for o in action.option_strings if o.startswith("--")]
        return f"There is no option {unknown[1]}{nearest(unknown[1], known)}"
    verb = re.search(r"invalid choice: '?([\w-]+)'?", message)
    if verb and "VERB" in message:
        return f"There is no verb {verb[1]!r}{nearest(verb[1], map(_word, VERBS))}"
    missing = re.search(r"arguments are required: (.*)", message)
    if missing:
        wanted = ", ".join(name.split(".")[-1] for name in missing[1].rstrip(".").split(", "))
        return f"Still needed: {wanted}; --help says what each is."
    first = " ".join(line.strip() for line in message.strip().splitlines())
    return first if first.endswith(".") else first + "."


def parse(arguments: Sequence[str]) -> tuple[Callable[..., None], dict[str, Any], dict[str, Any]]:
    """(verb, its options, settings of the recipe); unknown words are refused with the nearest known one."""
    arguments = list(arguments)
    settings: dict[str, Any] = {}
    named = next((v for v in VERBS if arguments and _word(v) == arguments[0]), None)
    if named is not None:
        rest = arguments[1:]
        if named.__name__ in TAKES_SETTINGS and not {"--help", "-h"} & set(rest):
            rest, settings = split_settings(rest)
        arguments = [arguments[0], *gather_lists(named, rest)]
    parsed = build_parser().parse_args(arguments)
    verb = next(v for v in VERBS if _word(v) == parsed.verb)
    return verb, vars(parsed[parsed.verb].clone()), settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Returns 0, or 2 after an error that the person can put right (one sentence, no traceback)."""
    # Read when torch is loaded: waiting threads that spin cost up to 17 times on busy cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        verb, options, settings = parse(arguments)
        verb(**options, **settings)
    except ScanlearnError as error:
        from scanlearn.console import console

        console.print(f"scanlearn: {error}", style="red", markup=False)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
