"""Small stores and recipes for tests of whole runs, and a training that can be killed."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scanlearn.engine.learner import Learner
from scanlearn.engine.recipe import Recipe, parse_recipe
from scanlearn.engine.train import Result, Training, train
from scanlearn.scans.prepare import prepare
from scanlearn.scans.store import Store, open_store

VIEWS = {
    "query": {"ops": [{"random_resized_crop": {"size": 16, "scale": [0.5, 1.0]}}, {"flip": {"p": 0.5}}]},
    "key": {"like": "query"},
}
GENESIS = {
    "clean": {"ops": [{"flip": {"mode": "genesis", "p": 0.4}}]},
    "distorted": {
        "source": "clean",
        "ops": [
            {"local_shuffle": {"windows": "density", "p": 0.5}},
            {"intensity_curve": {"p": 0.9}},
            {"one_of": {"ops": ["in_paint", "out_paint"], "weights": [0.2, 0.8], "p": 0.9}},
        ],
    },
}

# Settings that make the recipe moco_v2_small quick.
SMALL_MOCO: dict[str, Any] = {
    "network.encoder": {"name": "unet", "width": 2},
    "views.query.ops": [{"random_resized_crop": {"size": 16}}],
    "steps": 2,
    "batch_size": 8,
    "objectives.momentum_contrast.queue_size": 16,
    "monitor.every": -1,
}


def image_store(folder: Path, count: int = 24, size: int = 24) -> Store:
    """2D scans of two classes, three scans for each patient."""
    rng = np.random.default_rng(0)
    label = np.arange(count) // 3 % 2
    image = rng.random((count, size, size)) * 120 + label[:, None, None] * 60
    file = folder / "images.npz"
    np.savez(file, image=image.astype(np.uint8), label=label, patient=np.arange(count) // 3)
    return prepare(file, folder / "store", target="label", workers=1)


def volume_store(folder: Path, count: int = 8, size: int = 20, label: bool = False) -> Store:
    """3D scans with a bright ball as mask, one for each patient; with ``label`` every other one is of class 1."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"))
    centre = rng.uniform(7, size - 7, (count, 3, 1, 1, 1))
    mask = (((grid - centre) ** 2).sum(1) < 16).astype(np.uint8)
    image = (rng.random(mask.shape) * 100 + mask * 100).astype(np.uint8)
    file = folder / "volumes.npz"
    labels = {"label": np.arange(count) % 2} if label else {}
    np.savez(file, image=image, mask=mask, patient=np.arange(count), **labels)
    return prepare(file, folder / "store", workers=1)


def moco_recipe(**changes: Any) -> Recipe:
    data: dict[str, Any] = {
        "name": "tiny_moco",
        "views": VIEWS,
        "network": {
            "encoder": {"name": "unet", "width": 2},
            "batch_norm": "split",
            "batch_norm_groups": 2,
        },
        "objectives": {"momentum_contrast": {"queue_size": 12, "dim": 4, "momentum": 0.9}},
        "optimizer": {"name": "sgd", "lr": 0.05},
        "schedule": {"name": "cosine", "warmup_steps": 2},
        "batch_size": 8,
        "steps": 12,
        "checkpoint_every": 3,
        "log_every": 2,
        "precision": "32-true",
        "monitor": {"every": 6, "scans": 12},
    }
    return parse_recipe({**data, **changes})


def c2l_recipe(**changes: Any) -> Recipe:
    """Its queue of 20 wraps inside a push of three times eight keys; the normaliser of nce is measured at step 0."""
    settings = {"queue_size": 20, "dim": 4, "momentum": 0.9, "criterion": "nce", "enqueue": "authors"}
    return moco_recipe(**{"name": "tiny_c2l", "objectives": {"mixed_contrast": settings}, **changes})


def staged_recipe(**changes: Any) -> Recipe:
    """Stages as in DiRA: the second goes on, the third begins anew with an opponent, another batch size and rate."""
    data: dict[str, Any] = {
        "name": "tiny_staged",
        "log_every": 1,
        "network": {**dataclasses.asdict(moco_recipe().network), "decoder": {"name": "unet"}},
        "objectives": {
            "momentum_contrast": {"queue_size": 20, "dim": 4, "momentum": 0.9, "query": "query", "key": "key"},
            "restore": {"view": "query", "target": "key", "weight": 10.0},
            "adversary": {"view": "query", "target": "key", "weight": 0.5, "width": 2},
        },
        "stages": [
            {"name": "di", "steps": 2, "weights": {"restore": 0.0, "adversary": 0.0}},
            {"name": "dir", "steps": 4, "weights": {"adversary": 0.0}},
            {"name": "last", "steps": 6, "fresh": True, "batch_size": 4, "lr": 0.02, "weights": {"restore": 2.0}},
        ],
    }
    return moco_recipe(**{**data, **changes})


