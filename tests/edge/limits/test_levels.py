from fractions import Fraction
from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import width_us
from edgeproxy.edge.limits.levels import AHEAD_SECONDS_MAX, LEVEL_MIN, Level, Scale, compute_level, compute_scale

BOTH_ORDERS = True

START = 51_000_000.0
WINDOWS = (0.5, 1.0, 10.0, 60.0, 3600.0, 86400.0, 86400.0 * 31, 86400.0 * 3660)
SCALES = st.sampled_from(WINDOWS).map(lambda window: compute_scale(width_us(window, 28)))
LEVELS = st.floats(0, 2.0**50)
IN_2059 = 34 * 365.25 * 86400


# ---- words


@given(scale=SCALES, level=LEVELS)
def test_a_level_is_never_less_in_a_word_and_hardly_more(scale: Scale, level: float) -> None:
    there = scale.unpack(scale.pack(level))
    assert max(level, LEVEL_MIN) <= there <= max(level * (1 + 2.0**-24), LEVEL_MIN)
    assert scale.pack(there) == scale.pack(level)


@given(scale=SCALES, level=st.integers(1, 1 << 24))
def test_a_whole_number_of_tokens_is_exact(scale: Scale, level: int) -> None:
    assert scale.unpack(scale.pack(level)) == level


@given(scale=SCALES, one=LEVELS, other=LEVELS)
def test_words_are_in_the_order_of_their_levels(scale: Scale, one: float, other: float) -> None:
    if one <= other:
        assert scale.pack(one) <= scale.pack(other)


@given(scale=SCALES, level=LEVELS)
def test_a_level_leaves_room_for_ticks_until_2059(scale: Scale, level: float) -> None:
    tick = int(IN_2059 * scale.ticks)
    word = tick << scale.bits | scale.pack(level)
    assert word < 1 << 64
    assert word >> scale.bits == tick
    assert scale.unpack(word) == scale.unpack(scale.pack(level))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("cells", [28, 13])
def test_level_scale_has_a_short_tick_and_uses_all_bits(window: float, cells: int) -> None:
    width = width_us(window, cells)
    scale = compute_scale(width)
    assert log2(scale.ticks).is_integer()
    assert 1 / scale.ticks <= max(1 / 16, width / 1e6 / 32)
    # Twice as long a tick would be longer than that: no bit is wasted.
    assert 2 / scale.ticks > max(1 / 16, width / 1e6 / 32)
    assert scale.bits + ceil(log2(IN_2059 * scale.ticks)) <= 64


# ---- what heads say

SCALE = compute_scale(width_us(60.0, 28))
NO_HEAD = (0,) * at.HEAD_WORDS


def head(cum: int, level: float = 0.0, seen: int = 0, since: float = START) -> tuple[int, ...]:
    """The head of a column whose process said this `level` at a moment that is a tick's."""
    word = int(since * SCALE.ticks) << SCALE.bits | SCALE.pack(level)
    words = [0] * at.HEAD_WORDS
    words[at.CUM], words[at.LEVEL], words[at.SEEN_CUM] = cum, word if seen else 0, seen
    return tuple(words)


def found(*heads: tuple[int, ...], now: float = START, rate: float = 1.0) -> Level:
    return compute_level([word for head in heads for word in head], at.HEAD_WORDS, now, rate, SCALE)


def test_bucket_without_counts_is_empty() -> None:
    assert found(NO_HEAD, NO_HEAD) == Level(0.0, START, 0, True)


def test_the_level_that_knows_of_the_most_is_taken_and_has_drained_since() -> None:
    one, other = head(10, 4.0, 12, START - 5), head(5, 6.0, 15, START - 1)
    assert found(NO_HEAD, one, other) == found(NO_HEAD, other, one) == Level(5.0, START, 15, True)
    assert found(one, other, rate=10.0) == Level(0.0, START, 15, True)


def test_unseen_counts_are_taken_to_have_arrived_now() -> None:
    assert found(head(10, 4.0, 10, START - 5), head(3)) == Level(3.0, START, 13, False)
    assert found(head(10, 4.0, 10, START - 1), head(3)) == Level(6.0, START, 13, False)


def test_without_a_stored_level_all_counts_are_taken_to_have_arrived_now() -> None:
    assert found(head(7), NO_HEAD, head(2)) == Level(9.0, START, 9, False)


def test_level_stated_after_the_counts_includes_them() -> None:
    assert found(head(10, 4.0, 12)) == Level(4.0, START, 12, True)


def test_a_level_slightly_ahead_starts_to_drain_at_its_time() -> None:
    ahead = START + AHEAD_SECONDS_MAX / 2
    assert found(head(9, 4.0, 9, ahead)) == Level(4.0, ahead, 9, True)
    assert found(head(9, 4.0, 9, ahead), now=ahead + 1) == Level(3.0, ahead + 1, 9, True)


def test_level_from_a_fast_clock_counts_as_now_and_is_restated() -> None:
    assert found(head(9, 4.0, 9, START + 3600)) == Level(4.0, START, 9, False)


@given(
    charges=st.lists(st.tuples(st.floats(0, 20), st.integers(1, 50)), max_size=20),
    unseen=st.integers(0, 20),
    later=st.floats(0, 30),
    rate=st.floats(0.01, 100),
)
def test_level_from_heads_is_never_below_the_exact_level(
    charges: list[tuple[float, int]], unseen: int, later: float, rate: float
) -> None:
    level = Fraction(0)
    now = Fraction(START)
    said, seen, since = 0.0, 0, START
    for place, (after, cost) in enumerate(charges):
        now += Fraction(after)
        level = max(Fraction(0), level - Fraction(after) * Fraction(rate)) + cost
        if place < len(charges) - unseen:
            said, seen, since = float(level), seen + cost, float(now)
    tick = int(since * SCALE.ticks) / SCALE.ticks
    counted = sum(cost for _, cost in charges)
    words = head(counted, said + (since - tick) * rate, seen, tick)
    result = found(words, now=float(now) + later, rate=rate)
    exact = max(Fraction(0), level - Fraction(rate) * (Fraction(float(now) + later) - now))
    assert result.level >= exact - Fraction(1, 1 << 16)
    if result.is_written:
        assert result.level <= exact + level / (1 << 20) + Fraction(1, 1 << 10)
