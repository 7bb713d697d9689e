"""The demo: a real brain, cut into cubes. Pre-train without labels, fine-tune with four labelled cubes, compare.

The scan is the ICBM 152 template that nilearn carries (one average of 152 brains, T1, 1 mm, with maps of grey and
white matter). One averaged brain shows the way of working; it says nothing about generalisation, and the page says so.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from scanlearn.console import say
from scanlearn.engine.pretrain import pretrain
from scanlearn.errors import ScanlearnError
from scanlearn.files import read_json, write_json
from scanlearn.scans.prepare import prepare
from scanlearn.scans.store import Store
from scanlearn.study.comparison import write_comparison
from scanlearn.study.report import report
from scanlearn.tasks.compare import paired_comparison
from scanlearn.tasks.finetune import finetune

SIDE = 35  # voxels of a cube, 1 mm each
PARTS = ("train", "train", "train", "test", "val")  # of the five slabs from back to front
LABELLED = 4  # cubes with labels
PRETRAIN = {"size": [32, 32, 32], "steps": 400, "batch_size": 8, "log_every": 10}
FINETUNE = {"size": [32, 32, 32], "steps": 80, "batch_size": 8, "log_every": 10, "optimizer.lr": 0.003}


def template_maps() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(T1 (X, Y, Z) float32, classes uint8 with 1 = grey and 2 = white matter, affine) of the template."""
    try:
        from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template
    except ImportError as error:
        raise ScanlearnError("The demo needs nilearn for its brain: pip install 'scanlearn[demo]'.") from error
    t1, grey, white = (
        f(resolution=1) for f in (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    )
    share = np.stack([np.full(t1.shape, 0.5), grey.get_fdata(), white.get_fdata()])
    return t1.get_fdata(dtype=np.float32), share.argmax(axis=0).astype(np.uint8), t1.affine


def tissue_along_axes(classes: np.ndarray) -> list[np.ndarray]:
    """For each axis, bool (n,): which planes hold tissue."""
    return [np.any(np.moveaxis(classes > 0, axis, 0).reshape(classes.shape[axis], -1), axis=1) for axis in range(3)]


def cut_cubes(folder: Path) -> Path:
    """Write the template as NIfTI cubes with masks and the table that lists them; returns the table.

    The template is symmetric, so its halves would leak into each other: the parts lie one behind the other, the back
    of the brain for training, the front for the test and for validation. Cubes do not overlap.
    """
    image, classes, affine = template_maps()
    box = [(int(np.flatnonzero(line)[0]), int(np.flatnonzero(line)[-1]) + 1) for line in tissue_along_axes(classes)]
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    rows: list[dict[str, Any]] = []
    starts = [np.linspace(a, b - SIDE, (b - a) // SIDE).round().astype(int) for a, b in box]
    for i, x in enumerate(starts[0]):
        for j, y in enumerate(starts[1]):
            for k, z in enumerate(starts[2]):
                part = tuple(slice(a, a + SIDE) for a in (x, y, z))
                if (classes[part] > 0).mean() < 0.2:
                    continue
                moved = affine.copy()
                moved[:3, 3] = affine[:3] @ [x, y, z, 1]
                name = f"cube_{i}{j}{k}.nii.gz"
                nib.save(nib.Nifti1Image(image[part], moved), folder / "images" / name)
                nib.save(nib.Nifti1Image(classes[part], moved), folder / "masks" / name)
                rows.append(
                    {"image": f"images/{name}", "mask": f"masks/{name}", "patient": f"cube{i}{j}{k}", "split": PARTS[j]}
                )
    table = folder / "cubes.csv"
    pacsv.write_csv(pa.Table.from_pylist(rows), table)
    return table


def demo(out: str | Path, seeds: int = 3) -> Path:
    """Run the whole demo into ``out`` and return its page. What is already done is not done again.

    Args:
        out: folder to write: cubes, store, runs and report.html.
        seeds: repetitions of each fine-tuning (choice of labelled cubes, new weights, order).
    """
    out, begun = Path(out), time.monotonic()
    table = out / "cubes" / "cubes.csv"
    if not table.exists():
        say("Cutting the ICBM 152 template (nilearn) into cubes.")
        cut_cubes(out / "cubes")
    store = prepare(table, out / "store")
    run = out / "pretrained"
    if not (run / "report.html").exists():
        resume = (run / "recipe.yaml").exists()
        pretrain(store, "models_genesis_3d_small", run, resume=resume, settings=PRETRAIN)
        report(run, out / "store")
    results = [fine_tune(store, out, name, seed) for seed in range(seeds) for name in ("scratch", "pretrained")]
    facts = summary(results, seeds, store)
    write_json(out / "demo.json", facts)
    page = write_comparison(out, facts, store, minutes=(time.monotonic() - begun) / 60)
    say(f"Demo finished in {(time.monotonic() - begun) / 60:.1f} minutes.")
    return page


def fine_tune(store: Store, out: Path, name: str, seed: int) -> dict[str, Any]:
    """One fine-tuning with few labelled cubes; returns its results."""
    folder = out / f"{name}-seed{seed}"
    if not (folder / "results.json").exists():
        init = "none" if name == "scratch" else str(out / "pretrained")
        finetune(
            store,
            "segment",
            init=init,
            like=out / "pretrained",
            out=folder,
            labels=LABELLED,
            seed=seed,
            resume=(folder / "recipe.yaml").exists(),
            settings=FINETUNE,
        )
    if not (folder / "report.html").exists():
        report(folder, store.path)
    return {"method": name, "seed": seed, "folder": folder.name, **read_json(folder / "results.json", "The results")}


def summary(results: list[dict[str, Any]], seeds: int, store: Store) -> dict[str, Any]:
    """Dice of both methods by seed, and the paired difference over seeds."""
    by_method = {
        name: [r["test"]["macro"]["dice"]["value"] for r in results if r["method"] == name]
        for name in ("scratch", "pretrained")
    }
    return {
        "dice": by_method,
        "comparison": paired_comparison(*(np.array(by_method[m], np.float64) for m in ("pretrained", "scratch"))),
        "seeds": seeds,
        "labelled": LABELLED,
        "classes": ["grey matter", "white matter"],
        "test_cubes": len(store.splits["test"]),
        "training_cubes": len(store.splits["train"]),
        "pretraining_steps": PRETRAIN["steps"],
        "finetuning_steps": FINETUNE["steps"],
        "runs": [{"method": r["method"], "seed": r["seed"], "folder": r["folder"]} for r in results],
    }