def staged_best_recipe(**changes: Any) -> Recipe:
    """The same, the last stage from the best weights before it."""
    stages = [*dataclasses.asdict(staged_recipe())["stages"][:2], {"steps": 6, "fresh": True, "start": "best"}]
    return staged_recipe(**{"stages": stages, "stopping": {"every": 2}, **changes})


def dira_recipe(**changes: Any) -> Recipe:
    """Two views compared, the first restored and judged: an opponent, a predictor at a constant rate, a normaliser."""
    crop = {"random_resized_crop": {"size": 16, "scale": [0.5, 1.0]}}
    views = {
        "clean": {"ops": [crop]},
        "query": {"source": "clean", "ops": [{"gaussian_blur": {"p": 1.0}}]},
        "key": {"ops": [crop]},
    }
    seen = {"view": "query", "target": "clean"}
    data: dict[str, Any] = {
        "name": "tiny_dira",
        "views": views,
        "network": {"encoder": {"name": "unet", "width": 2}, "decoder": {"name": "unet"}},
        "objectives": {
            "siamese": {"dim": 4, "bottleneck": 2},
            "restore": seen,
            "adversary": {**seen, "weight": 0.5, "width": 2, "loss": "wgan_gp", "conditional": True},
        },
        "loss_normaliser": "gradients",
        "optimizer": {"name": "sgd", "lr": 0.0001},
        # FSDP cannot shard weights that are channels_last, and in another layout sums round otherwise: little in
        # a step, but SimSiam's norms over four scans and the gradient penalty magnify it.
        "memory_format": "contiguous",
        "monitor": {"every": -1},
    }
    return moco_recipe(**{**data, **changes})


def genesis_recipe(**changes: Any) -> Recipe:
    data: dict[str, Any] = {
        "name": "tiny_genesis",
        "spatial_dims": 3,
        "size": [16, 16, 16],
        "views": GENESIS,
        "network": {"encoder": {"name": "unet", "width": 2}, "decoder": {"name": "unet"}},
        "objectives": {"restore": {}},
        "optimizer": {"name": "adam", "lr": 0.001},
        "batch_size": 4,
        "steps": 12,
        "checkpoint_every": 3,
        "log_every": 2,
        "precision": "32-true",
        "monitor": {"every": -1},
    }
    return parse_recipe({**data, **changes})


def genesis_sgd_recipe(**changes: Any) -> Recipe:
    """For comparisons: Adam magnifies the rounding noise in gradients that are nearly zero."""
    return genesis_recipe(**{"optimizer": {"name": "sgd", "lr": 0.1}, **changes})


def masks_recipe(**changes: Any) -> Recipe:
    """Restores and, of the scans whose masks it may see, segments."""
    objectives = {"restore": {}, "segment": {"weight": 0.5, "batch_dice": False}}
    return genesis_sgd_recipe(**{"objectives": objectives, **changes})


MASKS_SEEN = 3  # by the recipe above


def validated_recipe(**changes: Any) -> Recipe:
    """Validated at every second step, its rate falls twice and it ends early: best at step 6, ended at 16 of 40."""
    stopping = {"every": 2, "patience": 5, "min_delta": 0.001}
    schedule = {"name": "plateau", "gamma": 0.5, "patience": 2, "min_delta": 0.001}
    return genesis_sgd_recipe(**{"steps": 40, "stopping": stopping, "schedule": schedule, **changes})


GREY = 0.36


def distance_from_a_grey(store: Store) -> Callable[[Learner], float]:
    """How far the mean restored voxel of the validation part is from a level that training meets and passes."""
    images = np.stack([store.read([row])[0] for row in store.splits["val"]]) / 255

    def figure(learner: Learner) -> float:
        assert os.environ.get("RANK", "0") == "0" and not learner.training and not torch.is_grad_enabled()
        x = torch.from_numpy(images[:, :, 2:18, 2:18, 2:18]).float()
        return abs(float(torch.sigmoid(learner.network.restored(x)).mean()) - GREY)

    return figure


def train_validated(store: Path | str, out: Path | str, recipe: Recipe | None = None, **options: Any) -> Result:
    """Train ``validated_recipe`` or another on the training part of a store of volumes."""
    opened = open_store(store)
    training = Training(np.asarray(opened.splits["train"]))
    validate = distance_from_a_grey(opened)
    return train(recipe or validated_recipe(), opened, training, Path(out), validate=validate, **options)


RECIPES = {
    "moco": (moco_recipe, image_store),
    "c2l": (c2l_recipe, image_store),
    "dira": (dira_recipe, image_store),
    # Sums of several ranks round otherwise, and the game of network and opponent magnifies that sevenfold a step.
    "dira_short": (functools.partial(dira_recipe, steps=4), image_store),
    "staged": (staged_recipe, image_store),
    "staged_best": (staged_best_recipe, image_store),
    "genesis": (genesis_recipe, volume_store),
    "genesis_sgd": (genesis_sgd_recipe, volume_store),
    "masks": (masks_recipe, volume_store),
    "validated": (validated_recipe, volume_store),
}
