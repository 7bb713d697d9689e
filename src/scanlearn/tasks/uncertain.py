"""What to make of findings that a label column calls uncertain: one policy for all classes, or one for each.

ignore, zeros, ones, multiclass and self_trained are U-Ignore, U-Zeros, U-Ones, U-MultiClass and U-SelfTrained of Irvin et
al., "CheXpert", AAAI 2019, arXiv 1901.07031; lsr_ones and lsr_zeros are the label smoothing of Pham et al.,
arXiv 1911.06475. A policy changes targets of the training and of its validation; in the test, whatever is uncertain does
not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scanlearn.errors import ScanlearnError, unknown

RANGES = {"zeros": (0.0, 0.0), "ones": (1.0, 1.0), "lsr_ones": (0.55, 0.85), "lsr_zeros": (0.0, 0.3)}
POLICIES = ("ignore", *RANGES, "multiclass", "self_trained")
NAMED: dict[str, dict[str, str]] = {  # sets of policies by the names of those who use them
    "jfhealthcare": {
        "Edema": "ones",
        "Atelectasis": "ones",
        "Cardiomegaly": "zeros",
        "Consolidation": "zeros",
        "Pleural Effusion": "zeros",
    },
}


def policies_of(asked: str | Mapping[str, Any], classes: Sequence[str]) -> list[str]:
    """The policy of each class.

    Args:
        asked: a policy; the name of a set of them (jfhealthcare); or a policy for each of some classes, with ``default``
            for the others (ignore unless said).
        classes: the K names.
    """
    if isinstance(asked, str) and asked in NAMED:
        table: Mapping[str, Any] = {k: v for k, v in NAMED[asked].items() if k in classes}
        if not table:
            raise ScanlearnError(
                f"The policies of {asked} are for {', '.join(NAMED[asked])}: the labels have none of them."
            )
    elif isinstance(asked, Mapping):
        table = {k: v for k, v in asked.items() if k != "default"}
        for name in table:
            if name not in classes:
                raise unknown("class", str(name), [*classes, "default"])
    else:
        table = {}
    default = asked.get("default", "ignore") if isinstance(asked, Mapping) else "ignore" if table else asked
    chosen = [table.get(name, default) for name in classes]
    for policy in chosen:
        if policy not in POLICIES:
            raise unknown("policy for uncertain labels", str(policy), [*POLICIES, *NAMED])
    return chosen


def training_targets(
    codes: np.ndarray, policies: Sequence[str], seed: int, probabilities: np.ndarray | None = None
) -> np.ndarray:
    """What a network is to answer: float32 (N, K) in [0, 1], NaN where a cell does not count, -1 for multiclass.

    The smoothed labels are drawn once for each scan and class, from the seed and the row: not anew in every epoch, so
    that a resumed run, and the validation loss, go by the same targets.

    Args:
        codes: (N, K) of 1, 0, -1 (uncertain) and NaN; certain cells come back as they are.
        policies: one for each class.
        seed: of the run.
        probabilities: (N, K) of the first pass, for the classes that are self-trained.
    """
    targets = np.array(codes, np.float32)
    drawn = np.random.default_rng([seed, 0x0C5E]).random(targets.shape, np.float32)
    for k, policy in enumerate(policies):
        uncertain = targets[:, k] == -1
        if policy == "ignore":
            targets[uncertain, k] = np.nan
        elif policy in RANGES:
            low, high = RANGES[policy]
            targets[uncertain, k] = low + (high - low) * drawn[uncertain, k]
        elif policy == "self_trained":
            if probabilities is None:
                raise ValueError("self_trained needs the probabilities of a first pass")
            targets[uncertain, k] = probabilities[uncertain, k]
    return targets


def first_pass(policies: Sequence[str]) -> list[str]:
    """The policies of the first of the two passes of self-training: what is relabelled later is ignored."""
    return ["ignore" if policy == "self_trained" else policy for policy in policies]
