"""Shares of scarce goods: what greedy keys leave, for any order of claims, and that nothing is lost or invented."""

import math
from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.base.percent import compute_percent
from edgeproxy.base.shares import ALL, Allowance, Exhausted, Places, Share, build_network_claim

FRACTIONS = st.sampled_from([1 / 10, 1 / 5, 1 / 2, 3 / 4])


@given(amount=st.integers(1, 500), users=st.integers(1, 60), most=FRACTIONS, in_turns=st.booleans())
def test_newcomer_finds_a_unit_beside_greedy_keys(amount: int, users: int, most: float, *, in_turns: bool) -> None:
    places = Places(amount)
    held: Counter[str] = Counter()
    waiting = deque(map(str, range(users)))
    while waiting:
        key = waiting.popleft()
        claim = (Share(key, most),)
        if places.find_exhausted(claim) is None:
            places.take(claim)
            held[key] += 1
            (waiting.append if in_turns else waiting.appendleft)(key)
    # Nothing is released, so a refused key stays refused.
    assert all(places.find_exhausted((Share(str(number), most),)) is not None for number in range(users))
    # Each key may round up to a whole unit, and its first unit is always allowed.
    free = 1 / (1 + users * most / (1 - most)) if in_turns else (1 - most) ** users
    assert amount - places.in_use >= math.floor(amount * free) - users
    assert max(held.values()) <= max(1, math.ceil(amount * most))
    if places.in_use < amount:
        assert places.find_exhausted((Share("newcomer", most),)) is None


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), st.sampled_from("xyz"), FRACTIONS), max_size=200),
)
def test_units_are_neither_lost_nor_invented(amount: int, steps: list[tuple[bool, str, str, float]]) -> None:
    places, taken = Places(amount), list[tuple[Share, ...]]()
    for releases, customer, host, most in steps:
        claim = (Share(f"customer {customer}", most), Share(f"host {host}", most))
        if releases and taken:
            places.release(taken.pop())
        elif (key := places.find_exhausted(claim)) is None:
            places.take(claim)
            taken.append(claim)
        else:
            assert (key == ALL) == (places.in_use >= amount)
        assert places.in_use == len(taken) <= amount
        counts = Counter(share.key for claim in taken for share in claim)
        assert all(places.count(key) == count for key, count in counts.items())
    for claim in taken:
        places.release(claim)
    assert places.in_use == 0
    assert not places._held, "keys that hold nothing take no memory"


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 2000)), max_size=150))
def test_refused_key_gets_a_unit_once_its_wait_is_over(asks: list[tuple[str, float]]) -> None:
    allowance, now = Allowance(20, 3600.0), 0.0
    for key, pause in asks:
        now += pause
        claim = (Share(key, 1 / 5),)
        exhausted = allowance.take(claim, now)
        assert allowance.count_in_use(now) <= 20
        if exhausted is not None:
            assert 0 < exhausted.seconds <= 3600
            # Nobody else asks meanwhile, so the oldest unit of the key, or of all, is back by then.
            later = now + exhausted.seconds + 1e-6
            before = allowance.count_in_use(now)
            assert allowance.count_in_use(later) < before
            now = later


def test_units_elsewhere_leave_less_here() -> None:
    allowance, claim = Allowance(10, 60.0), (Share("a", 1 / 2),)
    assert allowance.take(claim, 0.0, elsewhere=10) == Exhausted(ALL, 60.0)
    assert [allowance.take(claim, 0.0, elsewhere=6) is None for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("attackers", "newcomer"),
    [
        ([f"203.0.113.{number}" for number in range(256)], "203.0.114.1"),
        ([f"203.0.{net}.1" for net in range(256)], "203.1.0.1"),
        ([f"2001:db8:1:{net:x}::1" for net in range(512)], "2001:db8:2::1"),
        ([f"2001:db8:{site:x}::1" for site in range(512)], "2001:db9::1"),
        ([f"::ffff:198.51.100.{number}" for number in range(256)], "198.51.101.1"),
        (["no address"], "other"),
    ],
)
def test_network_of_many_addresses_has_one_share(attackers: list[str], newcomer: str) -> None:
    allowance = Allowance(100, 3600.0)
    claims, taken = [build_network_claim(address) for address in attackers], 0
    while more := sum(allowance.take(claim, 0.0) is None for claim in claims):
        taken += more
    assert taken <= 50
    assert sum(allowance.take(build_network_claim(newcomer), 0.0) is None for _ in range(5)) == 5


# ---- percentages


def test_percentage_is_truncated_and_a_little_is_not_nothing() -> None:
    assert compute_percent(99_999, 100_000) == 99.99
    assert compute_percent(1, 100_000) == 0.01
    assert [compute_percent(used, 200) for used in (0, 100, 200, 250)] == [0.0, 50.0, 100.0, 125.0]
