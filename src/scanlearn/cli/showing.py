"""Verbs that compare, show and explain."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal


def study(
    source: str,
    out: str,
    task: Literal["classify", "segment", "detect"] | None = None,
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
        task: classify, segment or detect.
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
    """Write the page of a run, a study, words or few-shot episodes, one file without network: curves, pictures, figures.

    Args:
        run: the folder of a run, of a study, of words or of few-shot episodes.
        store: the store it was made from, for the pictures of scans; a study knows its own.
        open: show it in the browser; it is served on this machine alone (127.0.0.1) until Ctrl-C.
    """
    from scanlearn.console import next_command, say
    from scanlearn.scans.words import FACTS

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
    if (Path(run) / FACTS).is_file():
        next_command(f"scanlearn pretrain {store or 'STORE'} --recipe RECIPE --words {run} --out runs/words")
    else:
        next_command("scanlearn recipes")


def explain(
    run: str,
    store: str,
    out: str,
    classes: list[str] | None = None,
    part: Literal["train", "val", "test", "all"] = "test",
    stage: int = -1,
    threshold: float = 0.5,
) -> None:
    """Show where a fine-tuned classifier looks (Grad-CAM), and judge it by boxes that people drew, where there are any.

    Args:
        run: a fine-tuned classifier.
        store: what `prepare` wrote.
        out: the folder to write: results.json, report.html.
        classes: which classes; by default those that the store has boxes of, without boxes the last one.
        part: the part of the store whose scans are looked at.
        stage: which map of the encoder, fine to coarse from 0; -1 is the last.
        threshold: from which share of its maximum a map counts as hot.
    """
    from scanlearn.console import next_command, say
    from scanlearn.study.explain_page import explain_page
    from scanlearn.tasks.explain_run import explain as look

    look(run, store, out=out, classes=classes, part=part, stage=stage, threshold=threshold)
    say(f"Report: {explain_page(out, run, store)}")
    next_command(f"scanlearn predict {run} NEW_SCANS --out predictions")


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
