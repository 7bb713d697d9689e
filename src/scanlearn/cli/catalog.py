"""The verb that looks at data before anything is learnt from them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from scanlearn.errors import ScanlearnError


def catalog(
    what: Literal["describe", "check", "split"],
    sources: list[str],
    out: str | None = None,
    patient: str | None = None,
    layout: str | None = None,
) -> None:
    """Look at data: describe counts what is there, check looks for leaks between any of them, split writes a split down.

      scanlearn catalog describe stores/chest                     scans and patients by part, label and view; a page with pictures
      scanlearn catalog check stores/chest                        the same file or picture of two patients, or in two parts
      scanlearn catalog check stores/chest runs/moco folder/new   patients, files and pictures that any two of them share
      scanlearn catalog split stores/chest --out chest.json       who trains on what, for others: prepare --split chest.json

    A source is a store, the folder of a run, or whatever `prepare` takes (then every file is read, which takes a while).
    Patients are compared by pseudonym, files by their sha256, pictures by a hash that finds copies which were
    re-encoded, resized or mirrored; public data sets known to hold each other's images are named. Cropped or rotated
    copies are not found, and patients of stores made with another salt cannot be compared. No identifier is printed.

    Args:
        what: describe, check or split.
        sources: stores, runs, folders or tables.
        out: the page to write (SOURCE-description.html or SOURCE-leaks.html in the current folder by default); split:
            the file.
        patient: of folders and tables: who a scan is of, as `prepare` takes it (a column, folder, or a pattern).
        layout: of folders: the public data set that they hold, where it is not recognised; none for a plain folder.
    """
    from scanlearn.console import next_command, say

    if what == "describe":
        from scanlearn.study.description import describe

        if len(sources) != 1:
            raise ScanlearnError("catalog describe takes one source at a time.")
        text, page = describe(sources[0], out, patient=patient, layout=layout)
        print(text)
        say(f"Page: {page}")
        next_command(f"scanlearn catalog check {sources[0]}")
        return
    if what == "split":
        _write_split(sources, out)
        return
    from scanlearn.study.leak_page import check

    table, sentences, page = check(sources, out, patient=patient, layout=layout)
    print(table)
    for sentence in sentences:
        say(sentence)
    say(f"Page: {page}")
    store = next((source for source in sources if (Path(source) / "store.json").is_file()), "STORE")
    next_command(f"scanlearn pretrain {store} --recipe RECIPE --out runs/NAME")


def _write_split(sources: list[str], out: str | None) -> None:
    from scanlearn.catalog.split_file import write_split
    from scanlearn.console import next_command, say
    from scanlearn.scans.store import open_store

    if len(sources) != 1 or out is None:
        raise ScanlearnError("catalog split takes one store and --out FILE.json.")
    store = open_store(sources[0])
    origin = store.info["settings"].get("origin", {})
    made = {"seed": store.info["splits"]["seed"], "patients_known": store.catalog.patients_known}
    made |= {name: origin[name] for name in ("layout", "split", "official") if name in origin}
    code = write_split(out, store.catalog, store.splits, **made)
    say(f"{out} holds the split {code[:12]} ({code}); it names files by their contents and nobody by name.")
    next_command(f"scanlearn prepare SOURCE --split {out} --out stores/same-split")
