"""scanlearn: learn from scans nobody labelled.

Everything that is trained here is a network plus a weighted sum of objectives over named views. Nothing heavy is
imported until it is used: ``import scanlearn`` loads neither torch nor monai.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that defines it. Loaded on first use.
_PUBLIC = {
    "ScanlearnError": "scanlearn.errors",
    "Catalog": "scanlearn.catalog.table",
    "read_scan": "scanlearn.scans.read",
    "prepare": "scanlearn.scans.prepare",
    "open_store": "scanlearn.scans.store",
    "load_recipe": "scanlearn.engine.recipe",
    "discover": "scanlearn.discovery.discover",
    "pretrain": "scanlearn.engine.pretrain",
    "load_encoder": "scanlearn.weights.encoder",
    "probe": "scanlearn.tasks.probe",
    "fewshot": "scanlearn.tasks.fewshot.run",
    "embed": "scanlearn.tasks.embed",
    "finetune": "scanlearn.tasks.finetune",
    "predict": "scanlearn.tasks.predict",
    "report": "scanlearn.study.report",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'scanlearn' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
