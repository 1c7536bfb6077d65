"""Sampling: which of Stripe's sums are read on a day: all, unless there are more than its rate limit allows. Pure.

A read is one (customer, meter) pair, however long the time that it is about.
"""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

PAIRS_MAX = 300_000
"""The most pairs of which all are read each day: at ten reads a second, eight hours and a half."""
DEAREST_PART = 100
"""Divisor of all pairs, where there are more: one in so many, the costliest ones, is read each day."""
DAYS = 7
"""The others are read once in so many days."""

Pair = tuple[str, str]
"""Customer and meter."""


class Weight(NamedTuple):
    """The reasons to read a pair."""

    is_confirmed: bool
    """Whether all that was sent of it is known to be counted."""
    cents: int
    """The approximate cost of its units."""


def choose_pairs(pairs: Mapping[Pair, Weight], day: int, most: int) -> set[Pair]:
    """Return the pairs that are read on a day, which is a number that grows by one with each day."""
    if len(pairs) <= most:
        return set(pairs)
    dearest = sorted(pairs, key=lambda pair: (-pairs[pair].cents, pair))[: -(-len(pairs) // DEAREST_PART)]
    return {
        *dearest,
        *(pair for pair, weight in pairs.items() if not weight.is_confirmed or compute_turn(pair) == day % DAYS),
    }


def compute_turn(pair: Pair) -> int:
    """Return the number of the day, from 0 to DAYS - 1, on which a pair has its turn."""
    return hashlib.sha256("\0".join(pair).encode()).digest()[0] % DAYS
