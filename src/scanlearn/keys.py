"""Keys of random streams: 64-bit numbers from integers and words. Plain Python, so that a key costs no import."""

from __future__ import annotations

import zlib

GAMMA = 0x9E3779B97F4A7C15
M1 = 0xBF58476D1CE4E5B9
M2 = 0x94D049BB133111EB
MASK = (1 << 64) - 1


def mix(value: int) -> int:
    """SplitMix64's finaliser on one Python integer (any sign, taken modulo 2**64)."""
    value = (value + GAMMA) & MASK
    value = ((value ^ (value >> 30)) * M1) & MASK
    value = ((value ^ (value >> 27)) * M2) & MASK
    return value ^ (value >> 31)


def key_of(*parts: int | str) -> int:
    """One 64-bit key from integers and words, order-sensitive: ``key_of(seed, step, position)``."""
    key = 0
    for part in parts:
        key = mix(key ^ mix(zlib.crc32(part.encode()) if isinstance(part, str) else part))
    return key
