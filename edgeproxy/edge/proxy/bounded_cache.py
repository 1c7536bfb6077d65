"""Bounded memories of what bytes mean: forgotten all at once when full.

Clearing is cheaper than evicting one by one, which would cost every hit a step, and bounds memory all the same.
"""

from collections.abc import Hashable
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ENTRIES_MAX = 1024
"""Entries of one memory."""

KEY_BYTES_MAX = 4096
"""Bytes of a key that is remembered; longer ones are rare and would let a few clients fill much memory."""


def store_bytes(memory: dict[bytes, V], key: bytes, value: V) -> V:
    """Keep `value` under bytes, unless they are too long, and return it."""
    return store(memory, key, value) if len(key) <= KEY_BYTES_MAX else value


def store(memory: dict[K, V], key: K, value: V, most: int = ENTRIES_MAX) -> V:
    """Keep `value` under `key`, and return it."""
    if len(memory) >= most:
        memory.clear()
    memory[key] = value
    return value
