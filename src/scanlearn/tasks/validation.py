"""What a fine-tuning is validated by: its own loss on the labelled validation scans, read whole as in the test."""

from __future__ import annotations

from scanlearn.catalog.labels import Labels
from scanlearn.engine.learner import Learner
from scanlearn.engine.stopping import Validate
from scanlearn.errors import ScanlearnError
from scanlearn.scans.store import Store
from scanlearn.tasks.kinds import KINDS
from scanlearn.tasks.targets import labelled_rows


def validation_figure(task: str, store: Store, column: Labels, size: list[int]) -> Validate:
    """The figure of a fine-tuning, lower is better; it depends on the weights and on nothing that is drawn.

    Raises:
        ScanlearnError: the validation part has no scan with what the task learns from.
    """
    kind = KINDS[task]
    rows = labelled_rows(store, column, "val")
    if len(rows) == 0:
        raise ScanlearnError(
            f"No scan of the validation part of {store.path.name} has a {kind.wanted} to validate by: add "
            "--stopping.every 0, or prepare a store with a larger validation part."
        )

    def figure(learner: Learner) -> float:
        return kind.loss(learner, learner.objectives[task], store, rows, column, size)

    return figure
