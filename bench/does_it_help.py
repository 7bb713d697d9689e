"""Does pre-training help? A pre-trained network against its from-scratch twin at equal budget, over several seeds.

    python bench/does_it_help.py CASE --data FOLDER --out FOLDER [--seeds 5]

CASE is one of CASES below: public data sets brought to a store of their own, one pre-training without the test
patients, then every (method, label count, seed) fine-tuned with the same recipe, labels and steps and tested once on
the same held-out patients. Finished cells are not run again. Results go to OUT/CASE.json; the committed copies in
docs/results come from this script.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.engine.device import environment, start_fabric
from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.run_folder import write_json
from scanlearn.scans.prepare import prepare
from scanlearn.scans.store import Store
from scanlearn.tasks.compare import paired_comparison
from scanlearn.tasks.finetune import finetune

# How a pre-trained network is fine-tuned: everything, only a classifier on frozen features, or everything with the
# encoder at a tenth of the learning rate (a network from scratch has nothing to protect), or everything with a fresh
# decoder.
SETTINGS = {
    "full": {},
    "frozen": {},
    "gentle": {"optimizer.encoder_lr_scale": 0.1},
    "encoder": {"network.transfer": "encoder"},
}

CASES: dict[str, dict[str, Any]] = {
    "bacteria_virus": {
        "source": "cxr_kermany",
        "credit": "Kermany et al., Mendeley Data 10.17632/rscbjbr9sj, CC BY 4.0",
        "prepare": {"size": (96, 96), "target": "label"},
        "recipe": "moco_v2_small",
        "pretrain": {"steps": 1600, "log_every": 50},
        "finetune": {"task": "classify", "target": "label", "classes": ["bacteria", "virus"]},
        "settings": {"steps": 300},
        "labels": [100],
        "modes": ["full", "frozen", "gentle"],
        "figure": "auroc",
    },
    "nodule": {
        "source": "ct_nodule_patches/patches.npz",
        "credit": "LUNA16 / LIDC-IDRI, CC BY",
        "prepare": {"target": "nodule"},
        "recipe": "moco_v2_patches_small",
        "pretrain": {"steps": 5000, "log_every": 50},
        "finetune": {"task": "classify", "target": "nodule", "classes": ["0", "1"]},
        "settings": {
            "steps": 300,
            "views.image.ops": [
                {"random_resized_crop": {"size": 32, "scale": [0.6, 1.0]}},
                "quarter_turns",
                {"brightness_contrast": {"brightness": 0.2, "contrast": 0.2, "p": 0.8}},
            ],
        },
        "labels": [100],
        "modes": ["full", "frozen", "gentle"],
        "figure": "auroc",
    },
    "hippocampus": {
        "source": "mri_hippocampus",
        "credit": "Medical Segmentation Decathlon Task04, CC BY-SA 4.0",
        "prepare": {},
        "recipe": "models_genesis_3d_small",
        "pretrain": {"steps": 500, "size": [32, 48, 32]},
        "finetune": {"task": "segment"},
        "settings": {"steps": 150, "batch_size": 6, "size": [32, 48, 32], "optimizer.lr": 0.003},
        "labels": [5, 20],
        "modes": ["full", "encoder"],
        "figure": "dice",
    },
}


def cells(case: dict[str, Any], seeds: int) -> list[tuple[str, str, int, int]]:
    """(method, mode, label count, seed), so that an early stop leaves pairs."""
    out = []
    for count in case["labels"]:
        for seed in range(seeds):
            out.append(("scratch", "full", count, seed))
            out += [("pretrained", mode, count, seed) for mode in case["modes"]]
    return out


def run_cell(store: Store, case: dict[str, Any], folder: Path, cell: tuple[str, str, int, int]) -> dict[str, Any]:
    """Fine-tune and test one cell, or read what it gave before."""
    method, mode, count, seed = cell
    out = folder / f"{method}-{mode}-{count}-seed{seed}"
    if not (out / "results.json").exists():
        options = dict(case["finetune"])
        finetune(
            store,
            options.pop("task"),
            init="none" if method == "scratch" else folder / "pretrained",
            like=folder / "pretrained",
            out=out,
            labels=count,
            mode="frozen" if mode == "frozen" else "full",
            seed=seed,
            resume=(out / "recipe.yaml").exists() and mode != "frozen",
            settings={**case["settings"], **SETTINGS[mode]},
            **options,
        )
    test = json.loads((out / "results.json").read_text())["test"]
    return {"method": method, "mode": mode, "labels": count, "seed": seed, **test["macro"][case["figure"]]}


def summary(case: dict[str, Any], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each label count and mode: means over seeds, and the paired difference to the twin."""

    def values(method: str, mode: str, count: int) -> dict[int, float]:
        return {r["seed"]: r["value"] for r in found if (r["method"], r["mode"], r["labels"]) == (method, mode, count)}

    rows = []
    for count in case["labels"]:
        scratch = values("scratch", "full", count)
        for mode in case["modes"]:
            warm = values("pretrained", mode, count)
            both = sorted(scratch.keys() & warm.keys())
            if not both:
                continue
            compared = paired_comparison(np.array([warm[s] for s in both]), np.array([scratch[s] for s in both]))
            rows.append({"labels": count, "mode": mode, "seeds": len(both), **compared})
    return rows


def run_case(name: str, data: Path, out: Path, seeds: int) -> Path:
    """Prepare, pre-train and run all cells of a case; rewrites OUT/CASE.json after each."""
    case, folder = CASES[name], out / name
    store = prepare(data / case["source"], folder / "store", **case["prepare"])
    run = folder / "pretrained"
    if not (run / "encoder" / "encoder.json").exists() or not finished(run):
        resume = (run / "recipe.yaml").exists()
        if pretrain(store, case["recipe"], run, settings=case["pretrain"], resume=resume).stopped:
            raise SystemExit("stopped by a signal; the same command goes on from here")
    found: list[dict[str, Any]] = []
    facts = {
        "case": name,
        "command": f"python bench/does_it_help.py {name} --data FOLDER --out FOLDER --seeds {seeds}",
        "date": time.strftime("%Y-%m-%d"),
        "credit": case["credit"],
        "machine": environment(start_fabric()),
        **{key: case[key] for key in ("source", "recipe", "pretrain", "finetune", "settings", "figure")},
        "scans": {part: len(rows) for part, rows in store.splits.items()},
        "patients": {part: len(np.unique(store.catalog.patients[rows])) for part, rows in store.splits.items()},
    }
    path = out / f"{name}.json"
    for cell in cells(case, seeds):
        found.append(run_cell(store, case, folder, cell))
        write_json(path, {**facts, "summary": summary(case, found), "cells": found})
    return path


def finished(run: Path) -> bool:
    """True where the pre-training ran to its last step."""
    return bool(json.loads((run / "encoder" / "encoder.json").read_text())["notes"].get("finished"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    print(run_case(options.case, options.data, options.out, options.seeds).read_text())
