"""``prepare`` that kills itself at a chosen place: python killed.py SOURCE OUT PLACE, without processes that read."""

import os
import signal
import sys

from scanlearn.scans import arrays, build, journal, part, prepare, writers


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def in_small_shards():
    """Shards of a few scans, written at once, so that small data meet every step."""
    arrays.STACK_SHARD_BYTES, writers.FLUSH_SECONDS = 1 << 12, 0.0


def wrap(owner, name, *, times=1, after=False):
    """Die at the so-many-th call of a function, before or after its work."""
    whole, left = getattr(owner, name), [times]

    def wrapped(*arguments):
        left[0] -= 1
        if left[0] == 0 and not after:
            die()
        result = whole(*arguments)
        if left[0] == 0:
            die()
        return result

    setattr(owner, name, wrapped)


def cut_line(self, line):
    """Half a line of the journal reaches the disk."""
    self._file.write(b'{"generation": 0, "rows": [{"row": 0, "dig')
    die()


PLACES = {
    "at the first note": lambda: wrap(journal.Journal, "append"),
    "before a note": lambda: wrap(journal.Journal, "append", times=4),
    "after a note": lambda: wrap(journal.Journal, "append", times=4, after=True),
    "in a note": lambda: setattr(journal.Journal, "append", lambda self, *_: cut_line(self, None)),
    "after widening": lambda: wrap(writers.Stack, "_widened", after=True),
    "while closing": lambda: wrap(writers.Stack, "close", after=True),
    "before finishing": lambda: wrap(build, "finish"),
    "after finishing": lambda: wrap(build, "finish", after=True),
    "between two stores": lambda: setattr(part.Part, "move_in", lambda self: die(self.out.rename(self.old))),
    "in place": lambda: wrap(part.Part, "move_in", after=True),
}

if __name__ == "__main__":
    in_small_shards()
    source, out, place = sys.argv[1:]
    PLACES[place]()
    prepare.prepare(source, out, workers=0, overwrite=True)
