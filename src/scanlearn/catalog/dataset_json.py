"""The ``dataset.json`` of nnU-Net and of the Medical Segmentation Decathlon: reading it, and what it calls things."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scanlearn.errors import ScanlearnError

_MOST_BYTES = 256 << 20


def read_dataset_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ScanlearnError for anything else, and quotes nothing of it."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ScanlearnError(f"{path} has more than {_MOST_BYTES >> 20} MB; list the scans in a CSV table instead.")
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # no JSON, no text, numbers without end, nested too deep
        place = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ScanlearnError(f"{path} is no valid JSON{place}; get it again from where the data comes from.") from error
    except OSError as error:
        raise ScanlearnError(f"{path} cannot be read ({error.strerror}).") from error
    if not isinstance(content, dict):
        raise ScanlearnError(f"{path} holds no JSON object ({{...}}), so it describes no data set.")
    return content


def channel_names(content: dict[str, Any], path: Path) -> list[str]:
    """The names of the channels in their order, from ``channel_names`` or ``modality``: {"0": "CT"}; [] if not told."""
    named = content.get("channel_names", content.get("modality", {}))
    if isinstance(named, list | tuple):
        named = dict(enumerate(named))
    if isinstance(named, str):
        named = {0: named}
    try:
        order = {int(key): _plain(name) for key, name in named.items()}
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ScanlearnError(f'The channels in {path} are not written as {{"0": "CT", "1": "PET"}}.') from error
    if sorted(order) != list(range(len(order))):
        raise ScanlearnError(f"The channels in {path} are not numbered 0, 1, 2, ...")
    return [order[i] for i in range(len(order))]


def names_in_masks(content: dict[str, Any]) -> dict[int, str]:
    """{value in a mask: name} without the background, from {"tumour": 1} (nnU-Net) or {"1": "tumour"} (Decathlon).

    Regions of several values ({"whole": [1, 2]}) name no value and are left out.
    """
    labels = content.get("labels")
    names: dict[int, str] = {}
    for key, value in labels.items() if isinstance(labels, dict) else ():
        number, name = (key, value) if _is_class(key) and isinstance(value, str) else (value, key)
        if _is_class(number) and int(number) and _plain(name):
            names[int(number)] = _plain(name)
    return dict(sorted(names.items()))


def view_of(channels: Iterable[str]) -> str:
    """The channels as one word, "FLAIR+T1w", "" if they only repeat the modality."""
    names = [name for name in channels if name]
    return "" if len(names) == 1 and names[0].upper() in ("CT", "MR", "MRI", "PET", "PT") else "+".join(names)


def _is_class(value: object) -> bool:
    """Whether it is a value that a mask (uint8) can hold."""
    return (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255) or (
        isinstance(value, str) and bool(re.fullmatch("[0-9]{1,3}", value)) and int(value) <= 255
    )


def _plain(name: object) -> str:
    """A name as it may be shown: printable, of at most 60 characters."""
    text = "".join(c for c in str(name) if c.isprintable() and not "\ud800" <= c <= "\udfff")
    return " ".join(text.split())[:60]
