"""Pairs drawn by weight: shares are exact as far as whole numbers go, and no one is compared with itself."""

import itertools
import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeproxy.edge.proxy.upstreams.load_balancing import PAIRS_MAX, PAIRS_MIN, compute_slots, draw_pairs


@dataclass(frozen=True)
class One:
    name: int
    weight: int = 1


def several(weights: list[int]) -> list[One]:
    return [One(name, weight) for name, weight in enumerate(weights)]


WEIGHTS = st.lists(st.integers(1, 1000), min_size=2, max_size=40)
OFFSET = st.floats(0, 1, exclude_max=True)


@given(WEIGHTS, OFFSET)
def test_everybodys_slots_are_within_one_of_the_exact_share(weights: list[int], offset: float) -> None:
    given_out = compute_slots(weights, offset)
    size = sum(given_out)
    for weight, share in zip(weights, given_out, strict=True):
        assert abs(share - weight * size / sum(weights)) < 1 + 1e-6


@given(WEIGHTS, OFFSET)
@example([1, 1], 0.9999999999999999)
def test_there_are_a_prime_number_of_slots_and_never_too_many(weights: list[int], offset: float) -> None:
    size = sum(compute_slots(weights, offset))
    assert PAIRS_MIN <= size <= PAIRS_MAX
    assert all(size % factor for factor in range(2, 64))


def test_over_many_draws_the_smallest_share_is_right_too() -> None:
    """One in 20,000 has less than a slot: at most draws it has none, and at the others it has one too many."""
    weights = [1, *[1000] * 19, 999]
    chance = random.Random(1)
    draws = [compute_slots(weights, chance.random()) for _ in range(1500)]
    assert sum(draw[0] for draw in draws) / sum(sum(draw) for draw in draws) == pytest.approx(1 / 20_000, rel=0.15)


@given(WEIGHTS, st.integers())
def test_the_two_of_a_pair_are_never_the_same(weights: list[int], seed: int) -> None:
    assert all(one is not other for one, other in draw_pairs(several(weights), random.Random(seed)))


def test_single_endpoint_is_paired_with_itself() -> None:
    only = One(0, 7)
    assert draw_pairs([only], random.Random(1)) == [(only, only)]


@pytest.mark.parametrize("weights", [[1, 1], [2, 1], [1, 2, 3], [5, 5, 5, 5], [1000, 1], [1] * 100])
def test_the_first_of_the_pairs_are_in_proportion_to_the_weights(weights: list[int]) -> None:
    pairs = draw_pairs(several(weights), random.Random(3))
    first = Counter(one for one, _ in pairs)
    for each in several(weights):
        assert abs(first[each] - each.weight * len(pairs) / sum(weights)) < 1 + 1e-6


def test_the_second_of_a_pair_is_drawn_by_weight_from_the_others() -> None:
    chance = random.Random(4)
    pairs = [pair for _ in range(60) for pair in draw_pairs(several([1, 2, 5]), chance)]
    second = Counter(other.name for one, other in pairs if one.name == 0)
    assert second[2] / second[1] == pytest.approx(5 / 2, rel=0.1)
    second = Counter(other.name for one, other in pairs if one.name == 2)
    assert second[1] / second[0] == pytest.approx(2, rel=0.1)


def test_neighbours_in_the_order_have_nothing_to_do_with_each_other() -> None:
    """Two equals follow themselves and each other equally often."""
    firsts = [one.name for one, _ in draw_pairs(several([1, 1]), random.Random(5))]
    repeats = sum(one == next_one for one, next_one in itertools.pairwise(firsts))
    assert repeats == pytest.approx(len(firsts) / 2, rel=0.15)


def test_the_pairs_follow_from_the_chance_alone() -> None:
    ones = several([1, 2, 3])
    assert draw_pairs(ones, random.Random(7)) == draw_pairs(ones, random.Random(7))
    assert draw_pairs(ones, random.Random(7)) != draw_pairs(ones, random.Random(8))
