"""A descriptor of each scan: the pooled bottleneck of an auto-encoder of whole scans, or what another encoder gives.

Semantic Genesis, spec_genesis §1.3: 128x128x64, mean squared error, Adam 0.001, batches of 8; 512 numbers, not
normalised. The auto-encoder here has no skips and sees the train part alone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scanlearn.console import say, track
from scanlearn.discovery.thumbnails import make_thumbnails, whole_records
from scanlearn.engine.checkpoint import checkpoints
from scanlearn.engine.device import default_device
from scanlearn.engine.embedding import embed_scans
from scanlearn.engine.pretrain import fit_to_store, parts_in_play
from scanlearn.engine.recipe import Recipe, load_recipe
from scanlearn.engine.run_folder import RunFolder, run_of
from scanlearn.engine.train import Training, train
from scanlearn.errors import Interrupted, ScanlearnError
from scanlearn.files import WriteError
from scanlearn.scans.store import Store
from scanlearn.weights.encoder import load_network, read_card
from scanlearn.weights.reading import find_saved

WHOLE = "whole_scans"  # the note in an encoder's card that it was trained on whole scans, not on patches
AT_ONCE = 256  # scans whose descriptors are written together


@dataclass(frozen=True)
class Descriptors:
    """Numbers (M, d) in ``values``, an array or a mapped file; line i describes the row ``rows[i]`` of the store.

    ``rows`` are ascending.
    """

    values: Any
    rows: np.ndarray

    def lines(self, rows: np.ndarray) -> np.ndarray:
        """int64 (n,): the lines of ``values`` that describe these rows of the store."""
        return np.searchsorted(self.rows, rows)


class Source:
    """Where descriptors come from: an auto-encoder that is trained here, a saved encoder, or an array.

    Args:
        store: what is described.
        autoencoder: its recipe, by default autoencoder_3d_small or autoencoder_2d_small.
        skips: give it the skips of the released code.
        settings: other settings of the recipe.
        encoder: a run, an encoder folder or a .safetensors file.
        descriptors: (N, d), a line for each row of the store; a ``np.memmap`` stays on the disk.

    Attributes:
        told: what tells this source from another, plain JSON without a path.
    """

    def __init__(
        self,
        store: Store,
        autoencoder: str | Path | None,
        skips: bool,
        settings: dict[str, Any] | None,
        encoder: str | Path | None,
        descriptors: Any,
    ):
        self.store, self.encoder, self.array = store, encoder, descriptors
        self.recipe: Recipe | None = None
        trained = autoencoder is not None or skips or bool(settings)
        if sum((trained, encoder is not None, descriptors is not None)) > 1:
            raise ScanlearnError(
                "Descriptors come from an auto-encoder that is trained, from an --encoder, or from an array: give one."
            )
        self.told: dict[str, Any] = {"from": "array"}
        if descriptors is not None:
            _check_array(descriptors, store)
        elif encoder is not None:
            self.told = _encoder_told(encoder)
        else:
            changes = dict(settings or {}) | ({"network.decoder.skips": True} if skips else {})
            self.recipe = autoencoder_recipe(store, autoencoder, changes)
            self.told = _recipe_told(self.recipe)

    def describe(self, rows: np.ndarray, run: Path, work: Path, seed: int, workers: int = 0) -> Descriptors:
        """Descriptors of ``rows`` (ascending), going on with what is in the folders ``run`` and ``work``."""
        if self.array is not None:
            return Descriptors(self.array, np.arange(len(self.store)))
        if self.recipe is not None:
            return autoencoder_descriptors(self.store, self.recipe, rows, run, work, seed=seed, workers=workers)
        assert self.encoder is not None
        return encoder_descriptors(self.store, self.encoder, rows, work)


def _check_array(values: Any, store: Store) -> None:
    if getattr(values, "ndim", 0) != 2 or len(values) != len(store):
        raise ScanlearnError(
            f"Descriptors are an array with one line for each of the {len(store)} scans of the store, not of shape "
            f"{tuple(getattr(values, 'shape', ()))}."
        )


def autoencoder_recipe(store: Store, name: str | Path | None, settings: dict[str, Any]) -> Recipe:
    """The recipe of the auto-encoder, checked against the store."""
    recipe = load_recipe(name or f"autoencoder_{store.spatial_dims}d_small", settings)
    fit_to_store(recipe, store)
    if recipe.network.decoder is None or "restore" not in recipe.objectives or recipe.patches != "random":
        raise ScanlearnError(
            f"Recipe {recipe.name!r} is no auto-encoder: it needs a decoder and the objective restore; autoencoder_2d and "
            "autoencoder_3d are."
        )
    return recipe


def _recipe_told(recipe: Recipe) -> dict[str, Any]:
    skips = bool((recipe.network.decoder or {}).get("skips", True))
    digest = hashlib.sha256(json.dumps(recipe.to_dict(), sort_keys=True).encode()).hexdigest()
    return {"from": "autoencoder", "recipe": recipe.name, "skips": skips, "sha256": digest}


def _encoder_told(encoder: str | Path) -> dict[str, Any]:
    method = str(read_card(encoder)["notes"].get("recipe", ""))
    digest = hashlib.sha256(find_saved(encoder).read_bytes()).hexdigest()
    return {"from": "encoder", "name": run_of(encoder).name, "recipe": method, "sha256": digest}


def autoencoder_descriptors(
    store: Store, recipe: Recipe, rows: np.ndarray, run: Path, work: Path, *, seed: int, workers: int = 0
) -> Descriptors:
    """Train the auto-encoder on the train part (or go on with it) and describe ``rows``.

    Args:
        rows: ascending; those of the train part among them are trained on.
        run: the run folder of the auto-encoder.
        work: a folder for thumbnails and descriptors.
    """
    source = _whole_scans(store, recipe.size, rows, work)
    if not _finished(run):
        _train(source, recipe, run, seed, workers)
    return _described(source, run, rows, work)


def encoder_descriptors(store: Store, encoder: str | Path, rows: np.ndarray, work: Path) -> Descriptors:
    """Describe ``rows`` by a saved encoder: whole scans where it was trained on these, else the mean over patches."""
    notes = read_card(encoder)["notes"]
    size = notes.get("input_size")
    source = _whole_scans(store, size, rows, work) if notes.get(WHOLE) else store
    return _described(source, encoder, rows, work)


def _whole_scans(store: Store, size: Any, rows: np.ndarray, work: Path) -> Store:
    """Volumes as thumbnails of one size; images have one size already."""
    return store if store.spatial_dims == 2 else make_thumbnails(store, rows, size, work / "thumbnails.u8")


def _finished(run: Path) -> bool:
    return (run / "encoder" / "encoder.json").is_file() and bool(read_card(run)["notes"].get("finished"))


def _train(source: Store, recipe: Recipe, run: Path, seed: int, workers: int) -> None:
    rows = np.asarray(source.splits["train"])
    patients = source.catalog.count_patients(rows)
    say(f"{recipe.name}: {len(rows):,} whole scans of {patients:,} patients.")
    notes = {"method": recipe.name, "scans": len(rows), "patients": patients, "part": "train", WHOLE: True}
    training = Training(rows=rows, parts=parts_in_play(source, "train"), notes=notes)
    folder = RunFolder(run)
    resume = folder.recipe.is_file() and bool(checkpoints(folder.checkpoints))
    if not resume:
        shutil.rmtree(run, ignore_errors=True)  # killed before its first checkpoint, it begins again
    result = train(recipe, source, training, run, seed=seed, resume=resume, workers=workers)
    if result.stopped:
        raise Interrupted(f"Stopped at step {result.steps:,} of the auto-encoder: the same command goes on from there.")


@torch.no_grad()
def _described(source: Store, saved: str | Path, rows: np.ndarray, work: Path) -> Descriptors:
    """Write the descriptors of ``rows`` to a file, or go on with it, and map it."""
    device = default_device()
    network = load_network(saved).to(device).eval()
    width = network.encoder.num_features
    size = read_card(saved)["notes"].get("input_size") or source.shape(int(rows[0]))
    file = work / "descriptors.f32"
    done = whole_records(file, 4 * width)
    starts = range(done, len(rows), AT_ONCE)
    try:
        with file.open("ab") as sink:
            for first in track(starts, len(starts), "descriptors"):
                part = rows[first : first + AT_ONCE]
                sink.write(embed_scans(network.pooled, source, part, size=size, device=device).tobytes())
    except OSError as error:
        raise WriteError(file.name, work, error, 4 * width * (len(rows) - done)) from error
    values = np.memmap(file, np.float32, "r", shape=(len(rows), width))
    return Descriptors(values, rows)
