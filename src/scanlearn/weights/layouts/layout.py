"""What a layout is, and the table of their names.

A layout is a function ``layout(shapes) -> Plan`` under the name that ``import-weights --layout`` takes. ``shapes`` are
those of the tensors in a file, by name, without the prefixes of wrappers; from them the layout reads the sizes that
differ among files. What does not fit its plan is refused by name, so a layout checks nothing itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scanlearn.networks.network import Network, build_network
from scanlearn.registry import Registry

Shapes = Mapping[str, tuple[int, ...]]

LAYOUTS = Registry(
    "layout",
    modules=tuple(
        f"scanlearn.weights.layouts.{name}"
        for name in (
            *("genesis", "genesis_keras", "genesis_nnunet", "medicalnet", "i3d", "torchvision", "moco", "c2l"),
            *("simsiam", "barlow", "smp", "dira", "monai_segresnet"),
        )
    ),
)


def as_it_is(name: str, tensor: Tensor) -> Tensor:
    """For files that store their tensors as PyTorch does."""
    return tensor


@dataclass(frozen=True)
class Plan:
    """What the file must hold, and where it goes.

    Attributes:
        title: what these weights are, for a person.
        network: description for ``build_network``.
        names: name in the file -> name in the network. All of them must be there, with the network's shapes, and
            fill it; only PyTorch's counters of batches may be missing.
        aside: name in the file -> shape of what must be there too but is not taken (None: any shape).
        aside_is: what that is, for the account.
        arrange: turns a tensor of the file (by name) into PyTorch's order of axes, without a copy.
        notes: for encoder.json: ``input_size``, ``window``, ...
        licence_notice: the terms of these weights; shown now, and kept by every run that starts from them.
        advice: sentences for the person, shown after the account.
        no_network: for files that are told by their tensors and hold no network to start from: what they are instead,
            the reason why they are refused.
    """

    title: str
    network: dict[str, Any]
    names: dict[str, str]
    aside: dict[str, tuple[int, ...] | None] = field(default_factory=dict)
    aside_is: str = ""
    arrange: Callable[[str, Tensor], Tensor] = as_it_is
    notes: dict[str, Any] = field(default_factory=dict)
    licence_notice: str = ""
    advice: list[str] = field(default_factory=list)
    no_network: str = ""


def blank(network: dict[str, Any]) -> Network:
    """The described network without memory: names and shapes only."""
    with torch.device("meta"):
        return build_network(network)


def most_common_size(shapes: Shapes, names: Iterable[str], default: int) -> int:
    """The first size that most of these tensors have, so that one misshapen tensor does not decide what is right."""
    sizes = Counter(shapes[name][0] for name in names if shapes.get(name))
    return sizes.most_common(1)[0][0] if sizes else default
