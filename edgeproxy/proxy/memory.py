"""Bounded memories of what bytes mean: forgotten all at once when full.

Clearing is cheaper than evicting one by one, which would cost every hit a step, and bounds memory all the same.
"""

from typing import TypeVar

V = TypeVar("V")

MOST = 1024
"""Entries of one memory."""

LONGEST = 4096
"""Bytes of a key that is remembered; longer ones are rare and would let a few clients fill much memory."""


def remember(memory: dict[bytes, V], key: bytes, value: V) -> V:
    """Keep `value` under `key`, and return it."""
    if len(key) <= LONGEST:
        if len(memory) >= MOST:
            memory.clear()
        memory[key] = value
    return value
