"""Put tensors into a network by name and shape, and account for every one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import Network

COUNTER = ".num_batches_tracked"  # PyTorch's count of batches, which old files lack and nothing here depends on


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor; printed, it is the account for the person.

    Attributes:
        source: where the tensors came from.
        loaded: names in the network that took a tensor.
        reinitialised: names in the network that keep their fresh values, because the source lacks them or has them in
            another shape.
        dropped: names in the source that found no place in the network.
        settings: settings of the encoder whose value here is not that of the source, though every shape fits.
        notice: the terms that the source came with.
    """

    source: str
    loaded: list[str]
    reinitialised: list[str]
    dropped: list[str]
    settings: dict[str, str] = field(default_factory=dict)
    notice: str = ""

    def __str__(self) -> str:
        counts = []
        for part in ("encoder", "decoder"):
            loaded = sum(name.startswith(f"{part}.") for name in self.loaded)
            fresh = sum(name.startswith(f"{part}.") for name in self.reinitialised)
            if loaded + fresh:
                counts.append(f"{loaded} of {loaded + fresh} {part} tensors")
        lines = [f"Loaded {' and '.join(counts)} from {self.source}."]
        if self.reinitialised:
            lines.append(f"  Freshly initialised ({len(self.reinitialised)}): {self._shown(self.reinitialised)}")
        if self.dropped:
            lines.append(f"  Dropped from the file ({len(self.dropped)}): {self._shown(self.dropped)}")
        if self.settings:
            differing = ", ".join(f"{name} {values}" for name, values in self.settings.items())
            lines.append(f"  Set otherwise than in the file: {differing}")
        if self.notice:
            lines.append(f"  {self.notice}")
        return "\n".join(lines)

    def _shown(self, names: list[str], limit: int = 8) -> str:
        both = set(self.reinitialised) & set(self.dropped)
        shown = [f"{name} (another shape)" if name in both else name for name in names[:limit]]
        return ", ".join(shown) + (f", and {len(names) - limit} more" if len(names) > limit else "")


def load_tensors(
    network: Network, tensors: dict[str, Tensor], source: str, holds: dict[str, Any] | None = None
) -> LoadReport:
    """Copy tensors named ``encoder.*`` and ``decoder.*`` into the network where name and shape fit.

    Args:
        network: changed in place, and only if its whole encoder is there.
        tensors: by the names that ``network.state_dict()`` uses.
        source: for the report and the errors.
        holds: description of the encoder that the source holds, if it is known.

    Raises:
        ScanlearnError: less than the whole encoder was there; names the first tensors and both shapes.
    """
    state = network.state_dict()
    fitting = {name: t for name, t in tensors.items() if name in state and state[name].shape == t.shape}
    encoder = [name for name in state if name.startswith("encoder.")]
    absent = [name for name in encoder if name not in fitting and not name.endswith(COUNTER)]
    if absent:
        raise _incomplete(network, tensors, source, absent, len(encoder), holds)
    network.load_state_dict({**state, **fitting})
    return LoadReport(
        source,
        loaded=[name for name in state if name in fitting],
        reinitialised=[name for name in state if name not in fitting],
        dropped=sorted(name for name in tensors if name not in fitting),
        settings=_differing(network.encoder.describe(), holds),
    )


def _incomplete(
    network: Network,
    tensors: dict[str, Tensor],
    source: str,
    absent: list[str],
    total: int,
    holds: dict[str, Any] | None,
) -> ScanlearnError:
    state = network.state_dict()
    first = []
    for name in absent[:3]:
        wanted, got = shape_of(state[name].shape), shape_of(tensors[name].shape) if name in tensors else "nothing"
        first.append(f"{name} ({wanted} here, {got} there)")
    more = ", ..." if len(absent) > len(first) else ""
    differing = _differing(network.encoder.describe(), holds)
    advice = "; ".join(f"{key} {values}" for key, values in differing.items())
    return ScanlearnError(
        f"{source} does not fill {len(absent)} of the {total} tensors of the encoder {network.encoder.name!r}: "
        f"{', '.join(first)}{more}; "
        + (f"set the encoder as in the file: {advice}." if advice else "start from weights of the same encoder.")
    )


def _differing(ours: dict[str, Any], holds: dict[str, Any] | None) -> dict[str, str]:
    return {key: f"{ours.get(key)} (file: {value})" for key, value in (holds or {}).items() if ours.get(key) != value}


def shape_of(shape: Sequence[int]) -> str:
    """``(3, 4)`` as ``3x4``, for sentences."""
    return "x".join(map(str, shape)) or "scalar"
