"""What generated copies of data sets are written with."""

from __future__ import annotations

import csv
import gzip
import io
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, number: int = 0, mode: str = "L", kind: str | None = None) -> Path:
    """An image of 10 rows and 12 columns, another for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(number).integers(0, 256, (10, 12), np.uint8)
    Image.fromarray(values).convert(mode).save(path, kind)
    return path


def mask(path: Path, columns: slice) -> Path:
    """A black and white mask of 10 rows and 12 columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((10, 12), bool)
    values[:, columns] = True
    Image.fromarray(values).save(path)
    return path


def table(path: Path, rows: Iterable[Sequence[str]], renamed: dict[str, str] | None = None) -> Path:
    """A CSV (gzipped if it is called so), its first row the names of the columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    header, *others = rows
    csv.writer(text, lineterminator="\n").writerows([[(renamed or {}).get(name, name) for name in header], *others])
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def take_away(root: Path, names: Iterable[str]) -> None:
    """Remove files and folders below the root; each must be there."""
    for name in names:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
