"""The choice of two: pairs of endpoints, drawn in advance, because drawing costs more than choosing.

The less loaded endpoint of a pair is chosen (Mitzenmacher 2001), or the first one if both are equal. The first ones are
in proportion to the weights, as exactly as integers allow. So if all endpoints keep up, the weights alone decide the
shares.
"""

import random
from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import ceil, gcd, isqrt
from typing import Protocol, TypeVar

PAIRS_MIN = 509
"""Pairs drawn for a service of few endpoints. Their number is always prime, so that no rhythm of requests falls in step
with them.
"""

PAIRS_MAX = 4093
"""Pairs drawn for many different weights; the shares then match the weights to this precision."""


class Weighted(Protocol):
    """An object that has a share."""

    weight: int
    """Relative to the others', ≥ 1."""


WeightedT = TypeVar("WeightedT", bound=Weighted)


def draw_pairs(among: Sequence[WeightedT], chance: random.Random) -> list[tuple[WeightedT, WeightedT]]:
    """Draw pairs of two different objects, by weight without replacement; a single one is paired with itself.

    Takes about 0.5 µs per pair for any number of objects. `among` must not be empty.
    """
    if len(among) == 1:
        return [(among[0], among[0])]
    shares = compute_slots([one.weight for one in among], chance.random())
    size = sum(shares)
    # Each object's slots are adjacent, and the table is doubled: so the slots of all others follow an object's own.
    table = [one for one, share in zip(among, shares, strict=True) for _ in range(share)] * 2
    ends = accumulate(shares)
    first = [
        (one, end, size - share) for one, share, end in zip(among, shares, ends, strict=True) for _ in range(share)
    ]
    number = chance.random
    first.sort(key=lambda _: number())
    return [(one, table[end + int(number() * others)]) for one, end, others in first]


def compute_slots(weights: Sequence[int], offset: float) -> list[int]:
    """Return how many of the pairs begin with each, in proportion to the weights: within one of the exact number.

    `offset` (0 to 1) decides which objects get one more, so that over many draws each gets its exact share (systematic
    sampling, Madow 1949).
    """
    whole = sum(weights)
    total = whole // gcd(*weights)
    least = total * ceil(PAIRS_MIN / total)
    size = find_prime(least) if least < PAIRS_MAX else PAIRS_MAX
    # In integers: an offset next to 1 would be rounded up, to one pair too many.
    shift = int(offset * whole)
    edges = [(edge * size + shift) // whole for edge in accumulate(weights, initial=0)]
    return [after - before for before, after in pairwise(edges)]


def find_prime(least: int) -> int:
    """Return the smallest prime that is not below `least`."""
    while any(least % factor == 0 for factor in range(2, isqrt(least) + 1)):
        least += 1
    return least


def compute_tiers(regions: Sequence[str | None], own: str) -> list[int]:
    """Return the distance of each endpoint, from the regions of all.

    It is 0 for the own region or none; other regions count up in the order of their first listing.
    """
    others = list(dict.fromkeys(region for region in regions if region not in (None, own)))
    return [0 if region in (None, own) else 1 + others.index(region) for region in regions]
