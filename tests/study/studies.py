"""Studies small enough for tests: real cells by the real code in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runs import image_store, volume_store

PRETRAIN = {
    "steps": 2,
    "batch_size": 16,
    "network.encoder": {"name": "unet", "width": 2},
    "monitor.every": -1,
    "precision": "32-true",
}
MOCO = {
    **PRETRAIN,
    "views.query.ops": [{"random_resized_crop": {"size": 16}}],
    "objectives.momentum_contrast.queue_size": 16,
}
GENESIS = {**PRETRAIN, "batch_size": 2, "size": [16, 16, 16]}
FAST = {"steps": 4, "batch_size": 8, "precision": "32-true", "optimizer.lr": 0.003, "log_every": 2}


def image_study(folder: Path, **changes: Any) -> dict[str, Any]:
    """A plan on 2D scans of two classes; the store is made in ``folder`` unless it is there."""
    if not (folder / "store").exists():
        image_store(folder, count=60)
    methods = {
        "scratch": None,
        "moco": {"recipe": "moco_v2_small", "pretraining": MOCO},
        "moco_frozen": {"like": "moco", "mode": "frozen"},
    }
    words = {"store": str(folder / "store"), "task": "classify", "target": "label", "methods": methods}
    return {**words, "labels": [8, "all"], "seeds": 3, "finetuning": FAST, **changes}


def volume_study(folder: Path, **changes: Any) -> dict[str, Any]:
    """A plan on volumes with masks."""
    if not (folder / "store").exists():
        volume_store(folder, count=20, size=24)
    methods = {"scratch": None, "genesis": {"recipe": "models_genesis_3d_small", "pretraining": GENESIS}}
    words = {"store": str(folder / "store"), "task": "segment", "methods": methods, "labels": [4], "seeds": 3}
    return {**words, "finetuning": {**FAST, "batch_size": 2, "size": [16, 16, 16]}, **changes}
