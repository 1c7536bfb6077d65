"""The choice of two: pairs of endpoints, drawn in advance, for drawing each anew costs more than the choice.

Of a pair the less loaded one is taken (Mitzenmacher 2001), and of equals the first drawn. So the first of the pairs are
in proportion to the weights, exactly as far as whole numbers go: where all keep up, a service is shared by weight
alone.
"""

import random
from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import ceil, gcd, isqrt
from typing import Protocol, TypeVar

PAIRS_MIN = 509
"""Pairs drawn for a service of few endpoints. There are always a prime number of them, so that no rhythm of requests
falls in step with them."""

PAIRS_MAX = 4093
"""Pairs drawn where the weights are many and different; they then agree with them to so fine a part."""


class Weighted(Protocol):
    """An object that has a share."""

    weight: int
    """Relative to the others', ≥ 1."""


WeightedT = TypeVar("WeightedT", bound=Weighted)


def draw_pairs(among: Sequence[WeightedT], chance: random.Random) -> list[tuple[WeightedT, WeightedT]]:
    """Draw pairs of two different ones, by weight without replacement; of one alone the pair with itself.

    Takes about 0.5 µs a pair, however many there are to draw from; `among` must not be empty.
    """
    if len(among) == 1:
        return [(among[0], among[0])]
    shares = compute_slots([one.weight for one in among], chance.random())
    size = sum(shares)
    # Everybody's slots lie side by side, twice over: those of all others are the ones that follow.
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

    `offset` (0 to 1) decides for whom that is one more, so that over many draws everybody gets the exact share
    (systematic sampling, Madow 1949).
    """
    whole = sum(weights)
    total = whole // gcd(*weights)
    least = total * ceil(PAIRS_MIN / total)
    size = find_prime(least) if least < PAIRS_MAX else PAIRS_MAX
    # In whole numbers: an offset next to 1 would be rounded up, to one pair too many.
    shift = int(offset * whole)
    edges = [(edge * size + shift) // whole for edge in accumulate(weights, initial=0)]
    return [after - before for before, after in pairwise(edges)]


def find_prime(least: int) -> int:
    """Return the smallest prime that is not below `least`."""
    while any(least % factor == 0 for factor in range(2, isqrt(least) + 1)):
        least += 1
    return least


def compute_tiers(regions: Sequence[str | None], own: str) -> list[int]:
    """Return how far away each endpoint is, from the regions of all: 0 for the own one or none, then as first
    listed."""
    others = list(dict.fromkeys(region for region in regions if region not in (None, own)))
    return [0 if region in (None, own) else 1 + others.index(region) for region in regions]
