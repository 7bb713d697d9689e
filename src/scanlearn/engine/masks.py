"""What learning from masks asks of a recipe and of a run, in pre-training as in fine-tuning: classes and regions by the
names of the data set, a decoder with room for them, and which scans' masks may be seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scanlearn.catalog.labels import Labels
from scanlearn.catalog.splits import pick_labelled
from scanlearn.engine.beside import NATURAL, with_unlabelled
from scanlearn.engine.recipe import Recipe, parse_recipe
from scanlearn.errors import ScanlearnError, unknown
from scanlearn.objectives.regions import named_regions
from scanlearn.scans.store import Store

LEARN_FROM_MASKS = ("segment", "boundary")
DRAW_CLASSES = ("segment", "consistency")
DRAW_IMAGES = ("restore", "adversary")


def mask_labels(store: Store) -> Labels:
    """Which scans have a mask."""
    if not store.has_masks:
        raise ScanlearnError(f"{store.path.name} holds no masks: prepare it from a source with a mask column.")
    return Labels("mask", [], np.asarray(store.masked))


def drawn_classes(store: Store) -> list[str]:
    """What a segmentation tells apart, background first."""
    return ["background", *store.mask_classes]


def learns_from_masks(recipe: Recipe) -> bool:
    """Whether an objective of the recipe does."""
    return any(name in recipe.objectives for name in LEARN_FROM_MASKS)


def default_decoder(encoder: str) -> str:
    """What draws after an encoder that comes without a decoder."""
    return encoder if encoder in ("unet", "segres") else "unet_blocks"


def fill_in_classes(data: dict[str, Any], store: Store) -> None:
    """Write classes, regions, views and the decoder's channels into a recipe (plain data) that learns from masks.

    Doing it twice changes nothing. Raises ScanlearnError for regions, or sizes of regions, that the masks do not have.
    """
    objectives, network = data["objectives"], data["network"]
    outputs = drawn_classes(store)
    said = next((objectives[name].get("regions") for name in LEARN_FROM_MASKS if name in objectives), None)
    regions = None if said is None else named_regions(said, outputs[1:], store.info["mask_values"])
    drawn = list(regions or outputs[1:])
    for name in (data.get("segmentation") or {}).get("smallest") or {}:
        if name not in drawn:
            raise unknown("class or region", name, drawn)
    for name in LEARN_FROM_MASKS:
        if name in objectives:
            objectives[name] |= {"classes": len(outputs) if regions is None else outputs, "regions": regions}
            objectives[name] |= seen_view(objectives[name], list(data["views"]))
    if "consistency" in objectives:
        objectives["consistency"] |= {"regions": regions and len(regions)}
    if "variational" in objectives:
        objectives["variational"] |= {"size": data["size"]}
    decoder = network.get("decoder") or default_decoder(network["encoder"]["name"])
    settings = {"name": decoder} if isinstance(decoder, str) else dict(decoder)
    if settings["name"] == "segres_boundary":
        settings["boundary_channels"] = 2 * len(drawn)
    classes = 2 * len(drawn) if regions else len(outputs)
    network["decoder"] = {**settings, **channels(data, settings, classes)}


def seen_view(objective: dict[str, Any], views: list[str]) -> dict[str, Any]:
    """Its view, the recipe's first unless it says one, and the mask that moved with that view."""
    view = objective.get("view") or ("image" if "image" in views else views[0])
    mask = objective.get("mask") or "mask"
    return {"view": view, "mask": f"{view}.mask" if mask == "mask" and view in views[1:] else mask}


def channels(data: dict[str, Any], decoder: dict[str, Any], classes: int) -> dict[str, Any]:
    """How many channels the decoder draws: of classes, of an image that is restored as well, or of both."""
    draws_classes = any(name in data["objectives"] for name in DRAW_CLASSES)
    draws_images = any(name in data["objectives"] for name in DRAW_IMAGES)
    images = decoder.get("image_channels") or data.get("channels") or 1
    if not draws_images or not draws_classes:
        return {"out_channels": images if draws_images else classes, "image_channels": None}
    return {"out_channels": images + classes, "image_channels": images}


def joined(recipe: Recipe, store: Store) -> Recipe:
    """A pre-training recipe with an objective that learns from masks, filled in by the masks of the store."""
    mask_labels(store)
    data = recipe.to_dict()
    fill_in_classes(data, store)
    return parse_recipe(data)


def taught_by_masks(
    store: Store, recipe: Recipe, labels: int | str, seed: int, rows: np.ndarray, walked: str | None
) -> tuple[dict[str, Any], np.ndarray]:
    """(fields of ``Training`` for a pre-training with masks, the rows whose masks it sees).

    These are picked as fine-tuning picks them, from all of the train part, so equal ``labels`` and ``seed`` mean the same
    scans. Unless the recipe says otherwise, all other scans of ``rows`` come as they would without masks.

    Args:
        rows: what is walked over, rows of the train part.
        walked: what settles how often each comes (words, episodes, sampling), if anything does.
    """
    picked = pick_labelled(store.catalog, np.asarray(store.splits["train"]), mask_labels(store), labels, seed)
    if recipe.segmentation.unlabelled not in (None, NATURAL):
        if walked is not None:
            raise ScanlearnError(
                f"With {walked}, labelled and unlabelled scans come as they are: leave segmentation.unlabelled out."
            )
        return {"masks": True, **with_unlabelled(store, recipe, picked)}, picked
    picked = np.intersect1d(picked, rows)
    if not len(picked):
        raise ScanlearnError(f"None of the labelled scans is among those that {walked} walk over: give more --labels.")
    labelled = np.zeros(len(store), bool)
    labelled[picked] = True
    return {"masks": True, "labelled": labelled, "rows": rows}, picked
