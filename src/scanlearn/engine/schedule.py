"""Learning-rate schedules: pure functions of the step, so that a resumed run cannot drift."""

from __future__ import annotations

import math

from scanlearn.engine.recipe import ScheduleSettings
from scanlearn.errors import unknown

SCHEDULES = ("constant", "cosine", "step", "poly", "plateau")


def factor(settings: ScheduleSettings, step: int, steps: int, steps_per_epoch: int = 1) -> float:
    """What the base learning rate is multiplied by at ``step`` (from 0) of ``steps``.

    cosine: ``q + end (1 - q)`` with ``q = (1 + cos(pi t)) / 2``; step: ``gamma`` at each milestone and after each
    ``every`` steps; poly: ``(1 - t)^power``; t = share of the run that is done, after warm-up. ``per_epoch`` holds the
    rate through each pass over the data, as MoCo does. A plateau is no function of the step: what it does to the rate
    is ``Stopping.rate``.

    >>> factor(ScheduleSettings("step", milestones=[0.6, 0.8]), 120, 200)
    0.1
    """
    if settings.name not in SCHEDULES:
        raise unknown("schedule", settings.name, SCHEDULES)
    warmup = settings.warmup_steps or settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / warmup
    if settings.per_epoch:
        step -= step % steps_per_epoch
    done = max(step - warmup, 0) / max(steps - warmup, 1)
    if settings.name == "cosine":
        share = 0.5 * (1.0 + math.cos(math.pi * done))
        return share + settings.end * (1.0 - share)
    if settings.name == "poly":
        return (1.0 - done) ** settings.power
    if settings.name == "step":
        # The tolerance keeps "epoch >= 120 of 200" on the right side of rounding.
        drops = sum(done >= milestone - 1e-9 for milestone in settings.milestones)
        if settings.every:
            drops += max(step - warmup, 0) // settings.every
        return settings.gamma**drops
    return 1.0
