"""Sources whose files do to the process that reads them what broken decoders do."""

import os
import signal
import time
import warnings
from pathlib import Path

from scanlearn.scans.sources import FileRows, FileSource


def double_or_die(task):
    """Twice the number; "die" and "hang" do so."""
    if task == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "hang":
        time.sleep(1000)
    if task == "raise":
        raise ValueError("a fault of the program")
    return task * 2


def process(task):
    """Who worked on the task."""
    return os.getpid()


class Unreadable:
    """Nobody can unpickle it."""

    def __reduce__(self):
        return int, ("no number",)


def talk(task):
    """What decoders do when a file is odd."""
    print("anna.dcm")
    warnings.warn("anna.dcm is odd", stacklevel=1)
    os.system("echo anna.dcm >&2")
    return task


class DeadlyRows(FileRows):
    """Reading a file called *die* kills the process, *hang* never returns, *vanish* is gone when its turn comes."""

    def read(self, row):
        name = Path(self.file(row)).name
        if "die" in name:
            os.kill(os.getpid(), signal.SIGKILL)
        if "hang" in name:
            time.sleep(1000)
        if "vanish" in name:
            Path(self.file(row)).unlink(missing_ok=True)
        return super().read(row)


class DeadlySource(FileSource):
    def only(self, rows):
        return DeadlyRows({r: self._paths[r] for r in rows}, {r: self._masks[r] for r in rows}, self.limit_bytes)
