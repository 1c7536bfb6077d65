"""Reports of usage equal the state that a deciding worker sees, whichever worker has counted."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.base.calendar import period_of
from edgeproxy.edge.counters import columns
from edgeproxy.edge.counters.layout import HEADS_APART, LONE_HEAD_WORDS, Layout
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.bucket import compute_room
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.row_usage import Usage
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.usage import compute_quota_usage, compute_usage
from edgeproxy.edge.limits.window import SlidingWindow
from tests.edge.limits.conftest import Worker
from tests.support.tables import fresh, limits, opened

START = 51_000_000.0
SUBJECT = b"acme"
CUSTOMERS = Layout("customers", rows=5, columns=8, ring=32, cells=28, width=LONE_HEAD_WORDS, parts=HEADS_APART)
QUOTAS = Layout("quotas", rows=5, columns=8, ring=1, cells=1, width=7)
UTC = ZoneInfo("UTC")

WINDOW = Rule("basic", 10, 60.0)
BUCKET = Rule("bucket", 10, 60.0, algorithm="token_bucket", depth=20)
HYBRID = Rule("hybrid", 10, 60.0, algorithm="hybrid", depth=2)
CREDITS = Rule("burst-credits", 10, 1.0, algorithm="burst_credits", depth=600)
SLOTS = Rule("concurrency", 3, 0.0, algorithm="concurrency")


def charge(table: LimitTable, rule: Rule, cost: int, now: float = START) -> Policy:
    """Charge a request of this cost, whatever the remaining amount."""
    policy = Policies(table).get_policy(rule, SUBJECT)
    policy.left(now)
    policy.charge(cost)
    return policy


@pytest.mark.parametrize(
    ("rule", "left"), [(WINDOW, 10), (BUCKET, 20), (HYBRID, 2), (CREDITS, 600), (SLOTS, 3)], ids=lambda it: str(it)[:30]
)
def test_an_unknown_subject_has_no_usage_and_gets_no_row(worker: Worker, rule: Rule, left: int) -> None:
    table = worker(0)
    assert compute_usage(table, rule, SUBJECT, START) == Usage(0, left, 0)
    assert compute_quota_usage(table, "requests-day", 5, "day", UTC, SUBJECT, START)[:2] == (0, 5)
    assert table.rows_in_use == 0


def test_counts_of_a_clock_slightly_ahead_are_reported(worker: Worker) -> None:
    policy = charge(worker(0), WINDOW, 4, START + 3)
    assert compute_usage(worker(7), WINDOW, SUBJECT, START) == Usage(4, 6, charge(worker(1), WINDOW, 0).reset(START))
    assert policy.left(START + 3) == 6


# ---- concurrency


def running(path: Path, count: int) -> list[LimitTable]:
    """Return the table as seen by `count` processes, each with a column."""
    files = [opened(path) for _ in range(count)]
    return [LimitTable(file, columns.acquire_column([file])) for file in files]


def test_slots_of_all_workers_are_in_use_until_released() -> None:
    with fresh(CUSTOMERS) as path:
        slots = [Policies(table).get_concurrency(SLOTS, SUBJECT) for table in running(path, 2)]
        looker = limits(path)
        assert [slot.acquire(START) for slot in (*slots, slots[0])] == [True, True, True]
        assert compute_usage(looker, SLOTS, SUBJECT, START) == Usage(3, 0, 1)
        assert [slot.retry_after(START) for slot in slots] == [1, 1]
        assert not slots[1].acquire(START)
        slots[0].release()
        assert compute_usage(looker, SLOTS, SUBJECT, START) == Usage(2, 1, 1)
        for slot in slots:
            slot.release()
        assert compute_usage(looker, SLOTS, SUBJECT, START) == Usage(0, 3, 0)


def test_slots_of_a_dead_worker_are_free_before_and_after_its_succession() -> None:
    with fresh(CUSTOMERS) as path:
        dies, stays = running(path, 2)
        slots = [Policies(table).get_concurrency(SLOTS, SUBJECT) for table in (dies, stays)]
        assert all(slot.acquire(START) for slot in slots)
        looker = limits(path)
        assert compute_usage(looker, SLOTS, SUBJECT, START).used == 2
        column = dies.column
        dies.file.close()
        assert compute_usage(looker, SLOTS, SUBJECT, START).used == 1
        (successor,) = running(path, 1)
        assert successor.column == column
        assert compute_usage(looker, SLOTS, SUBJECT, START).used == 1
        assert Policies(successor).get_concurrency(SLOTS, SUBJECT).acquire(START)
        assert compute_usage(looker, SLOTS, SUBJECT, START).used == 2


# ---- quotas


def test_a_quota_reports_the_present_period_of_its_time_zone() -> None:
    with fresh(QUOTAS) as path:
        zone = ZoneInfo("Europe/Berlin")
        _, since, until = period_of(START, "day", zone)
        for column in (0, 1):
            quota = Policies(limits(path, column)).get_quota(
                "requests-day", 9, "day", zone, SUBJECT, hard=True, when="success"
            )
            quota.left(since)
            quota.charge(4)
        looker = limits(path)

        def found(now: float, of: str = "Europe/Berlin", included: int = 9) -> Usage:
            return compute_quota_usage(looker, "requests-day", included, "day", ZoneInfo(of), SUBJECT, now)

        assert found(since) == Usage(8, 1, round(until - since) + 1)
        assert found(until - 0.5) == Usage(8, 1, 1)
        assert found(since, included=5) == Usage(8, 0, round(until - since) + 1)
        assert found(since, of="UTC").used == 0
        # The next period has no counts yet.
        assert found(until)[:2] == (0, 9)
        # If the clock is set back before the beginning of a period, the period goes on.
        quota.left(until + 1)
        quota.charge(2)
        assert found(until - 1)[:2] == (quota.limit - quota.left(until - 1), quota.left(until - 1)) == (2, 7)


# ---- reports and workers agree

RULES = st.builds(
    Rule,
    st.just("any"),
    st.integers(1, 3000),
    st.sampled_from([0.1, 1.0, 10.0, 60.0, 3600.0]),
    algorithm=st.sampled_from(["sliding_window", "token_bucket", "hybrid", "burst_credits"]),
    depth=st.integers(1, 3000),
)
CHARGES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 200), st.floats(0, 2, allow_subnormal=False)), min_size=1, max_size=30
)
"""The worker, the cost, and the time since the last charge as a fraction of the window."""


@given(RULES, CHARGES, st.booleans())
def test_reported_usage_equals_the_view_of_every_worker(
    rule: Rule, charges: list[tuple[int, int, float]], asks: bool
) -> None:
    with fresh(CUSTOMERS) as path:
        workers = [Policies(limits(path, column)).get_policy(rule, SUBJECT) for column in range(4)]
        looker = limits(path)
        now = START
        for who, cost, after in charges:
            now += after * rule.window / 4
            # A charge follows a read, with or without room. Without `asks`, workers get their rows later.
            for policy in workers if asks else ():
                assert_same(looker, rule, policy, now)
            if workers[who].left(now) >= cost or cost % 7 == 0:
                workers[who].charge(cost)
            assert_same(looker, rule, workers[who], now)
        for policy in workers:
            assert_same(looker, rule, policy, now)
        later = now + charges[0][2] * rule.window
        for policy in workers:
            assert_same(looker, rule, policy, later)


def assert_same(looker: LimitTable, rule: Rule, policy: Policy, now: float) -> None:
    """Assert that the report equals this worker's view."""
    usage, left = compute_usage(looker, rule, SUBJECT, now), policy.left(now)
    assert usage.remaining == max(0, left)
    if rule.algorithm in ("token_bucket", "burst_credits"):
        reset = policy.reset(now) if usage.used else 0
        assert usage.used == rule.depth - left
        # A stored level is rounded up.
        assert 0 <= reset - usage.reset <= 1 + (compute_room(rule.depth) - rule.depth) * rule.window / rule.limit
    else:
        assert isinstance(policy, SlidingWindow)
        assert usage.used == rule.limit - SlidingWindow.left(policy, now)
        assert usage.reset == (SlidingWindow._reset(policy, now) if usage.used else 0)


@given(
    st.sampled_from(["day", "month"]),
    st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Apia"]),
    st.integers(0, 500),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 200), st.floats(0, 1.5)), min_size=1, max_size=20),
)
def test_reported_quota_usage_equals_the_view_of_every_worker(
    per: str, zone: str, most: int, charges: list[tuple[int, int, float]]
) -> None:
    with fresh(QUOTAS) as path:
        place = ZoneInfo(zone)
        workers = [
            Policies(limits(path, column)).get_quota("m", most, per, place, SUBJECT, hard=True, when="success")
            for column in range(4)
        ]
        looker = limits(path)
        now = START
        for who, cost, after in charges:
            now += after * (86400 if per == "day" else 28 * 86400)
            workers[who].left(now)
            workers[who].charge(cost)
            usage = compute_quota_usage(looker, "m", most, per, place, SUBJECT, now)
            for quota in workers:
                left = quota.left(now)
                assert usage == (most - left, max(0, left), quota.retry_after(now, max(1, left + 1)), 0)
