"""What was checked: parts that share no patient, scans that were left out, warnings in the log."""

from __future__ import annotations

from typing import Any

from scanlearn.engine.record import common, read_record
from scanlearn.engine.run_folder import RunFolder, run_of
from scanlearn.scans.store import Store
from scanlearn.study.facts import Facts, origin
from scanlearn.study.grid import Grid, Pretraining
from scanlearn.study.page import Table, count, without_paths
from scanlearn.study.plan import StudyPlan
from scanlearn.study.tables import parts_table, quarantine_table


def notices(facts: Facts) -> list[str]:
    """What a reader must not miss, for the top of the page."""
    found = []
    if not facts.finished:
        found.append("This run is not finished; figures and pictures are those of its last export.")
    if facts.still_warned:
        found.append(without_paths(str(facts.monitor[-1]["warning"])))
    if not facts.patients_known:
        found.append("The scans came without patients, so each counts as its own patient and leaks cannot be seen.")
    return found


def section(facts: Facts, store: Store | None) -> dict[str, Any]:
    """The tables and sentences of the page's section on checks."""
    parts: Table | None = None
    if facts.record is not None and facts.record.parts:
        parts = parts_table(facts.record)
    return {
        "parts": parts,
        "sentences": [*leak_sentences(facts), *note_sentences(store)],
        **_left_out(store),
        "warnings": _warnings(facts),
    }


def leak_sentences(facts: Facts) -> list[str]:
    """How many patients and files the parts share, counted anew from the run's own files, and what could not be."""
    if facts.record is None or not facts.record.parts:
        return ["The run does not list its parts, so nothing can be said about leaks."]
    words = []
    if len(facts.record.parts) > 1:
        patients, files = facts.record.shared()
        shared = f"Patients in more than one part: {patients}. " if facts.patients_known else ""
        words.append(f"{shared}Identical files in more than one part: {files}.")
    else:
        words.append("Every scan was used for training; nothing of this store is left to test on.")
    if not facts.patients_known:
        words.append("Patients are not known, so nobody can say whether one of them is in two parts.")
    words += _origin_sentence(facts)
    words += [f"Before the run: {text}" for text in facts.record.done if "look" in text or "images" in text]
    return [*words, *(f"Not checked: {text}" for text in facts.record.open)]


def _origin_sentence(facts: Facts) -> list[str]:
    name = facts.init
    record = facts.record
    if not facts.task or name == "none" or record is None or "test" not in record.parts:
        return []
    before = origin(facts)
    if before is None or before.record is None or before.trained is None:
        return [f"The pre-training of {name} is not beside this run, so its patients could not be compared here."]
    seen = before.record.patients(before.trained)
    whose = "patient" if facts.patients_known else "scan"
    shared = common(record.patients("test"), seen)
    masks = f" and on the masks of {before.record.masks:,}" if before.record.masks else ""
    return [
        f"The weights come from {name}, which trained on {count(len(seen), whose)}{masks}; {shared or 'none'} of them "
        f"{'is' if shared == 1 else 'are'} in the test part."
    ]


def masks_seen(plan: StudyPlan, grid: Grid) -> list[str]:
    """Which methods of a study do not begin without labels, and whose masks they saw."""
    found = []
    joint = {c.method for c in grid.cells if isinstance(c.start, Pretraining) and c.start.labels and not c.from_scratch}
    for name in sorted(joint):
        found.append(
            f"{name} is pre-trained with the masks that it is fine-tuned with: it does not begin without labels."
        )
    for name, method in plan.methods.items():
        record = read_record(RunFolder(run_of(method.weights))) if method.weights else None
        if record is not None and record.masks:
            found.append(
                f"{name} begins from weights that were pre-trained with the masks of {count(record.masks, 'scan')}, whatever "
                "the label count: it does not begin without labels."
            )
    return found


def _left_out(store: Store | None) -> dict[str, Any]:
    if store is None:
        return {"quarantine": None, "store_words": "Which scans the store left out is in its store.json."}
    refused, equal = store.info.get("quarantine", []), store.info.get("equal_scans", 0)
    words = f"{count(len(refused), 'scan')} left out of the store, {len(store):,} kept."
    if equal:
        words += f" {count(equal, 'scan')} equal to the last byte to a scan of another patient."
    return {"quarantine": quarantine_table(refused) if refused else None, "store_words": words}


def note_sentences(store: Store | None) -> list[str]:
    """What ``prepare`` noted of scans that are in the store: a tilted gantry, a spacing that was assumed, ..."""
    notes = store.info.get("notes", []) if store is not None else []
    return [f"{count(note['scans'], 'scan')} of the store: {note['note']}" for note in notes]


def _warnings(facts: Facts) -> list[str]:
    spans = [f"Step {a:,}" if a == b else f"Steps {a:,} to {b:,}" for a, b, _ in facts.warnings]
    return [f"{span}: {without_paths(text)}" for span, (_, _, text) in zip(spans, facts.warnings, strict=True)]
