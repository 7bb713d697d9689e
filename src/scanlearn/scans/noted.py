"""What a person should know of scans that are in a store: a tilted gantry, a spacing that was assumed, ..."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from scanlearn.scans.rows import general

# More would say nothing that these do not.
MOST_KINDS = 50
MOST_SCANS = 20


def noted(notes: Iterable[tuple[str, tuple[str, ...]]]) -> list[dict[str, Any]]:
    """Notes by kind, the most frequent first, from (scan id, its notes); what differs in numbers only is one kind.

    Each is {"note": the sentence, N where the numbers differ, "scans": how many, "first": {scan id: sentence}}.
    """
    kinds: dict[str, dict[str, Any]] = defaultdict(lambda: {"note": "", "scans": 0, "first": {}})
    for scan, sentences in notes:
        for sentence in sentences:
            kind = kinds[general(sentence)]
            kind["note"] = sentence if kind["note"] in ("", sentence) else general(sentence)
            kind["scans"] += 1
            if len(kind["first"]) < MOST_SCANS:
                kind["first"][scan] = sentence
    return sorted(kinds.values(), key=lambda kind: -kind["scans"])[:MOST_KINDS]


def lines(kinds: list[dict[str, Any]]) -> str:
    """One indented line for each kind, for the console."""
    return "\n".join(f"  {kind['scans']} x {kind['note']}" for kind in kinds)
