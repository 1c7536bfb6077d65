"""Sampling: the sums of Stripe to read on a day: all, unless there are more than its rate limit allows. Pure.

A read covers one (customer, meter) pair, for any length of time.
"""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

PAIRS_MAX = 300_000
"""The most pairs that are all read each day: at ten reads a second, eight and a half hours."""
DEAREST_PART = 100
"""If there are more pairs, the costliest ones, this fraction of all, are read each day."""
DAYS = 7
"""The other pairs are read once in this number of days."""

Pair = tuple[str, str]
"""Customer and meter."""


class Weight(NamedTuple):
    """The reasons to read a pair."""

    is_confirmed: bool
    """True if all its sent usage is known to be counted."""
    cents: int
    """The approximate cost of its units."""


def choose_pairs(pairs: Mapping[Pair, Weight], day: int, most: int) -> set[Pair]:
    """Return the pairs to read on a day. Days are consecutive numbers."""
    if len(pairs) <= most:
        return set(pairs)
    dearest = sorted(pairs, key=lambda pair: (-pairs[pair].cents, pair))[: -(-len(pairs) // DEAREST_PART)]
    return {
        *dearest,
        *(pair for pair, weight in pairs.items() if not weight.is_confirmed or compute_turn(pair) == day % DAYS),
    }


def compute_turn(pair: Pair) -> int:
    """Return the turn of a pair, a day number from 0 to DAYS - 1."""
    return hashlib.sha256("\0".join(pair).encode()).digest()[0] % DAYS
