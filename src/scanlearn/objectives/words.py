"""Self-classification of words: which place of the body does this distorted crop show?

Semantic Genesis (Haghighi et al., MICCAI 2020, arXiv 2007.06959; spec_genesis §1.6) and TransVW (Haghighi et al., IEEE
TMI 2021, arXiv 2102.10680). A word is a class of crops of one place in similar patients; its table tells the class.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from scanlearn.errors import ScanlearnError, unknown
from scanlearn.networks.conv import BATCH_NORM, CONV, trusted
from scanlearn.networks.network import Network
from scanlearn.objectives.objective import OBJECTIVES, Objective, full_precision
from scanlearn.objectives.step import Step

HEADS = ("conv", "keras")


def word_error(logits: Tensor, words: Tensor) -> Tensor:
    """``-log softmax(logits)[word]``, mean over the N crops. logits (N, C), words int64 (N,) in 0..C-1.

    The released code takes the logarithm of a softmax, which ends in -inf where the softmax underflows; this does not.
    """
    return F.cross_entropy(logits, words)


class WordHead(nn.Module):
    """From the coarsest map (N, F, *spatial) to logits (N, C); the tensors have their published names.

    ``conv`` (PyTorch): convolution F -> width, batch norm, ReLU, global average, linear width -> C.
    ``keras``: convolution F -> F, batch norm, ReLU, global average, linear F -> width, ReLU, linear width -> C.
    """

    def __init__(self, dims: int, features: int, width: int, classes: int, kind: str):
        super().__init__()
        inside = width if kind == "conv" else features
        self.conv1 = CONV[dims](features, inside, kernel_size=3, padding=1)
        self.bn1 = BATCH_NORM[dims](inside) if kind == "conv" else BATCH_NORM[dims](inside, eps=1e-3, momentum=0.01)
        self.fc1 = nn.Linear(inside, classes if kind == "conv" else width)
        self.fc2 = None if kind == "conv" else nn.Linear(width, classes)
        trusted(self)

    def forward(self, coarsest: Tensor) -> Tensor:
        pooled = F.relu(self.bn1(self.conv1(coarsest)), inplace=True).flatten(2).mean(2)
        return self.fc1(pooled) if self.fc2 is None else self.fc2(F.relu(self.fc1(pooled)))


@OBJECTIVES.register("words")
class ClassifyWords(Objective):
    """Cross-entropy of the word of each crop, from a head on the encoder's coarsest map.

    Args:
        network: its encoder sees the view; a decoder is not touched.
        view: the view that is classified. The published one is the distorted crop, not the clean one.
        classes: number of words C; pre-training takes it from the table of words.
        width: of the hidden layer, 1024 as published.
        head: ``conv`` (the PyTorch release, whose weights can be had) or ``keras``.
    """

    def __init__(
        self,
        network: Network,
        *,
        view: str = "distorted",
        classes: int | None = None,
        width: int = 1024,
        head: str = "conv",
    ):
        super().__init__()
        if classes is None:
            raise ScanlearnError(
                "The objective 'words' does not know how many words there are: the table of words tells it, so set the "
                "recipe's `patches: words` and give the table with --words WORDS."
            )
        if head not in HEADS:
            raise unknown("head of words", head, HEADS)
        if classes < 1 or width < 1:
            raise ScanlearnError(f"The objective 'words' needs classes and width of 1 or more, not {classes}, {width}.")
        self.view = view
        encoder = network.encoder
        # The name that published files have, so that their keys are those of this module.
        self.clc_out = WordHead(encoder.spatial_dims, encoder.num_features, width, classes, head)

    def logits(self, step: Step) -> Tensor:
        """(N, C), float32."""
        return self.clc_out(step.features(self.view)[-1]).float()

    def forward(self, step: Step) -> Tensor:
        if "word" not in step.batch:
            raise ScanlearnError(
                "The objective 'words' has crops without words: give the recipe `patches: words` and the command "
                "--words WORDS, a table that `scanlearn discover` made."
            )
        logits, words = self.logits(step), step.batch["word"]
        with full_precision(logits):
            step.log("words_accuracy", (logits.argmax(dim=1) == words).float().mean())
            return word_error(logits, words)
