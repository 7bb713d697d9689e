"""Known data sets that are one .npz file: what MedMNIST's numbers mean, its counts, and where its images come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.catalog.layouts.known import NONE
from scanlearn.catalog.layouts.layout import layout_named
from scanlearn.catalog.layouts.medmnist import named, set_of
from scanlearn.console import say, warn
from scanlearn.errors import ScanlearnError, unknown


def known_arrays(
    path: Path, columns: Mapping[str, np.ndarray], layout: str | None = None, split: str | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The columns of an .npz file and its origin (see ``catalog.origin``), {} for a file of no known set.

    Args:
        path: known by its name, unless a layout is named.
        columns: of all parts, one after the other; of a known set they come back with words in place of numbers.
        layout, split: as in ``Catalog.from_source``; split "none" leaves the parts of the file out.

    Raises:
        ScanlearnError: names of other layouts or splits; labels that are not those of the set.
    """
    if layout not in (None, NONE) and set_of(str(layout)) != layout:
        raise ScanlearnError(
            f"The layout {layout!r} is no .npz file of MedMNIST, and {path} is one file; leave it out."
        )
    name = None if layout == NONE else layout or set_of(path.stem)
    if name is None:
        if split not in (None, NONE):
            raise ScanlearnError(f"--split {split} names a split of a known data set, and {path} is none.")
        return dict(columns), {}
    known = layout_named(name)
    if split not in (None, NONE, *known.splits):
        raise unknown(f"split of {name}", str(split), [*known.splits, NONE])
    found = named(name, columns, path)
    say(f"{path} is read as {known.title} (licence: {known.licence}); --layout none reads it as plain arrays.")
    published, images = known.counts.get("images", 0), len(columns["split"]) if "split" in columns else 0
    if published and images != published:
        warn(f"{name}: this copy differs from what was published: images {images:,} (published {published:,}).")
    origin = {"layout": name}
    if split == NONE or "split" not in found:
        found.pop("split", None)
        return found, origin
    say(f"split 'official': {known.splits['official'].told}")
    return found, {**origin, "split": "official", "official": True}
