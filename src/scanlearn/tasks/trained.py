"""A fine-tuned run on disk: the network, the head beside it, and what both were made for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from scanlearn.errors import ScanlearnError
from scanlearn.files import read_json, write_atomic, write_json
from scanlearn.networks.network import Network
from scanlearn.weights.encoder import load_network

HEAD, TASK = "head.safetensors", "task.json"
FACTS = ("task", "classes", "multilabel", "input_size", "store_settings", "all_8bit", "mask_values")


def save_head(head: nn.Module | dict[str, Tensor], folder: Path, facts: dict[str, Any]) -> None:
    """Write the head's tensors and the task's facts beside the network."""
    state = head if isinstance(head, dict) else head.state_dict()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_atomic(folder / HEAD, save(tensors))
    write_json(folder / TASK, facts)


@dataclass
class Trained:
    """A network ready to be applied."""

    network: Network
    head: dict[str, Tensor]
    facts: dict[str, Any]

    def class_logits(self, pooled: Tensor) -> Tensor:
        """Logits (N, K) of pooled features (N, num_features), by the head's linear layers with ReLU between them."""
        first, *others = layers_of(self.head)
        x = F.linear(pooled.float(), *first)
        for layer in others:
            x = F.linear(F.relu(x), *layer)
        return x


def layers_of(head: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) of the head's linear layers in order: one, or two where it has a hidden layer."""
    return [(head[f"{name}.weight"], head[f"{name}.bias"]) for name in ("head.1", "head.3") if f"{name}.weight" in head]


def load_trained(run: str | Path, device: torch.device | str = "cpu") -> Trained:
    """Load a fine-tuned run, in evaluation mode; a run without a task is refused."""
    folder = Path(run) / "encoder"
    if not (folder / TASK).is_file():
        raise ScanlearnError(
            f"{run} is no fine-tuned run: make one with `scanlearn finetune STORE --task ... --out {run}`."
        )
    network = load_network(folder).to(device).eval()
    try:
        head = {name: tensor.to(device) for name, tensor in load_file(folder / HEAD).items()}
    except (SafetensorError, OSError) as error:
        raise ScanlearnError(f"The head of {run} cannot be read: fine-tune again.") from error
    facts = read_json(folder / TASK, f"The {TASK} of {run}")
    absent = [name for name in FACTS if name not in facts]
    if absent:
        raise ScanlearnError(f"The {TASK} of {run} lacks {absent[0]!r}: it was changed by hand, so fine-tune again.")
    if facts["task"] == "classify":
        count = len(facts["classes"]) if isinstance(facts["classes"], list) else -1
        if not leads_to(head, network.encoder.num_features, count):
            raise ScanlearnError(f"The head of {run} does not fit its network and classes: fine-tune again.")
    return Trained(network, head, facts)


def leads_to(head: dict[str, Tensor], width: int, classes: int) -> bool:
    """Whether a head of unknown origin takes ``width`` features to that many classes."""
    names = {"head.1.weight", "head.1.bias"}
    if set(head) not in (names, names | {"head.3.weight", "head.3.bias"}):
        return False
    for weight, bias in layers_of(head):
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            return False
        width = len(weight)
    return width == classes


def probabilities(logits: Tensor, multilabel: bool) -> Tensor:
    """Softmax over classes, or a sigmoid for each label."""
    return torch.sigmoid(logits) if multilabel else torch.softmax(logits, dim=1)
