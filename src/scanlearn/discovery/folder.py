"""The folder of a table of words: what a killed discovery left, what a finished one keeps, one writer at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scanlearn.console import say
from scanlearn.errors import ScanlearnError
from scanlearn.files import lock, make_folder, read_json, write_json
from scanlearn.scans.store import Store
from scanlearn.scans.words import FACTS, Words, open_words

AUTOENCODER, WORK, LOCK = "autoencoder", ".work", ".lock"


def words_there(out: Path, store: Store, told: dict[str, Any]) -> Words | None:
    """The words of ``out`` if they are those that these settings give; others are refused, None where there are none."""
    if not (out / FACTS).is_file():
        return None
    words = open_words(out)
    same = words.store == store.info["key"] and all(words.settings.get(key) == value for key, value in told.items())
    if not same or told["descriptors"]["from"] == "array":  # nobody can tell whether that is the same array
        raise ScanlearnError(f"{out} holds words of another discovery already: choose another --out, or delete it.")
    tidy(out)
    say(f"{out} holds these {words.count} words already.")
    return open_words(out, store)


@contextmanager
def working(out: Path, facts: dict[str, Any]) -> Iterator[Path]:
    """A hidden folder for what can be gone on with; what was begun from other ``facts`` is begun again."""
    work = out / WORK
    make_folder(work)
    with (out / LOCK).open("ab") as held:
        lock(held, out)
        begun = work / "begun.json"
        there = begun.is_file()
        same = there and read_json(begun, f"{out.name}/{WORK}/{begun.name}") == facts
        if same:
            say(f"Going on with what is in {out}.")
        else:
            if there:
                say(f"{out} was begun from other scans or settings: beginning again.")
            shutil.rmtree(work)
            shutil.rmtree(out / AUTOENCODER, ignore_errors=True)
            make_folder(work)
            write_json(begun, facts)
        yield work


def tidy(out: Path) -> None:
    """Leave the table, and the auto-encoder for another discovery; the rest can be made again."""
    shutil.rmtree(out / WORK, ignore_errors=True)
    shutil.rmtree(out / AUTOENCODER / "checkpoints", ignore_errors=True)
    (out / LOCK).unlink(missing_ok=True)
