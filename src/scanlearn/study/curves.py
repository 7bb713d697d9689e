"""The log of a run as small diagrams, each with a line that says how to read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scanlearn.study.facts import Facts
from scanlearn.study.figures import Line, curve_figure
from scanlearn.study.page import Panel

# Figures of the log in the words of a page: key -> (title, how to read it).
TRAIN = {
    "contrast_accuracy": ("Own key found", "How often a view finds the other view of its scan among all keys."),
    "mixed_images_accuracy": ("Mixed images found", "The same for two images laid over each other."),
    "mixed_features_accuracy": ("Mixed features found", "The same for features of two images, mixed."),
    "words_accuracy": ("Own word found", "How often a crop is told by its word, among all words."),
    "rotation_accuracy": ("Turn found", "How often it is told how a scan was turned."),
    "restored_std": ("Spread of the restored image", "Near 0 the network paints one grey value."),
}
MONITOR = {
    "rankme": ("RankMe", "Directions that the features use. Few of them: collapse."),
    "feature_std": ("Spread of features", "0 is collapse, 1 is even over all directions."),
    "alignment": ("Alignment", "Distance between two views of a scan: smaller is better, 0 with collapse."),
    "uniformity": ("Uniformity", "How evenly scans fill the space of features: lower is better."),
}
SPEED = {
    "learning_rate": ("Learning rate", "How far each step moves the weights."),
    "images_per_second": ("Images per second", "Speed of training, without checks."),
    "data_wait": ("Waiting for data", "Share of the time in which training waited for scans."),
}
FROM_ZERO = ("restored_std", "rankme", "feature_std", "alignment", "images_per_second", "learning_rate")
PERCENT = (
    "contrast_accuracy",
    "mixed_images_accuracy",
    "mixed_features_accuracy",
    "words_accuracy",
    "rotation_accuracy",
    "data_wait",
)
PROBES = {"knn_auroc_": "nearest neighbours", "linear_auroc_": "linear classifier"}
_KNOWN = ("step", "kind", "loss", "warning")


def series(lines: Sequence[dict[str, Any]], key: str, label: str = "") -> Line:
    """One figure of the log over the steps."""
    found = [line for line in lines if key in line]
    return Line(label or key, [line["step"] for line in found], [line[key] for line in found])


def keys_of(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the numbers in the log, in the order in which they appear."""
    return list(dict.fromkeys(key for line in lines for key, value in line.items() if _is_number(value)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def curve_panels(facts: Facts) -> list[Panel]:
    """Loss, features, probes and speed of a run; empty for a run that logged nothing."""
    return [*loss_panels(facts), *validation_panels(facts), *monitor_panels(facts), *_plain(facts.train, SPEED)]


def loss_panels(facts: Facts) -> list[Panel]:
    """The loss with its parts where there are several, and what the objectives log beside it."""
    lines, objectives = facts.train, list(facts.recipe["objectives"])
    if not lines:
        return []
    drawn = [series(lines, "loss", "weighted sum")]
    if len(objectives) > 1:
        drawn += [series(lines, name) for name in objectives if any(name in line for line in lines)]
    panels = [Panel("Loss", curve_figure(drawn, name="Loss"), "What training makes smaller.")]
    own = [key for key in keys_of(lines) if key not in (*_KNOWN, *objectives, *SPEED)]
    return panels + _plain(lines, {key: TRAIN.get(key, (key.replace("_", " "), "")) for key in own})


def validation_panels(facts: Facts) -> list[Panel]:
    """The figure that decided when to end and which weights to keep; empty for a run without validations."""
    if not facts.validation:
        return []
    drawn = [series(facts.validation, "figure", "each validation"), series(facts.validation, "best", "best so far")]
    step = facts.validation[-1]["best_step"]
    note = f"The loss on the validation part; lowest at step {step:,}."
    return [Panel("Validation", curve_figure(drawn, name="Validation"), note)]


def monitor_panels(facts: Facts) -> list[Panel]:
    """How rich the features are, and whether labels can be told from them."""
    lines = facts.monitor
    keys = keys_of(lines)
    panels = _plain(lines, MONITOR)
    targets = list(dict.fromkeys(key[len(p) :] for key in keys for p in PROBES if key.startswith(p)))
    for target in targets:
        drawn = [series(lines, prefix + target, words) for prefix, words in PROBES.items() if prefix + target in keys]
        figure = curve_figure(drawn, reference=0.5)
        panels.append(Panel(f"AUROC of {target}", figure, "The label read off frozen features; 0.5 is guessing."))
    known = (*_KNOWN, *MONITOR, *(prefix + target for prefix in PROBES for target in targets))
    return panels + _plain(lines, {key: (key.replace("_", " "), "") for key in keys if key not in known})


def _plain(lines: Sequence[dict[str, Any]], titles: dict[str, tuple[str, str]]) -> list[Panel]:
    known, panels = keys_of(lines), []
    for key, (title, note) in titles.items():
        if key in known:
            line = series(lines, key)
            picture = curve_figure([line], name=title, percent=key in PERCENT, zero=key in FROM_ZERO)
            panels.append(Panel(title, picture, note))
    return panels
