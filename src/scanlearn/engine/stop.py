"""Signals that ask a run to stop: it ends at the step, with a checkpoint."""

from __future__ import annotations

import signal
from typing import Any

from lightning_fabric import Fabric


class StopSignal:
    """SIGTERM and SIGUSR1 (preemption) and a first Ctrl-C end the run at the step; a second Ctrl-C ends it at once."""

    def __init__(self, fabric: Fabric):
        self._fabric, self._caught = fabric, False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._catch)
            except ValueError:  # not in the main thread (a notebook server): then nobody sends them
                break
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, _: Any) -> None:
        if number == signal.SIGINT and self._caught:
            raise KeyboardInterrupt
        self._caught = True

    def asked(self, step: int) -> bool:
        """True on all ranks once one of them was signalled; several ranks agree every tenth step."""
        if self._fabric.world_size == 1:
            return self._caught
        if step % 10:
            return False
        return bool(self._fabric.strategy.reduce_boolean_decision(self._caught, all=False))
