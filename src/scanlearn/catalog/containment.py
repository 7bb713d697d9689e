"""Which public data sets hold images of each other: a network that has seen one has seen these of the other.

Layouts say what their own images were taken from (``contained_in``); ``FURTHER`` has data sets without a layout, known by
the name of their folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import product

from scanlearn.catalog.layouts.layout import LAYOUTS, layout_named
from scanlearn.catalog.origin import origin_of
from scanlearn.catalog.table import Catalog

FURTHER: dict[str, tuple[str, ...]] = {
    "chestx_det": ("chestxray14",),
    "chestx_det10": ("chestxray14",),
    "nih_cxr_lt": ("chestxray14",),
    "nih_google_labels": ("chestxray14",),
    "slake_cxr": ("chestxray14",),
    "ms_cxr": ("mimic_cxr",),
    "mimic_cxr_lt": ("mimic_cxr",),
    "chexlocalize": ("chexpert",),
    "deeplesion_manual_test_set": ("deeplesion",),
}


def sources_of(name: str) -> frozenset[str]:
    """All data sets that the images of one were taken from, and itself; {name} for one that nobody here knows."""
    found, waiting = set[str](), [name]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            known = layout_named(one).contained_in if one in LAYOUTS.names() else FURTHER.get(one, ())
            waiting += known
    return frozenset(found)


def known_names(names: Iterable[str]) -> frozenset[str]:
    """Those of the names (of layouts, data sets or folders) that the graph of containments has."""
    tidy = {re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in names}
    return frozenset(tidy & {*LAYOUTS.names(), *FURTHER})


def datasets_of(catalog: Catalog, origin: dict | None = None) -> frozenset[str]:
    """The known data sets that the scans of a catalogue, or of a store with that ``origin``, come from."""
    origin = origin_of(catalog.table) if origin is None else origin
    layouts = [origin.get("layout", ""), *(one.get("layout", "") for one in origin.get("datasets", {}).values())]
    return known_names([*layouts, *origin.get("datasets", ()), *catalog.words("dataset").to_pylist()])


def shared_images(these: Iterable[str], those: Iterable[str]) -> Iterator[str]:
    """A sentence for each pair of data sets of which one holds images of the other, or both of a third."""
    for a, b in sorted(product(these, those)):
        above, beside = sources_of(a), sources_of(b)
        if a == b:
            yield f"both are of {a}."
        elif b in above:
            yield f"images of {a} were taken from {b}."
        elif a in beside:
            yield f"images of {b} were taken from {a}."
        elif common := (above & beside):
            yield f"images of {a} and of {b} were taken from {', '.join(sorted(common))}."
