"""Applying a fine-tuned run to new files: probabilities as a table, masks on each input's own grid."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import torch
from torch import Tensor

from scanlearn.catalog.table import Catalog
from scanlearn.console import say, track, warn
from scanlearn.engine.device import default_device
from scanlearn.engine.embedding import MARGIN, grid_boxes, ten_crops
from scanlearn.engine.leaks import seen_files
from scanlearn.errors import ScanlearnError
from scanlearn.files import make_folder, replacing
from scanlearn.objectives.detect import Detect
from scanlearn.scans import intensity
from scanlearn.scans.conform import Conformed, Grid, conform
from scanlearn.scans.geometry import Placement
from scanlearn.scans.laid_boxes import back
from scanlearn.scans.read import read_scan, write_mask_like
from scanlearn.scans.resample import resample
from scanlearn.scans.rows import left_out
from scanlearn.scans.sources import FileSource
from scanlearn.tasks.detect import detector_of, find_boxes
from scanlearn.tasks.predict_compared import Compared
from scanlearn.tasks.segment import segment_image
from scanlearn.tasks.submission import prediction_string
from scanlearn.tasks.trained import Trained, load_trained, probabilities
from scanlearn.tasks.way_back import WayBack


def predict(
    run: str | Path, input: str | Path, out: str | Path, *, identifiers: str = "hashed", masks: bool = False
) -> Path:
    """Predict every scan of ``input`` with the preparation that the run was trained on.

    Args:
        run: a fine-tuned run folder.
        input: one scan, a folder, or a table of scans.
        out: folder to write: predictions.csv (classify; detect, as ``tasks.submission`` writes it), or SCAN.nii.gz /
            SCAN.png for each scan (segment); and predictions.json, which lists what was left out and lets `scanlearn
            names` lead back.
        identifiers: "hashed" calls the scans by pseudonyms, "kept" by the names of their files.
        masks: segment: compare with the masks that the input has; adds cases.parquet, examples.npz and results.json.

    Scans that cannot be read are left out, counted by reason and listed.
    """
    device = default_device()
    trained = load_trained(run, device)
    detector = detector_of(trained) if trained.facts["task"] == "detect" else None
    catalog = Catalog.from_source(input)
    source, out = FileSource(catalog), Path(out)
    make_folder(out)
    way_back = WayBack(out, catalog, identifiers)
    way_back.save([""] * len(catalog))  # first, so that nothing stands there that cannot be led back
    grid = Grid.of(trained.facts["store_settings"]).of_input(catalog.column("dataset"))
    modalities, paths = catalog.column("modality"), catalog.column("paths")
    rows: list[dict[str, Any]] = []
    reasons = []
    with ExitStack() as ending:
        compared = ending.enter_context(Compared(trained.facts, out)) if masks else None
        for row, name in enumerate(track(way_back.names, len(catalog), "predicting")):
            item = conform(source, row, grid, modalities[row], 0, name)
            reasons.append(item.reason)
            if item.reason:
                continue
            image = unit_image(item, grid, trained.facts["all_8bit"], device)
            with torch.no_grad():
                if detector is not None:
                    assert item.placement is not None
                    boxes = detect_image(trained, detector, image, item.placement)
                    rows.append({"patientId": name, "PredictionString": boxes})
                elif trained.facts["task"] == "segment":
                    found = segment_image(trained.network, image, trained.facts)
                    write_segmentation(trained, found, item, paths[row], out, name)
                    if compared is not None:
                        compared.add(name, row, str(catalog.patients[row]), image, found, item)
                else:
                    rows.append({"scan_id": name, **classify_image(trained, image)})
        if compared is not None:
            compared.finish(asdict(seen_files(run, source)))
    if rows:
        with replacing(out / "predictions.csv") as temporary:
            pacsv.write_csv(pa.Table.from_pylist(rows), temporary)
    way_back.save(reasons)
    tell(reasons, input, out, way_back)
    return out


def tell(reasons: list[str], input: str | Path, out: Path, way_back: WayBack) -> None:
    """Say what was predicted, what was left out and why, and where the names are; none of them is named."""
    bad = [reason for reason in reasons if reason]
    if bad:
        warn(f"left out, {len(bad)} of {len(reasons)} scans:\n{left_out(bad)}")
    if len(bad) == len(reasons):
        raise ScanlearnError(f"None of the {len(reasons)} scans of {input} could be read.")
    say(f"{len(reasons) - len(bad)} scans predicted into {out}.")
    if way_back.list is not None:
        say(f"names: the scans go by pseudonyms; `scanlearn names {out}` leads back, from {way_back.list}.")


def unit_image(item: Conformed, grid: Grid, all_8bit: bool, device: torch.device) -> Tensor:
    """(C, *S) in [0, 1], by the same window as in the store."""
    low, high = intensity.window_for(item.modality, item.stats, grid.one_window, all_8bit=all_8bit)
    bounds = [torch.tensor([bound / item.factor], dtype=torch.float32, device=device) for bound in (low, high)]
    return intensity.to_unit(torch.from_numpy(item.array[None]).to(device), *bounds)[0]


def classify_image(trained: Trained, image: Tensor) -> dict[str, float]:
    """A probability for each class of one image (C, *S)."""
    size = trained.facts["input_size"]
    several = trained.facts["multilabel"]
    if trained.facts.get("crops", 1) > 1:  # as in its test
        wide = resample(image[None], [round(side * MARGIN) for side in size])
        logits = trained.class_logits(trained.network.pooled(ten_crops(wide, size)))
        values = probabilities(logits, several).mean(dim=0).tolist()
        return dict(zip(trained.facts["classes"], values, strict=True))
    if image.ndim == 3:
        batch = resample(image[None], size)
    else:
        batch = torch.stack([crop(image, box) for box in grid_boxes(image.shape[1:], size)])
    logits = trained.class_logits(trained.network.pooled(batch).mean(dim=0, keepdim=True))
    values = probabilities(logits, several)[0].tolist()
    return dict(zip(trained.facts["classes"], values, strict=True))


def detect_image(trained: Trained, detector: Detect, image: Tensor, placement: Placement) -> str:
    """The boxes of one image (C, H, W) from the run's threshold on, in pixels of its file."""
    corners, score = find_boxes(trained.network, detector, image[None], trained.facts["input_size"])[0]
    corners = back(corners, *(np.array(v, float) for v in (placement.source, placement.inner, placement.offset)))
    kept = (score >= trained.facts["score_threshold"]) & (corners[:, 2:] > corners[:, :2]).all(axis=1)
    return prediction_string(corners[kept], score[kept])


def crop(image: Tensor, box: Any) -> Tensor:
    """The box of an image (C, *S), zeros where it reaches beyond."""
    start, stop = box
    inside = tuple(slice(max(a, 0), min(b, n)) for a, b, n in zip(start, stop, image.shape[1:], strict=True))
    out = image.new_zeros((image.shape[0], *(b - a for a, b in zip(start, stop, strict=True))))
    at = tuple(slice(s.start - a, s.stop - a) for s, a in zip(inside, start, strict=True))
    out[(slice(None), *at)] = image[(slice(None), *inside)]
    return out


def write_segmentation(trained: Trained, found: np.ndarray, item: Conformed, paths: Any, out: Path, name: str) -> None:
    """Bring classes (*S) on the store's grid back to the scan's own voxels and write them in the scan's space.

    The classes get back the values that they had in the masks of the training data.
    """
    assert item.placement is not None
    found = np.array([0, *trained.facts["mask_values"]], np.uint8)[found]
    mask = item.placement.undo(found[None], nearest=True)[0]
    scan = read_scan(paths)
    write_mask_like(mask, scan, out / f"{name}{'.png' if mask.ndim == 2 else '.nii.gz'}")
