"""Decoding in a process of its own, for GDCM: on damaged JPEG and JPEG-LS streams it ends the process that it runs in.

One process for each thread that needs it, started with the first such file and used until its thread ends or it dies.
Asked for a path (a line of JSON), it answers with frames: a line of JSON, then the bytes of the array.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from scanlearn.errors import FileError

COMMAND = [sys.executable, "-P", "-m", "scanlearn.scans.dicom_apart"]
LONGEST = 300.0  # seconds for one frame
_local = threading.local()


def frames_apart(path: Path) -> Iterator[np.ndarray]:
    """The frames of ``grey_frames``, decoded by GDCM in another process; FileError where that dies or hangs."""
    child = _child()
    done = False
    try:
        child.ask(path)
        while (told := child.answer()) is not None:
            if "shape" in told:
                yield np.frombuffer(told["bytes"], told["dtype"]).reshape(told["shape"])
                continue
            done = True
            if "reason" in told:
                raise FileError(path, told["reason"])
            return
        raise FileError(path, "cannot be decoded: its compressed pixels are damaged so badly that the decoder ended.")
    finally:
        if not done:  # dead, or with frames on their way that nobody wants
            child.stop()
            _local.child = None


class _Child:
    def __init__(self) -> None:
        self.owner = os.getpid()
        paths = os.pathsep.join(str(Path(p).absolute()) for p in sys.path if p)
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # the decoder prints what it thinks of a stream
            env=os.environ | {"PYTHONPATH": paths},
        )

    def ask(self, path: Path) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(str(path.absolute())).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:  # it died before; the missing answer says so
            pass

    def answer(self) -> dict[str, Any] | None:
        """What it said, the array's bytes under "bytes"; None where it died, or was killed because it took too long."""
        assert self._process.stdout is not None
        clock = threading.Timer(LONGEST, self._process.kill)
        clock.daemon = True
        clock.start()
        try:
            line = self._process.stdout.readline()
            told = json.loads(line) if line.endswith(b"\n") else None
            if told is not None and "shape" in told:
                told["bytes"] = self._process.stdout.read(told["size"])
                return told if len(told["bytes"]) == told["size"] else None
            return told
        finally:
            clock.cancel()

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __del__(self) -> None:
        if self.owner == os.getpid():  # not the copy in a forked process
            self.stop()


def _child() -> _Child:
    child = getattr(_local, "child", None)
    if child is None or child.owner != os.getpid():
        child = _local.child = _Child()
    return child


def serve(questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer until the questions end: every frame of the file asked for, then an empty object, or a reason."""
    from scanlearn.catalog.dicom_file import open_dicom, quiet
    from scanlearn.scans.dicom_pixels import data_tags, grey_frames

    def say(told: dict[str, Any], array: bytes = b"") -> None:
        answers.write(json.dumps(told).encode() + b"\n" + array)
        answers.flush()

    with quiet(pixels=True):
        for line in iter(questions.readline, b""):
            path = Path(json.loads(line))
            try:
                for frame in grey_frames(open_dicom(path, data_tags(), pixels_up_to=1), path, apart=True):
                    array = np.ascontiguousarray(frame).tobytes()
                    say({"shape": frame.shape, "dtype": frame.dtype.str, "size": len(array)}, array)
            except FileError as error:
                say({"reason": error.reason})
            except Exception as error:
                say({"reason": f"cannot be decoded ({type(error).__name__})."})
            else:
                say({})


if __name__ == "__main__":
    # Decoders print to stdout too; the answers keep the real one for themselves.
    real = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, real)
