"""Applying a fine-tuned run to new files: probabilities as a table, masks on each input's own grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import torch
from torch import Tensor

from scanlearn.catalog.table import Catalog
from scanlearn.console import say, track, warn
from scanlearn.engine.embedding import grid_boxes
from scanlearn.errors import ScanlearnError
from scanlearn.scans import intensity
from scanlearn.scans.conform import Conformed, Grid, conform
from scanlearn.scans.read import read_scan, write_mask_like
from scanlearn.scans.sources import FileSource
from scanlearn.tasks.segment import segment_image
from scanlearn.tasks.trained import Trained, load_trained, probabilities
from scanlearn.views.crop import resample


def predict(run: str | Path, input: str | Path, out: str | Path) -> Path:
    """Predict every scan of ``input`` with the preparation that the run was trained on.

    Args:
        run: a fine-tuned run folder.
        input: one scan, a folder, or a table of scans.
        out: folder to write: predictions.csv (classify), or SCAN.nii.gz / SCAN.png for each scan (segment).

    Scans that cannot be read are named, counted and left out.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = load_trained(run, device)
    catalog = Catalog.from_source(input)
    source, out = FileSource(catalog), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    grid = Grid.of(trained.facts["store_settings"])
    names, rows, skipped = catalog.column("scan_id"), [], 0
    for row in track(range(len(catalog)), len(catalog), "predicting"):
        item = conform(source, row, grid, catalog.column("modality")[row], 0, names[row])
        if item.reason:
            warn(f"left out: {item.file} {item.reason}")
            skipped += 1
            continue
        image = unit_image(item, grid, trained.facts["all_8bit"], device)
        with torch.no_grad():
            if trained.facts["task"] == "segment":
                write_segmentation(trained, image, item, catalog.column("paths")[row], out, names[row])
            else:
                rows.append({"scan_id": names[row], **classify_image(trained, image)})
    if skipped == len(catalog):
        raise ScanlearnError(f"None of the {len(catalog)} scans of {input} could be read.")
    if rows:
        pacsv.write_csv(pa.Table.from_pylist(rows), out / "predictions.csv")
    say(f"{len(catalog) - skipped} scans predicted into {out}" + (f", {skipped} left out." if skipped else "."))
    return out


def unit_image(item: Conformed, grid: Grid, all_8bit: bool, device: torch.device) -> Tensor:
    """(C, *S) in [0, 1], by the same window as in the store."""
    low, high = intensity.window_for(item.modality, item.stats, grid.window, all_8bit=all_8bit)
    bounds = [torch.tensor([bound / item.factor], dtype=torch.float32, device=device) for bound in (low, high)]
    return intensity.to_unit(torch.from_numpy(item.array[None]).to(device), *bounds)[0]


def classify_image(trained: Trained, image: Tensor) -> dict[str, float]:
    """A probability for each class of one image (C, *S)."""
    size = trained.facts["input_size"]
    if image.ndim == 3:
        batch = resample(image[None], size)
    else:
        batch = torch.stack([crop(image, box) for box in grid_boxes(image.shape[1:], size)])
    logits = trained.class_logits(trained.network.pooled(batch).mean(dim=0, keepdim=True))
    values = probabilities(logits, trained.facts["multilabel"])[0].tolist()
    return dict(zip(trained.facts["classes"], values, strict=True))


def crop(image: Tensor, box: Any) -> Tensor:
    """The box of an image (C, *S), zeros where it reaches beyond."""
    start, stop = box
    inside = tuple(slice(max(a, 0), min(b, n)) for a, b, n in zip(start, stop, image.shape[1:], strict=True))
    out = image.new_zeros((image.shape[0], *(b - a for a, b in zip(start, stop, strict=True))))
    at = tuple(slice(s.start - a, s.stop - a) for s, a in zip(inside, start, strict=True))
    out[(slice(None), *at)] = image[(slice(None), *inside)]
    return out


def write_segmentation(trained: Trained, image: Tensor, item: Conformed, paths: Any, out: Path, name: str) -> None:
    """Segment on the store's grid, bring the mask back to the scan's own voxels, write it in the scan's space.

    The classes get back the values that they had in the masks of the training data.
    """
    assert item.placement is not None
    found = segment_image(trained.network, image, trained.facts["input_size"])
    found = np.array([0, *trained.facts["mask_values"]], np.uint8)[found]
    mask = item.placement.undo(found[None], nearest=True)[0]
    scan = read_scan(paths)
    write_mask_like(mask, scan, out / f"{name}{'.png' if mask.ndim == 2 else '.nii.gz'}")
