"""Damaged and forged copies of a file, and the one thing that all of them must meet with: to be read, or refused."""

import json
import random
import time

from scanlearn.errors import ScanlearnError

SECONDS = 5.0  # that one file may take at most
VALUES = [
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    "x" * 1000,
    "__class__",
    [],
    {},
    [[[[]]]],
    {"a": {"b": 1}},
    "\x00",
    float("nan"),
]


def read_or_refused(read, *values):
    """Whether the file was read; everything but a ScanlearnError of one line fails the test."""
    begun = time.perf_counter()
    try:
        read(*values)
    except ScanlearnError as error:
        assert "\n" not in str(error) and len(str(error)) < 1500
        return False
    finally:
        assert time.perf_counter() - begun < SECONDS
    return True


def damaged(data, count, seed):
    """``count`` damaged copies of a file: flipped bits, cut ends, overwritten and repeated parts."""
    dice = random.Random(seed)
    for i in range(count):
        copy = bytearray(data)
        at = dice.randrange(len(copy))
        kind = i % 5
        if kind == 0:
            copy[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del copy[at:]
        elif kind == 2:
            copy[at : at + 8] = dice.randbytes(8)
        elif kind == 3:
            copy[at:at] = copy[max(at - 64, 0) : at]
        else:
            for _ in range(20):
                copy[dice.randrange(min(len(copy), 400))] = dice.randrange(256)  # the heads of files
        yield bytes(copy)


def places(data, path=()):
    """The paths of every value in nested data."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def replaced(data, path, value):
    """A copy of nested data with another value at one place."""
    copy = json.loads(json.dumps(data))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def forged(data, count, seed):
    """``count`` copies with a value of another type or size at some place."""
    dice, known = random.Random(seed), list(places(data))
    for _ in range(count):
        yield replaced(data, dice.choice(known), dice.choice(VALUES))
