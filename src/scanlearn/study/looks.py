"""Looking at a run through its store: what the network was shown, what it restores, which scans it finds alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scanlearn.console import warn
from scanlearn.engine.device import default_device
from scanlearn.engine.embedding import embed_scans, grid_boxes, scan_batches
from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import Network
from scanlearn.randomness import Draws
from scanlearn.scans.intensity import to_unit
from scanlearn.scans.loader import Loader
from scanlearn.scans.store import Store
from scanlearn.scans.words import open_words
from scanlearn.study.facts import Facts
from scanlearn.study.page import Strip, percent
from scanlearn.study.pictures import flat, ratio_of, scan_tiles, tile
from scanlearn.study.restoration import in_words, ready_network, restored_images
from scanlearn.views.graph import ViewGraph, is_image

SCANS = 4  # shown with their views
MOST, FEWEST = 400, 12  # scans embedded for neighbours and map
SECONDS = 8.0  # spent on embedding at most, as measured on one batch
BATCH = 8  # items in one forward pass
QUERIES, NEIGHBOURS = 6, 5
AT_LEAST = 3  # patients that each class of a shown label column must have: rarer ones could name a person


@dataclass(frozen=True)
class Shown:
    """The first scans of the first step: image (n, C, *S) in [0, 1] as read, the views made from it, store rows."""

    image: Tensor
    views: dict[str, Tensor]
    rows: np.ndarray


def first_views(facts: Facts, store: Store, scans: int = SCANS) -> Shown:
    """What the network saw in its very first step: same scans, same patches, same random numbers."""
    recipe, seed = facts.recipe, facts.environment.get("seed", 0)
    record, part = facts.record, facts.trained
    if record is None or part is None or record.store != store.info["key"]:
        raise ScanlearnError(f"{facts.name} was not trained on this store: give the one that it was made from.")
    rows, patches = record.rows(part), None
    if recipe.get("patches") == "words":
        patches = open_words(facts.run.words, store).patches()
        rows = patches.rows
    size = tuple(recipe["size"]) if recipe.get("size") else None
    # Sample t of the walk is at position t of step 0 whatever the batch size: few are the head of the real batch.
    count = min(scans, recipe["batch_size"])
    loader = Loader(store, rows, batch_size=count, size=size, seed=seed, stop=1, patches=patches)
    batch = next(iter(loader))
    image = to_unit(batch["image"], batch["low"], batch["high"])
    draws = Draws.for_step(seed, 0, batch["position"])
    with torch.no_grad():
        views = ViewGraph(recipe["views"])(image, draws)
    return Shown(image, {name: view for name, view in views.items() if is_image(name)}, batch["row"].numpy())


def view_strips(facts: Facts, store: Store, network: Network | None) -> tuple[list[Strip], str]:
    """For each of a few scans: the scan as read, each view of it and, for restoring recipes, what each stage restored.

    Returns the strips and a sentence with error and sharpness of the restoration ("" where there is none).
    """
    shown = first_views(facts, store)
    columns = {"original": shown.image, **shown.views}
    images = {} if network is None else restored_images(facts, network, shown.views)
    words = in_words(images, shown.views, facts.recipe["objectives"]["restore"]) if images else ""
    columns |= images
    strips = []
    for i, row in enumerate(shown.rows):
        affine = store.affine(int(row)) if store.spatial_dims == 3 else None
        ratio = ratio_of(store, int(row))
        pictures = [
            tile(
                flat(column[i].numpy(), store.spatial_dims, affine),
                f"Scan {i + 1}, {_kind(name)}",
                caption=name,
                mark="query" if name in images else "",
                ratio=ratio,
            )
            for name, column in columns.items()
        ]
        strips.append(Strip(f"Scan {i + 1}", pictures, columns=len(pictures)))
    return strips, words


def _kind(name: str) -> str:
    return {"original": "as it was read", "restored": "as the trained network restores it"}.get(
        name, f"as it is {name}" if name.startswith("restored ") else f"view {name}"
    )


def trained_network(facts: Facts) -> Network:
    """The exported network of a run, ready to look with."""
    return ready_network(facts.run.path)


# ---------------------------------------------------------------- features


@dataclass(frozen=True)
class Sample:
    """Some scans of a store with their unit-length features (n, d), and the words that they are coloured by."""

    rows: np.ndarray
    features: np.ndarray
    groups: list[str]  # label or part, "" where not known
    what: str  # the column that the groups come from; "part" for train, val, test
    patients: np.ndarray


def embed_sample(facts: Facts, store: Store, network: Network, target: str | None) -> Sample | None:
    """Features of up to 400 scans drawn from the whole store; None where even 12 would take too long.

    How many is decided by the time that one batch takes, so that a page stays a matter of seconds.
    """
    size = tuple(facts.notes.get("input_size") or store.shape(0))
    order = np.random.default_rng(0).permutation(len(store))
    patches = 1 if store.spatial_dims == 2 else len(grid_boxes(store.shapes(order[:64]).max(0).tolist(), size))
    seconds = _seconds_per_item(network, store, order[:BATCH], size) * patches
    scans = min(MOST, len(store), int(SECONDS / max(seconds, 1e-6)))
    if scans < min(FEWEST, len(store)):
        return None
    rows = np.sort(order[:scans])
    features = embed_scans(network.pooled, store, rows, size=size, device=default_device(), batch_size=BATCH)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    column = target or label_column(store)
    return Sample(
        rows,
        features / np.maximum(lengths, 1e-12),
        groups_of(store, column)[rows].tolist(),
        column or "part",
        store.catalog.patients[rows],
    )


@torch.no_grad()
def _seconds_per_item(network: Network, store: Store, rows: np.ndarray, size: tuple[int, ...]) -> float:
    _, images = next(scan_batches(store, rows, size, default_device(), BATCH))
    spent = []
    for _ in range(2):  # the first pass also sets things up
        begun = time.perf_counter()
        network.pooled(images).cpu()
        spent.append(time.perf_counter() - begun)
    return min(spent) / len(images)


def label_column(store: Store) -> str | None:
    """The first label column that may be shown: 2 to 12 classes, each seen in three patients at least."""
    for name in store.catalog.label_columns:
        labels = store.catalog.labels(name)
        if labels.kind != "class" or not 2 <= len(labels.classes) <= 12:
            continue
        seen = [store.catalog.count_patients(labels.codes == code) for code in range(len(labels.classes))]
        if min(seen) >= AT_LEAST:
            return name
    return None


def groups_of(store: Store, column: str | None) -> np.ndarray:
    """str (N,): the label of each scan in a column ("" where missing), or the part that it is in."""
    groups = np.full(len(store), "", dtype=object)
    if column is None:
        for part, rows in store.splits.items():
            groups[rows] = part
        return groups
    labels = store.catalog.labels(column)
    if labels.kind == "class":
        groups[labels.codes >= 0] = np.array(labels.classes, dtype=object)[labels.codes[labels.codes >= 0]]
    else:
        rows, classes = labels.shown()
        for row, code in zip(rows, classes, strict=True):
            groups[row] = ", ".join(filter(None, (groups[row], labels.classes[code])))
    return groups


def nearest(sample: Sample, count: int = NEIGHBOURS) -> tuple[np.ndarray, np.ndarray]:
    """(index, cosine), both (n, count): the nearest scans of other patients; index -1 where there are not as many."""
    cosine = sample.features @ sample.features.T
    _, patient = np.unique(sample.patients, return_inverse=True)
    cosine[patient[:, None] == patient] = -np.inf
    index = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
    value = np.take_along_axis(cosine, index, axis=1)
    return np.where(np.isfinite(value), index, -1), value


def neighbour_strips(store: Store, sample: Sample) -> tuple[list[Strip], str]:
    """A few scans, each with its five nearest of other patients, and a sentence on how often labels agree."""
    index, cosine = nearest(sample)
    labelled = sample.what != "part"
    strips = []
    for i, query in enumerate(queries(sample)):
        found = [j for j in index[query] if j >= 0]
        if not found:
            continue
        label = sample.groups[query] if labelled else ""
        captions = [f"query: {label}" if label else "query"]
        alts = [f"Query scan {i + 1}" + (f", {label}" if label else "")]
        marks = ["query"]
        for rank, (j, value) in enumerate(zip(found, cosine[query], strict=False), 1):
            other = sample.groups[j] if labelled else ""
            captions.append(f"{value:.2f} {other}".strip())
            alts.append(f"Neighbour {rank} of query {i + 1}, cosine {value:.2f}" + (f", {other}" if other else ""))
            marks.append("" if not (label and other) else "same" if label == other else "other")
        pictures = scan_tiles(store, sample.rows[[query, *found]], alts, captions, marks)
        strips.append(Strip(f"Query {i + 1}", pictures, columns=1 + NEIGHBOURS))
    return strips, _agreement(sample, index) if labelled else ""


def queries(sample: Sample, count: int = QUERIES) -> list[int]:
    """Scans to ask for: the groups in turn, in each the first ones of the random sample, no patient twice."""
    order = np.random.default_rng(1).permutation(len(sample.rows))
    waiting: dict[str, list[int]] = {}
    for i in order:
        waiting.setdefault(sample.groups[i], []).append(int(i))
    waiting = {group: waiting[group] for group in sorted(waiting)}
    chosen: list[int] = []
    seen: set[str] = set()
    while any(waiting.values()) and len(chosen) < count:
        for line in waiting.values():
            while line and str(sample.patients[line[0]]) in seen:
                line.pop(0)
            if line and len(chosen) < count:
                seen.add(str(sample.patients[line[0]]))
                chosen.append(line.pop(0))
    return chosen


def _agreement(sample: Sample, index: np.ndarray) -> str:
    groups = np.array(sample.groups, dtype=object)
    pairs = (index >= 0) & (groups[index] != "") & (groups != "")[:, None]
    if not pairs.any():
        return ""
    share = float((groups[index] == groups[:, None])[pairs].mean())
    known = groups[groups != ""]
    _, counts = np.unique(known.astype(str), return_counts=True)
    chance = float(((counts / counts.sum()) ** 2).sum())
    return (
        f"Among {len(known)} scans with a label, {percent(share)} of the five nearest carry the label of their query; "
        f"by chance it would be {percent(chance)}."
    )


def principal_map(features: Sequence[Any] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(points (n, 2), share of the variance (2,)): features (n, d) seen along their two widest directions.

    Scans whose features are not finite (a run that diverged) are left out, which is said: their points are NaN.
    """
    x = np.asarray(features, np.float64)
    finite = np.asarray(np.isfinite(x).all(axis=1))
    if not finite.all():
        warn(f"the features of {(~finite).sum()} of {len(x)} scans are not finite: they are left out of the map.")
    x = x[finite] - x[finite].mean(axis=0) if finite.any() else np.zeros((0, x.shape[1]))
    left, singular, _ = np.linalg.svd(x, full_matrices=False)
    singular = np.pad(singular, (0, max(2 - len(singular), 0)))
    left = np.pad(left, ((0, 0), (0, max(2 - left.shape[1], 0))))
    total = float((singular**2).sum())
    points = np.full((len(finite), 2), np.nan)
    points[finite] = left[:, :2] * singular[:2]
    return points, singular[:2] ** 2 / total if total > 0 else np.zeros(2)
