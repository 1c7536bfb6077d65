"""Limits in units that answers state: what a request reserves, what an answer is charged, and which limit is shown."""

import pytest

from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.admission import admit
from edgeproxy.edge.limits.denial import compute_denial
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.unit_limit import UnitLimit
from tests.edge.limits.conftest import Worker

START = 51_000_000.0


@pytest.fixture
def table(worker: Worker) -> LimitTable:
    return worker(0)


def build_limit(table: LimitTable, most: int, reserve: int, name: str = "tokens", seconds: float = 60.0) -> UnitLimit:
    rule = Rule(name, most, seconds, of="tokens")
    under_way = Rule(f"{name}-under-way", most // reserve, 0.0, algorithm="concurrency")
    return Policies(table).get_unit_limit(rule, under_way, b"acme", reserve)


def test_requests_under_way_reserve_until_they_end(table: LimitTable) -> None:
    limit = build_limit(table, 100, 40)
    assert limit.name == "tokens"
    assert [limit.acquire(START) for _ in range(3)] == [True, True, False]
    assert limit.retry_after(START) == 1, "units are left, and reserved"
    limit.release()
    assert limit.retry_after(START) == 0
    limit.count(90, START)
    assert not limit.acquire(START)
    assert limit.retry_after(START) == limit.policy.retry_after(START, 40) > 1


def test_what_an_answer_takes_is_charged_though_it_is_more_than_there_was(table: LimitTable) -> None:
    limit = build_limit(table, 100, 10)
    assert limit.acquire(START)
    limit.count(250, START)
    limit.release()
    assert limit.policy.left(START) == -150
    assert admit(LimitSet(units=(limit,)), START) == (True, limit.policy, 0, None)


def test_the_limit_with_least_left_beside_its_reservation_is_shown(table: LimitTable) -> None:
    small, large = build_limit(table, 50, 10, "small"), build_limit(table, 1000, 10, "large", 3600.0)
    for limits in ((small, large), (large, small)):
        terms = LimitSet(units=limits)
        assert admit(terms, START) == (False, small.policy, 40, None)
        for limit in limits:
            limit.release()
    plain = Policies(table).get_policy(Rule("plain", 3, 1.0), b"acme")
    assert admit(LimitSet((plain,), units=(large,)), START)[1:3] == (plain, 2)


def test_where_all_units_are_reserved_the_limit_refuses_and_says_so(table: LimitTable) -> None:
    limit = build_limit(table, 20, 10)
    terms = LimitSet(units=(limit,))
    assert [admit(terms, START)[0] for _ in range(3)] == [False, False, True]
    assert compute_denial(terms, START) == ((limit,), 1)
