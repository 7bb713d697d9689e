"""Verbs that train networks, and use them."""

from __future__ import annotations

from typing import Any, Literal

from scanlearn.errors import ScanlearnError


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
    target: str | None = None,
    classes: list[str] | None = None,
    labels: str | None = None,
    exclude: list[str] | None = None,
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
        target: the label column, for recipes that learn from episodes of labelled scans (prototypes).
        classes: its base classes, three or more; those to diagnose later are left out. All by default.
        labels: with --objectives.segment.weight 1: how many scans' masks are seen: a number, a share such as 1%, or all.
        exclude: stores or files of splits: patients, files and look-alikes of their val and test parts are left out here;
            of runs, what they were trained on.
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
        target=target,
        classes=classes,
        labels=labels and _budget(labels),
        exclude=exclude or (),
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
        layout: whose it is: genesis, transvw, torchvision, moco, simsiam, barlow, dira, smp, ...
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


def fewshot(
    run: str,
    store: str,
    target: str,
    out: str,
    against: list[str] | None = None,
    classes: list[str] | None = None,
    ways: int = 2,
    shots: list[int] | None = None,
    queries: int = 15,
    episodes: int = 600,
    mode: Literal["resample", "official"] = "resample",
    part: Literal["train", "val", "test", "all"] = "test",
    per_patient: int = 1,
    strict: bool = False,
    classifiers: list[str] | None = None,
    seed: int = 0,
    same_as: str | None = None,
    bootstrap: int = 1000,
    finetune_episodes: int = 20,
    finetune_steps: int = 50,
    exclude: list[str] | None = None,
) -> None:
    """Diagnose from a few labelled patients: classifiers on frozen features, over many small episodes.

    No patient is in both the support and the query of an episode. Everything compared sees the same episodes.

    Args:
        run: a run, its encoder folder or a .safetensors file.
        store: what `prepare` wrote, with a label column.
        target: the label column.
        out: the folder to write: results.json, episodes.json, report.html.
        against: other runs, random (fresh weights of the same architecture), pixels; by default random and pixels.
        classes: only these classes; with two ways the last one counts as positive.
        ways: classes in an episode.
        shots: labelled scans of each class, 1 2 5 10 by default; the few are among the many.
        queries: scans of each class that are asked about.
        episodes: how many.
        mode: resample draws support and query from --part; official the support from train, and asks about all of test.
        part: the part of the store that episodes are drawn from.
        per-patient: images of one patient in the support.
        strict: refuse a class with fewer than --queries images left instead of taking what there is.
        classifiers: prototypes, cosine, simpleshot, logistic, nearest (these by default), and finetune, finetune_last,
            which train the network or its last stage on each support: minutes.
        seed: of the episodes, of random and of the resampled patients.
        same-as: an episodes.json to use instead of drawing; it settles all that concerns drawing but the shots.
        bootstrap: resamples of the patients.
        finetune-episodes: how many of the episodes finetune and finetune_last are done for, the first ones.
        finetune-steps: steps of each.
        exclude: runs (what they were trained on), stores or files of splits (what they test on) whose patients, files and
            look-alikes are left out of the episodes, e.g. with --part all.
    """
    from scanlearn.console import next_command, say
    from scanlearn.study.fewshot_page import fewshot_page
    from scanlearn.tasks.fewshot.classifiers import CLASSIFIERS
    from scanlearn.tasks.fewshot.run import fewshot as diagnose
    from scanlearn.tasks.fewshot.run import fewshot_table

    results = diagnose(
        run,
        store,
        target=target,
        out=out,
        against=("random", "pixels") if against is None else against,
        classes=classes,
        ways=ways,
        shots=(1, 2, 5, 10) if shots is None else shots,
        queries=queries,
        episodes=episodes,
        mode=mode,
        part=part,
        per_patient=per_patient,
        strict=strict,
        classifiers=tuple(CLASSIFIERS) if classifiers is None else classifiers,
        seed=seed,
        same_as=same_as,
        bootstrap=bootstrap,
        finetune_episodes=finetune_episodes,
        finetune_steps=finetune_steps,
        exclude=exclude or (),
    )
    print(fewshot_table(results))
    say(f"Report: {fewshot_page(out)}")
    run = run.rstrip("/")
    next_command(f"scanlearn finetune {store} --task classify --init {run} --out {run}-finetuned --target {target}")


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
    task: Literal["classify", "segment", "detect"],
    init: str,
    out: str,
    target: str | None = None,
    classes: list[str] | None = None,
    labels: str = "all",
    mode: Literal["full", "linear", "frozen"] = "full",
    like: str | None = None,
    recipe: str | None = None,
    uncertain: str | None = None,
    unmentioned: Literal["absent", "unknown"] | None = None,
    crops: Literal[1, 10] | None = None,
    per: Literal["scan", "study"] | None = None,
    mean_over: list[str] | None = None,
    seed: int = 0,
    resume: bool = False,
    workers: int = 0,
    **settings: Any,
) -> None:
    """Fine-tune with few labels, test once on held-out patients, and say how sure the figures are.

    Args:
        store: what `prepare` wrote, with labels, masks or boxes.
        task: classify, segment or detect (boxes).
        init: a pre-training run (or weights), or none for the from-scratch twin.
        out: the run folder to write.
        target: classify: the label column.
        classes: only these classes of it, e.g. --classes '[bacteria, virus]'; the last one counts as positive.
        labels: how many labelled scans may be used: a number, a share such as 1% (inside the 10%), or all.
        mode: full trains everything; linear trains a head on the frozen encoder; frozen fits a logistic regression.
        like: with --init none, the run whose architecture and input size the from-scratch twin takes.
        recipe: settings by name or YAML (finetune_classify, finetune_segment or finetune_detect by default).
        uncertain: several labels: what to make of uncertain ones, e.g. ones, or '{Edema: ones, default: zeros}'.
        unmentioned: several labels: those that a scan's cell does not name are absent (default), or unknown.
        crops: classify, 2D: test the whole scan (1), or ten crops of it.
        per: several labels: judge scans, or studies by the highest probability of their scans.
        mean-over: several labels: the classes that the main figures are the mean of, or a set of them (chexpert_tasks).
        seed: of the choice of labels, of new weights and of everything that is drawn.
        resume: go on with the run in --out.
        workers: processes that read.
    """
    import yaml

    from scanlearn.console import next_command
    from scanlearn.tasks.finetune import finetune as run

    asked = {
        "uncertain": uncertain and yaml.safe_load(uncertain),
        "unmentioned": unmentioned,
        "crops": crops,
        "per": per,
    }
    asked |= {"mean_over": mean_over}
    settings |= {f"classification.{name}": value for name, value in asked.items() if value is not None}
    run(
        store,
        task,
        init=init,
        like=like,
        out=out,
        target=target,
        classes=classes,
        labels=_budget(labels),
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


def _budget(text: str) -> int | str:
    if text == "all" or text.endswith("%"):
        return text
    if not text.isdigit() or int(text) == 0:
        raise ScanlearnError(f"--labels takes a number of labelled scans, a share such as 1%, or all, not {text!r}.")
    return int(text)


def predict(
    run: str, input: str, out: str, identifiers: Literal["hashed", "kept"] = "hashed", masks: bool = False
) -> None:
    """Apply a fine-tuned run to new scans: a table of probabilities or of boxes, or masks on each input's own grid.

    Args:
        run: a fine-tuned run.
        input: a scan, a folder or a table of scans.
        out: the folder to write.
        identifiers: hashed calls the scans by pseudonyms (`scanlearn names OUT` leads back); kept by their files' names.
        masks: compare with the masks that the input has: figures and a picture of each case, on a page.
    """
    from scanlearn.console import next_command, say
    from scanlearn.tasks.predict import predict as apply

    apply(run, input, out, identifiers=identifiers, masks=masks)
    if masks:
        from scanlearn.study.predicted_page import predicted_page

        say(f"Report: {predicted_page(out)}")
    next_command(f"scanlearn report {run}")
