"""The page of a table of words: each word's crops side by side, so that a person sees whether the anatomy recurs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn import __version__
from scanlearn.console import track
from scanlearn.files import WriteError, write_atomic
from scanlearn.scans.store import Store, open_store
from scanlearn.scans.words import PARTS, Words, open_words
from scanlearn.study.page import Cell, Table, count, percent, render
from scanlearn.study.words_done import missing_command, next_step, repeat, settings_table
from scanlearn.study.words_likeness import (
    FIGURES,
    correlation,
    extremes,
    likeness,
    likeness_panel,
    recurrence,
    recurrence_sentence,
)
from scanlearn.study.words_pictures import AVERAGED, WordRow, spread, word_row

MOST_WORDS = 100  # on one page
FEW = 5  # patients from which nothing can be told
MEASURED = "recurrence"  # where the settings hold what discovery measured


def words_page(folder: str | Path, store: str | Path | None = None) -> Path:
    """Write WORDS/report.html, one self-contained page, and return its path.

    Args:
        folder: a table that `scanlearn discover` wrote.
        store: the store that it was discovered in, whose crops are shown; without it the page says what is missing.

    The page names no patient, no file and no path. Raises ScanlearnError for a folder without a table of words, and for
    a store that is not the table's own (by its content key).
    """
    opened = None if store is None else open_store(store)
    words = open_words(folder, opened)
    names = None if opened is None else patient_numbers(opened)
    rows = [] if opened is None or names is None else word_rows(opened, words, names)
    found = likeness({row.word: (row.vectors, row.patients) for row in rows}) if rows else None
    told = recurrence(words.settings.get(MEASURED), found)
    page = render(
        "words.html.jinja",
        title=words.folder.resolve().name,
        version=__version__,
        sentence=f"{size_sentence(words, names)} {recurrence_sentence(told)}".strip(),
        key_figures=key_figures(words, names, told),
        notices=notices(words, opened, names),
        panel=likeness_panel(found) if found is not None else None,
        extremes=extremes(found) if found is not None else [],
        rows=[(row, alike_words(*found.of(row.word))) for row in rows] if found is not None else [],
        averaged=AVERAGED,
        left_out=words.count - len(rows),
        total=words.count,
        volumes=len(words.size) == 3,
        scales=bool(words.scale.any()),
        measured=measured_words(words.settings.get(MEASURED)),
        validation=bool((words.part == 1).any()),
        settings=settings_table(words.settings),
        parts_of_table=parts_table(words, names),
        checks=check_sentences(words, opened, names),
        missing=missing_command(words) if opened is None else None,
        repeat=repeat(words),
        next_step=next_step(words),
        store_key=words.store[:12],
    )
    path = words.folder / "report.html"
    try:
        write_atomic(path, page)
    except WriteError as error:
        advice = f"the words are whole: make room and write their page with `scanlearn report {folder}`"
        raise error.advising(advice) from error
    return path


def word_rows(store: Store, words: Words, names: np.ndarray) -> list[WordRow]:
    """The pictures of all words, or of ``MOST_WORDS`` of them evenly through the table."""
    order = np.argsort(words.word, kind="stable")
    present = np.unique(words.word[(words.part == 0) & (words.scale == 0)])
    shown = present[spread(len(present), MOST_WORDS)]
    sides = (np.searchsorted(words.word[order], shown, side=side).tolist() for side in ("left", "right"))
    bounds = zip(*sides, strict=True)
    return [word_row(store, words, order[a:b], names) for a, b in track(bounds, len(shown), "pictures of words")]


def patient_numbers(store: Store) -> np.ndarray:
    """int64 (N,): the patient of each scan as 1, 2, ... in the order of the store's rows."""
    _, first, inverse = np.unique(store.catalog.codes("patient_id"), return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(1, len(first) + 1)
    return place[inverse]


# ---------------------------------------------------------------- the head of the page


def size_sentence(words: Words, names: np.ndarray | None) -> str:
    """How many words, patients and crops."""
    base = words.scale == 0
    train, val = (int((base & (words.part == part)).sum()) for part in (0, 1))
    size, extra = "\u00a0×\u00a0".join(map(str, words.size)), int((~base).sum())
    validation = f" and {count(val, 'validation crop')}" if val else ""
    more = f", with {count(extra, 'more crop')} at other scales" if extra else ""
    return (
        f"{count(words.count, 'word')} in {people(words.row, names)}: {count(train, 'training crop')}{validation} of "
        f"{size}\u00a0{'voxels' if len(words.size) == 3 else 'pixels'}{more}."
    )


def people(rows: np.ndarray, names: np.ndarray | None) -> str:
    """How many patients some rows of the store are of; without the store only scans can be counted."""
    rows = np.unique(rows)
    return count(len(rows), "scan") if names is None else count(len(np.unique(names[rows])), "patient")


def key_figures(words: Words, names: np.ndarray | None, told: Mapping[str, float | None]) -> list[tuple[str, str, str]]:
    """(name, figure, words under it): the size of the table and what speaks for recurring anatomy."""
    number_of, kind = people(words.row, names).split(" ", 1)
    low, high = crops_per_word(words)
    found = [
        ("words" if words.count > 1 else "word", f"{words.count:,}", f"{span(low, high)} training crops each"),
        (kind, number_of, "training and validation"),
        ("crops", f"{len(words):,}", "at all scales"),
    ]
    within, between, own, chance = (told[name] for name in FIGURES)
    if within is not None and between is not None:
        found.append(("likeness within a word", correlation(within), f"{correlation(between)} between words"))
    if own is not None:
        beside = "" if chance is None else f"{percent(chance)} by chance"
        found.append(("find their own word", percent(own), beside))
    return found


def crops_per_word(words: Words) -> tuple[int, int]:
    """The fewest and the most training crops of base size that a word has."""
    each = np.bincount(words.word[(words.part == 0) & (words.scale == 0)], minlength=words.count)
    return int(each.min()), int(each.max())


def span(low: int, high: int) -> str:
    """ "200", or "12 to 200"."""
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def notices(words: Words, store: Store | None, names: np.ndarray | None) -> list[str]:
    """What a reader must not miss."""
    found = []
    if names is not None and shared_patients(words, names):
        found.append(
            "Some patients are in the training and in the validation crops: figures of validation say too much."
        )
    if store is not None and not store.catalog.patients_known:
        found.append("The scans came without patients, so each counts as its own patient and leaks cannot be seen.")
    if crops_per_word(words)[1] < FEW:
        found.append(f"No word has {FEW} training patients: too few to tell recurring anatomy from chance.")
    return found


def alike_words(within: float, between: float) -> str:
    """The likeness of one word's crops beside that with other words."""
    if not np.isfinite(within):
        return ""
    beside = f", to other words {correlation(between)}" if np.isfinite(between) else ""
    return f"likeness {correlation(within)}{beside}"


def measured_words(measured: Any) -> str:
    """What the figures at the top were measured on, where discovery measured them."""
    if not isinstance(measured, Mapping) or not {"words", "crops"} <= measured.keys():
        return ""
    whose = f"{measured['crops']:,} whole crops of {count(measured['words'], 'word')}"
    return f"the figures at the top are those of discovery, from {whose}"


# ---------------------------------------------------------------- what was done and checked


def parts_table(words: Words, names: np.ndarray | None) -> Table:
    """Words, crops and patients of each part."""
    rows: list[list[Cell]] = []
    for code, part in enumerate(PARTS):
        mine, base = words.part == code, words.scale == 0
        cells = [len(np.unique(words.word[mine])), int((mine & base).sum()), int((mine & ~base).sum())]
        scans = np.unique(words.row[mine])
        cells += [len(scans)] + ([] if names is None else [len(np.unique(names[scans]))])
        rows.append([{"train": "training", "val": "validation"}[part], *(f"{cell:,}" for cell in cells)])
    head = ["part", "words", "crops", "at other scales", "scans", *([] if names is None else ["patients"])]
    return Table("Training and validation", head, rows)


def check_sentences(words: Words, store: Store | None, names: np.ndarray | None) -> list[str]:
    """What was counted anew for this page."""
    found = []
    if store is None or names is None:
        found.append(
            "Whether parts share a patient, and whether test scans are shown, can only be told with the store."
        )
    else:
        test = np.asarray(store.splits["test"])
        found.append(f"Patients in both the training and the validation crops: {shared_patients(words, names)}.")
        found.append(f"Crops of scans in the test part of the store: {int(np.isin(words.row, test).sum()):,}.")
        over = reaching_over(words, store)
        filled = "; what lies outside holds the darkest value" if over else ""
        found.append(f"Crops that reach over the edge of their scan: {over:,}{filled}.")
    low, high = crops_per_word(words)
    found.append(f"Training crops of a word at its base size: {span(low, high)}.")
    checked = words.settings.get("checked", {})  # words of before lack it
    found += [f"Before the discovery: {text}" for text in checked.get("done", ())]
    return [*found, *(f"Not checked: {text}" for text in checked.get("open", ()))]


def shared_patients(words: Words, names: np.ndarray) -> int:
    """How many patients are in the training and in the validation crops."""
    return len(np.intersect1d(*(names[np.unique(words.row[words.part == part])] for part in (0, 1))))


def reaching_over(words: Words, store: Store) -> int:
    """How many crops do not lie inside their scan."""
    stop = words.start.astype(np.int64) + words.side
    return int(((words.start < 0) | (stop > store.shapes(words.row))).any(axis=1).sum())
