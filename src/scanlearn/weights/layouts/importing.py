"""``import-weights``: a published file becomes a folder that every verb can start from, or is refused by name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scanlearn.console import say, warn
from scanlearn.errors import ScanlearnError, unknown
from scanlearn.networks.decoder import DECODERS
from scanlearn.networks.encoder import ENCODERS
from scanlearn.networks.network import Network, build_network
from scanlearn.scans.store import open_store
from scanlearn.weights.encoder import save_network, verify_export
from scanlearn.weights.layouts.account import Account, faults, plain_names, refusal
from scanlearn.weights.layouts.layout import LAYOUTS, Plan, blank
from scanlearn.weights.layouts.opening import open_tensors
from scanlearn.weights.statistics import estimate_statistics

BATCH_STATS = ("running", "always")


def import_weights(
    file: str | Path, layout: str, out: str | Path, *, batch_stats: str = "running", store: str | Path | None = None
) -> Account:
    """Read published weights, account for every tensor, and write them to ``out`` as ``save_network`` does.

    Args:
        file: as it was published; nothing in it is run.
        layout: its name in ``LAYOUTS``.
        out: a new folder.
        batch_stats: what batch norm takes in evaluation: ``running`` statistics, or ``always`` those of the batch.
        store: a store on whose training scans running statistics are estimated anew.

    Raises:
        ScanlearnError: an unknown layout; a file with code, damaged or forged; a missing, extra or misshapen tensor, or
            values that are not finite; a folder in use. Nothing is written then.
    """
    file, out = Path(file), Path(out)
    known = LAYOUTS.names()
    if layout not in known:
        raise unknown("layout", layout, known)
    if batch_stats not in BATCH_STATS:
        raise unknown("batch_stats", batch_stats, BATCH_STATS)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ScanlearnError(f"{out} is there already and not empty: choose another --out.")
    opened = open_tensors(file)
    plain, prefixes, foreign = plain_names(opened.tensors)
    tensors = _by_plain_name(file, plain, opened.tensors)
    plan = _fitting_plan(file, layout, tensors)
    if batch_stats == "always":
        _normalise_by_batch(plan, layout)
    network, uncounted = _filled(file, plan, tensors)

    account = Account(
        source=f"{file.name} ({plan.title})",
        taken={name: plan.names[now] for name, now in plain.items() if now in plan.names},
        aside=[name for name, now in plain.items() if now in plan.aside],
        aside_is=plan.aside_is,
        dropped=foreign,
        beside=opened.beside,
        prefixes=prefixes,
        uncounted=uncounted,
    )
    say(str(account))
    notes: dict[str, Any] = {**plan.notes, "layout": layout, "batch_stats": batch_stats, "imported": account.facts()}
    notes["imported"] |= {"file": file.name, "sha256": _sha256(file)}
    if store is not None:
        opened_store = open_store(store)
        estimate_statistics(network, opened_store, plan.notes["input_size"])
        notes["batch_stats"] = "estimated"
        notes["statistics_from"] = opened_store.info["key"]
    elif batch_stats == "running":
        for sentence in plan.advice:
            warn(sentence)
    if plan.licence_notice:
        notes["licence_notice"] = plan.licence_notice
        say(plan.licence_notice)
    save_network(network, out, **notes)
    verify_export(out, network)
    return account


def _by_plain_name(file: Path, plain: dict[str, str], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, now in plain.items():
        if now in found:
            raise ScanlearnError(f"{file} holds {now[:80]!r} twice, with a prefix and without: it is no network's.")
        found[now] = tensors[name]
    return found


def _fitting_plan(file: Path, layout: str, tensors: dict[str, Tensor]) -> Plan:
    plan, found = _judged(layout, tensors)
    if plan.no_network:
        raise ScanlearnError(f"{file} is refused: {plan.no_network}.")
    if not found:
        return plan
    matched = sum(name in plan.names for name in tensors)
    fitting = [other for other in LAYOUTS.names() if other != layout and not _judged(other, tensors)[1]]
    raise refusal(f"{file}, read as {layout!r},", found, matched, list(tensors), fitting)


def _judged(layout: str, tensors: dict[str, Tensor]) -> tuple[Plan, list[str]]:
    plan: Plan = LAYOUTS.get(layout)({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    return plan, faults(plan, blank(plan.network).state_dict(), tensors)


def _normalise_by_batch(plan: Plan, layout: str) -> None:
    for part, registry in (("encoder", ENCODERS), ("decoder", DECODERS)):
        description = plan.network.get(part)
        if description is None:
            continue
        if "always_batch_stats" not in registry.settings(description["name"]):
            raise ScanlearnError(f"The network of {layout!r} does not know batch_stats 'always': leave it out.")
        description["always_batch_stats"] = True


def _filled(file: Path, plan: Plan, tensors: dict[str, Tensor]) -> tuple[Network, int]:
    """The network with the tensors of the file, and how many counters of batches it lacked."""
    theirs = {ours: name for name, ours in plan.names.items()}
    state = blank(plan.network).state_dict()
    values: dict[str, Tensor] = {}
    for ours, empty in state.items():
        name = theirs.get(ours)
        if name not in tensors:
            values[ours] = torch.zeros(empty.shape, dtype=empty.dtype)  # a counter, as faults says
            continue
        tensor = tensors[name]
        if tensor.is_floating_point() != empty.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise ScanlearnError(f"{name!r} in {file} holds values that no trained network has: fetch the file again.")
        values[ours] = plan.arrange(name, tensor)
    with torch.random.fork_rng(devices=[]):
        network = build_network(plan.network)
    network.load_state_dict(values)
    return network, sum(theirs.get(ours) not in tensors for ours in state)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
