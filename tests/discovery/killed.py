"""Discover in a process that kills itself: ``python killed.py STORE OUT HOW PLACE...`` prints how each of them ended.

One process imports everything and forks for each place, before any thread is there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any


def arm(place: str) -> None:
    """Die while thumbnails are made, while the auto-encoder is trained, or before descriptors are written."""
    from scanlearn.discovery import descriptors, thumbnails
    from scanlearn.engine import train

    if place == "thumbnails":
        thumbnails.thumbnail = dying(thumbnails.thumbnail, 4)
    elif place == "training":
        train.save_checkpoint = dying(train.save_checkpoint, 2)
    else:
        descriptors.embed_scans = dying(descriptors.embed_scans, 0)


def dying(function: Callable[..., Any], after: int) -> Callable[..., Any]:
    """The function, which kills the process at the call after so many."""
    calls: list[int] = []

    def call(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) > after:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    return call


if __name__ == "__main__":
    import torch
    import torch.utils.tensorboard

    from scanlearn.discovery.discover import discover

    torch.set_num_threads(1)
    store, out, how, *places = sys.argv[1:]
    for place in places:
        child = os.fork()
        if child == 0:
            try:
                arm(place)
                discover(store, out, **json.loads(how))
            finally:
                os._exit(3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
