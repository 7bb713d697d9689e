"""What becomes of every tensor of a published file: taken, set aside, dropped, or the reason why the file is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.weights.layouts.layout import Plan
from scanlearn.weights.report import COUNTER, shape_of

# What training code wraps a network in; "classficationNet" is how its authors write it.
PREFIXES = ("module.", "classficationNet.", "base_model.", "model.")
FOREIGN = ("projection_head", "prototypes")  # heads of other objectives, which the authors drop too


@dataclass(frozen=True)
class Account:
    """Every tensor of the file is in exactly one of ``taken``, ``aside`` and ``dropped``.

    Attributes:
        source: file and layout.
        taken: name in the file -> name in the network.
        aside: names of a head that is not part of the network; ``aside_is`` says what it is.
        dropped: names of heads of other objectives.
        beside: what lay beside the weights.
        prefixes: what was taken off the front of the names.
        uncounted: how many counters of batches the file lacked.
    """

    source: str
    taken: dict[str, str]
    aside: list[str]
    aside_is: str
    dropped: list[str]
    beside: list[str]
    prefixes: list[str]
    uncounted: int

    def facts(self) -> dict[str, Any]:
        """What encoder.json keeps of it."""
        return {
            "tensors": len(self.taken) + len(self.aside) + len(self.dropped),
            "taken": len(self.taken),
            "aside": self.aside,
            "dropped": self.dropped,
            "beside": self.beside,
            "prefixes": self.prefixes,
        }

    def __str__(self) -> str:
        parts = {
            part: sum(ours.startswith(f"{part}.") for ours in self.taken.values()) for part in ("encoder", "decoder")
        }
        taken = " and ".join(f"{count} into the {part}" for part, count in parts.items() if count)
        whole = len(self.taken) + len(self.aside) + len(self.dropped)
        lines = [f"All {whole} tensors of {self.source} are accounted for: {taken}."]
        if self.aside:
            lines.append(f"  Set aside ({len(self.aside)}), {self.aside_is}: {_shown(self.aside)}")
        if self.dropped:
            lines.append(f"  Dropped ({len(self.dropped)}), heads of other objectives: {_shown(self.dropped)}")
        if self.beside:
            lines.append(f"  Beside the weights, not taken: {_shown(self.beside)}")
        if self.prefixes:
            lines.append(f"  Taken off the names: {', '.join(self.prefixes)}")
        if self.uncounted:
            lines.append(f"  Set to 0, as the file lacks them: {self.uncounted} counters of batches")
        return "\n".join(lines)


def plain_names(names: Iterable[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """({name in the file: name without wrappers}, prefixes taken off, names of foreign heads).

    A prefix goes where most names have it, again and again, and only from the front.

    >>> plain_names(["module.model.a.module.b", "module.model.c", "module.prototypes.weight"])
    ({'module.model.a.module.b': 'a.module.b', 'module.model.c': 'c'}, ['module.', 'model.'], ['module.prototypes.weight'])
    """
    names = list(names)
    foreign = [name for name in names if any(word in name for word in FOREIGN)]
    plain = {name: name for name in names if name not in set(foreign)}
    prefixes: list[str] = []
    while True:
        having = {p: sum(name.startswith(p) for name in plain.values()) for p in PREFIXES}
        prefix = max(having, key=having.__getitem__)
        if 2 * having[prefix] <= len(plain):
            return plain, prefixes, foreign
        prefixes.append(prefix)
        plain = {name: now.removeprefix(prefix) for name, now in plain.items()}


def faults(plan: Plan, state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """What keeps tensors from being those of the plan, one phrase for each; none where they are.

    Args:
        state: of the network that the plan describes.
        tensors: of the file, by plain names.
    """
    wanted: dict[str, tuple[int, ...] | None] = {name: tuple(state[ours].shape) for name, ours in plan.names.items()}
    wanted |= plan.aside
    found = []
    for name, shape in wanted.items():
        if name not in tensors:
            if not name.endswith(COUNTER):
                found.append(f"{name!r} is missing" + (f" ({shape_of(shape)})" if shape is not None else ""))
            continue
        there = tuple(plan.arrange(name, tensors[name]).shape)
        if shape is not None and there != shape:
            found.append(f"{name!r} is {shape_of(there)} where {shape_of(shape)} is needed")
    found += [
        f"{name[:80]!r} ({shape_of(t.shape)}) is none of its tensors"
        for name, t in tensors.items()
        if name not in wanted
    ]
    return found


def refusal(source: str, found: list[str], matched: int, names: list[str], fitting: list[str]) -> ScanlearnError:
    """The sentence that refuses a file of tensors ``names``; ``fitting`` are layouts that it would fit."""
    hint = f": try --layout {' or '.join(fitting)}." if fitting else "; nothing was written."
    if matched == 0:
        first = ", ".join(name[:80] for name in names[:3]) or "it holds none"
        return ScanlearnError(
            f"{source} is refused, not one of its {len(names)} tensors fits (first are {first}){hint}"
        )
    more = f", and {len(found) - 5} more" if len(found) > 5 else ""
    return ScanlearnError(f"{source} is refused: {', '.join(found[:5])}{more}{hint.replace(': try', '; try')}")


def _shown(names: list[str], limit: int = 9) -> str:
    return ", ".join(names[:limit]) + (f", and {len(names) - limit} more" if len(names) > limit else "")
