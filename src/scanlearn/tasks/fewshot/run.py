"""Few-shot diagnosis from end to end: episodes, features once for each source, every classifier on the same episodes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from scanlearn.catalog.labels import Labels
from scanlearn.console import say, warn
from scanlearn.engine.exclusion import shared_rows
from scanlearn.engine.leaks import Checked, keep_apart, not_seen
from scanlearn.errors import ScanlearnError, unknown
from scanlearn.files import make_folder, write_json
from scanlearn.scans.episodes import groups_of
from scanlearn.scans.store import Store, open_store
from scanlearn.tasks.bootstrap import ONE_PATIENT, PatientBootstrap, estimate
from scanlearn.tasks.fewshot.classifiers import CLASSIFIERS
from scanlearn.tasks.fewshot.episodes import FILE, Episodes, load_episodes
from scanlearn.tasks.fewshot.finetuning import PARTS, EpisodeFinetuner
from scanlearn.tasks.fewshot.metrics import FIGURES, judge, pooled_auc, summary
from scanlearn.tasks.fewshot.sampling import SHOTS, Drawing, draw_episodes
from scanlearn.tasks.fewshot.sources import (
    PIXELS,
    RANDOM,
    check_sources,
    features_from,
    network_from,
    short_names,
    size_of,
)
from scanlearn.tasks.targets import only_classes

CHUNK = 2**23  # numbers gathered at a time: 64 MB of float64


def fewshot(
    run: str | Path,
    store: str | Path | Store,
    *,
    target: str,
    out: str | Path,
    against: Iterable[str | Path] = ("random", "pixels"),
    classes: list[str] | None = None,
    shots: Sequence[int] = SHOTS,
    classifiers: Sequence[str] = tuple(CLASSIFIERS),
    seed: int = 0,
    same_as: str | Path | None = None,
    bootstrap: int = 1000,
    finetune_episodes: int = 20,
    finetune_steps: int = 50,
    exclude: Sequence[str | Path] = (),
    **drawing: Unpack[Drawing],
) -> dict[str, Any]:
    """Tell classes apart from a few labelled patients, through frozen features; writes ``out``/results.json, episodes.json.

    Args:
        run: a run folder, its encoder folder or a .safetensors file.
        store: a prepared data set.
        target: the label column.
        against: other runs, ``random`` (fresh weights of the first run's architecture), ``pixels``.
        classes: only these; with two ways the last one counts as positive.
        shots: labelled images of each class.
        classifiers: names in ``CLASSIFIERS``; also ``finetune`` and ``finetune_last``, which train the network, or its last
            stage, on the support of each episode. That takes seconds to minutes each, so it is done for the first
            ``finetune_episodes`` of the same episodes, ``finetune_steps`` steps each, and not for pixels.
        same_as: an episodes.json to use instead of drawing; it settles all that concerns drawing but the shots.
        bootstrap: resamples of the patients.
        exclude: runs, stores or files of splits whose scans are not drawn, see ``shared_rows``.
        drawing: ways, queries, episodes, mode, part, per_patient, strict; see ``draw_episodes``.

    Returns:
        What results.json holds: ``results[source][classifier][shots]`` with a ``summary`` of each figure and the
        ``pooled_auc``, and
        ``differences[source][classifier][shots]``, the run less that source, for accuracy and AUC.
    """
    sources = [str(Path(source)) for source in (run, *against)]
    for name in classifiers:
        if name not in CLASSIFIERS and name not in PARTS:
            raise unknown("classifier", name, [*CLASSIFIERS, *PARTS])
    if min(finetune_episodes, finetune_steps) < 1 or not classifiers:
        raise ScanlearnError("Few-shot diagnosis needs a classifier, and fine-tuning at least 1 episode and 1 step.")
    check_sources(sources)
    named = dict(zip(short_names(sources), sources, strict=True))  # results name no path
    out = Path(out)
    if (out / "results.json").exists():
        raise ScanlearnError(f"{out} has results already: choose another --out.")
    store = store if isinstance(store, Store) else open_store(store)
    column = class_column(store, target, classes)
    checked = Checked()
    if same_as is not None and exclude:
        raise ScanlearnError(f"{same_as} settles which scans are drawn: leave --exclude out.")
    if same_as is None:
        without = None
        if exclude:
            without, left_out = shared_rows(store, exclude)
            checked.done += left_out
        drawn = draw_episodes(store, target, column, shots=shots, seed=seed, without=without, **drawing)
    else:
        drawn = load_episodes(same_as, store, column)
        _fits(drawn, target, shots, str(same_as))
    checked.add(_guard(drawn, store, [source for source in sources if source not in (RANDOM, PIXELS)]))
    make_folder(out)
    drawn.save(out / FILE)
    tuned = {"episodes": min(finetune_episodes, len(drawn)), "steps": finetune_steps}
    results = _facts(drawn, store, list(named), shots, bootstrap, seed) | {"checked": asdict(checked)}
    if networks := tuned["episodes"] * len(shots) * sum(name in PARTS for name in classifiers):
        results["finetuning"] = tuned
        say(
            f"Fine-tuning trains {networks} networks for each source, {finetune_steps} steps each: fewer "
            "--finetune-episodes or --shots are faster."
        )
    results |= _compare(drawn, store, named, shots, classifiers, bootstrap, seed, tuned)
    write_json(out / "results.json", results)
    return results


def _guard(drawn: Episodes, store: Store, sources: Sequence[str]) -> Checked:
    """Look whether a source saw the scans that are asked about, and whether support and query look alike."""
    queries, support = np.unique(drawn.query[drawn.query >= 0]), np.unique(drawn.support)
    if drawn.settings["mode"] == "official":
        told = keep_apart(store, {"support": support, "query": queries})
    else:  # what is support in one episode is asked about in another
        told = keep_apart(store, {"episodes": drawn.rows()})
        told.done.append("No patient, and no identical file, is in the support and the query of an episode.")
    asked = str(drawn.settings["part"]).rpartition(" ")[2]  # "train -> test": asked are those of the test part
    for source in sources:
        told.add(not_seen(source, store, asked, rows=queries))
    return told


def class_column(store: Store, target: str, classes: list[str] | None) -> Labels:
    """The label column, one class a scan, narrowed to ``classes``."""
    column = store.catalog.labels(target)
    if column.kind != "class":
        raise ScanlearnError(f"The column {target!r} holds a {column.kind}; few-shot episodes need one class a scan.")
    return only_classes(column, classes) if classes else column


def _fits(drawn: Episodes, target: str, shots: Sequence[int], file: str) -> None:
    if drawn.target != target:
        raise ScanlearnError(f"{file} has episodes of {drawn.target!r}, and --target asks for {target!r}.")
    if not shots or min(shots) < 1 or max(shots) > drawn.most_shots:
        raise ScanlearnError(f"{file} has episodes of 1 to {drawn.most_shots} shots: ask for these.")


def _facts(
    drawn: Episodes, store: Store, sources: list[str], shots: Sequence[int], bootstrap: int, seed: int
) -> dict[str, Any]:
    queries = (drawn.query >= 0).sum(2)
    short = int((queries < drawn.settings["queries"]).any(axis=1).sum())
    if short:
        warn(f"{short} of {len(drawn)} episodes have a class with fewer than {drawn.settings['queries']} queries.")
    return {
        "store": store.info["key"],
        "target": drawn.target,
        "classes": drawn.names,
        "positive": "the last class of each episode" if drawn.ways == 2 else None,
        "ways": drawn.ways,
        "shots": list(shots),
        "episodes": len(drawn),
        "episodes_short_of_queries": short,
        "patients": len(np.unique(groups_of(store)[drawn.rows()])),
        "scans": len(drawn.rows()),
        "sources": sources,
        "settings": drawn.settings,
        "bootstrap": {
            "resamples": bootstrap,
            "unit": "patient of the queries",
            "patients": len(np.unique(groups_of(store)[drawn.query[drawn.query >= 0]])),
            "level": 0.95,
            "seed": seed,
        },
    }


def _compare(
    drawn: Episodes,
    store: Store,
    named: dict[str, str],
    shots: Sequence[int],
    classifiers: Sequence[str],
    bootstrap: int,
    seed: int,
    tuned: dict[str, int],
) -> dict[str, Any]:
    rows = drawn.rows()
    asked = np.unique(drawn.query[drawn.query >= 0])
    resamples = PatientBootstrap(groups_of(store)[asked], bootstrap, seed)
    number = np.zeros(len(store), np.int64)
    number[asked] = resamples.index
    query = drawn.query.reshape(len(drawn), -1)
    truth = np.where(query >= 0, np.repeat(np.arange(drawn.ways), drawn.query.shape[2]), -1)
    sources = list(named)
    results: dict[str, Any] = {source: {} for source in sources}
    differences: dict[str, Any] = {source: {} for source in sources[1:]}
    first: dict[tuple[str, int], np.ndarray] = {}
    for source in sources:
        answers = _Answers(drawn, query, store, named[source], named[sources[0]], seed, tuned)
        say(f"Features of {len(rows)} scans: {source}")
        for name, k in product(classifiers, shots):
            if name in PARTS and named[source] == PIXELS:
                continue  # there is nothing to train
            logits = answers.features(name, k) if name in CLASSIFIERS else answers.finetuned(name, k)
            values, means, silent = judge(logits, truth[: len(logits)], number[query[: len(logits)]], resamples)
            told: dict[str, Any] = {**summary(values, means), "episodes_never_positive": silent}
            told["pooled_auc"] = pooled_auc(logits, truth[: len(logits)])
            results[source].setdefault(name, {})[str(k)] = told
            ours = first.setdefault((name, k), means)
            if source != sources[0]:
                differences[source].setdefault(name, {})[str(k)] = {
                    figure: estimate((ours - means)[:, FIGURES.index(figure)]) for figure in ("accuracy", "auc")
                }
    return {"results": results, "differences": differences}


class _Answers:
    """Logits (E, Q, W) of one source; features are computed once, networks for fine-tuning are kept as they were."""

    def __init__(
        self,
        drawn: Episodes,
        query: np.ndarray,
        store: Store,
        source: str,
        like: str,
        seed: int,
        tuned: dict[str, int],
    ):
        self.drawn, self.query, self.store, self.tuned = drawn, query, store, tuned
        self.where = (source, like, seed)
        self._features: np.ndarray | None = None

    def features(self, name: str, k: int) -> np.ndarray:
        """By a classifier on frozen features, of all episodes."""
        rows = self.drawn.rows()
        if self._features is None:
            source, like, seed = self.where
            self._features = features_from(source, like, self.store, rows, seed)
            if not np.isfinite(self._features).all():
                raise ScanlearnError(f"{source} gives features that are no numbers: the network has diverged.")
        at = np.full(len(self.store), -1, np.int64)
        at[rows] = np.arange(len(rows))
        return _logits(name, self._features, at[self.drawn.support[:, :, :k]], at[self.query])

    def finetuned(self, name: str, k: int) -> np.ndarray:
        """By a network trained on each support, of the first episodes."""
        source, like, seed = self.where
        first = slice(0, self.tuned["episodes"])
        network, size = network_from(source, like, seed), size_of(source, like, self.store)
        tuner = EpisodeFinetuner(network, self.store, size, part=PARTS[name], steps=self.tuned["steps"])
        return tuner.logits(self.drawn.support[first, :, :k], self.query[first])


def _logits(name: str, features: np.ndarray, support: np.ndarray, query: np.ndarray) -> np.ndarray:
    """float64 (E, Q, W) of the classifier, episodes taken together as far as memory allows."""
    size = (support[0].size + query[0].size) * features.shape[1]
    step = max(1, CHUNK // size)
    parts = [
        CLASSIFIERS[name](
            features[support[i : i + step]].astype(np.float64), features[query[i : i + step]].astype(np.float64)
        )
        for i in range(0, len(support), step)
    ]
    return np.concatenate(parts)


def fewshot_table(results: dict[str, Any], figure: str = "accuracy") -> str:
    """One line for each source and classifier: the figure at each number of shots with its patient interval."""
    shots = [str(k) for k in results["shots"]]
    lines = [f"{figure} of {results['episodes']} episodes, {results['ways']} ways (95 % interval over patients)"]
    lines.append(f"{'':38}" + "".join(f"{k + (' shot' if k == '1' else ' shots'):>22}" for k in shots))
    for source, classifiers in results["results"].items():
        label = source if len(source) <= 24 else "…" + source[-23:]
        for name, by_shots in classifiers.items():
            cells = []
            for k in shots:
                found = by_shots[k][figure]
                low, high = (found["patient_interval"][end] for end in ("low", "high"))
                interval = "no interval" if math.isnan(low) else f"{low:.3f}–{high:.3f}"
                cells.append("not defined" if math.isnan(found["mean"]) else f"{found['mean']:.3f} ({interval})")
            lines.append(f"{label:25}{name:13}" + "".join(f"{cell:>22}" for cell in cells))
    if results["bootstrap"]["patients"] < 2:
        lines.append(f"All queries are of {ONE_PATIENT}.")
    return "\n".join(lines)
