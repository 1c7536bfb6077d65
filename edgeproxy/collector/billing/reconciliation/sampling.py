"""Which of Stripe's sums are read on a day: all, unless there are more than its allowance of reads bears. Pure.

A read is one (customer, meter) pair, however long the time that it is about.
"""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

PAIRS_MAX = 300_000
"""Pairs of which all are read each day: at ten reads a second, eight hours and a half."""
DEAREST_PART = 100
"""Of more than that, one of so many is read each day for the money that is in it."""
DAYS = 7
"""Of the others each is read once in so many days."""

Pair = tuple[str, str]
"""Customer and meter."""


class Weight(NamedTuple):
    """What speaks for reading a pair."""

    is_confirmed: bool
    """Whether all that was sent of it is known to be counted."""
    cents: int
    """What its units cost, about."""


def chosen(pairs: Mapping[Pair, Weight], day: int, most: int) -> set[Pair]:
    """Choose the pairs that are read on a day, which is a number that grows by one with each day."""
    if len(pairs) <= most:
        return set(pairs)
    dearest = sorted(pairs, key=lambda pair: (-pairs[pair].cents, pair))[: -(-len(pairs) // DEAREST_PART)]
    return {
        *dearest,
        *(pair for pair, weight in pairs.items() if not weight.is_confirmed or turn(pair) == day % DAYS),
    }


def turn(pair: Pair) -> int:
    """On which of the DAYS a pair has its turn."""
    return hashlib.sha256("\0".join(pair).encode()).digest()[0] % DAYS
