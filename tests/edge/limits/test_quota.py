from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.base.calendar import Period, period_of
from edgeproxy.base.clock import EPOCH
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.layout import Layout
from edgeproxy.edge.counters.reclaim import Reclaim
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.quota import Quota, find_current_period, quota_key
from tests.edge.limits.reference import ExactQuota
from tests.support.tables import claim, fresh, limits, make, number_of

BOTH_ORDERS = True

QUOTAS = Layout("quotas", 5, 8, ring=1, cells=1, width=at.HEAD_WORDS)
SUBJECT = b"acme"
UTC_ZONE = ZoneInfo("UTC")
DAY = 86400.0
HOUR = 3600.0
NEVER = float("inf")


def edge(text: str) -> float:
    """Return the edge time of a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() - EPOCH


NOON = edge("2026-11-20T12:00")
MIDNIGHT = edge("2026-11-21")


def quota(
    table: LimitTable, included: int = 5, per: str = "day", zone: ZoneInfo = UTC_ZONE, *, hard: bool = True
) -> Quota:
    return Policies(table).get_quota(f"requests-{per}", included, per, zone, SUBJECT, hard=hard, when="answered")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path, QUOTAS)


Worker = Callable[[int], LimitTable]


@pytest.fixture
def worker(path: Path) -> Worker:
    return lambda column: limits(path, column)


def take(quota: Quota, now: float, amount: int = 1) -> bool:
    """Decide on a request under a hard quota and charge it if it passes."""
    if quota.left(now) < amount:
        return False
    quota.charge(amount)
    return True


def test_an_exceeded_soft_quota_has_a_negative_remainder(worker: Worker) -> None:
    one = quota(worker(0), 1, hard=False)
    for left in (1, 0, -1, -2):
        assert one.left(NOON) == left
        one.charge()
    assert one.retry_after(NOON) == 0


def test_retry_after_of_a_hard_quota_is_the_next_period(worker: Worker) -> None:
    one = quota(worker(0), 1)
    assert one.retry_after(NOON) == 0
    assert take(one, NOON)
    wait = one.retry_after(NOON)
    assert 12 * HOUR <= wait <= 12 * HOUR + 1
    assert one.retry_after(NOON, 2) == wait
    assert quota(worker(1), 1).retry_after(MIDNIGHT - 0.25) == 1
    assert one.left(NOON + wait) == 1


def test_spent_credits_do_not_return_with_time(worker: Worker) -> None:
    table = worker(0)
    credits = Policies(table).get_quota(
        "credits", 2, "ever@1", UTC_ZONE, SUBJECT, hard=True, when="answered", is_balance=True
    )
    assert credits.retry_after(NOON) == 0
    assert take(credits, NOON, 2)
    assert [credits.retry_after(NOON), credits.left(NOON + 400 * DAY)] == [1, 0]


def test_zero_quota_admits_nothing(worker: Worker) -> None:
    assert not take(quota(worker(0), 0), NOON)
    assert take(quota(worker(0), 0, hard=False), NOON, amount=0)


def test_quotas_of_other_meters_periods_and_zones_count_separately(worker: Worker) -> None:
    table = worker(0)
    day, month = quota(table), quota(table, per="month")
    elsewhere = quota(table, zone=ZoneInfo("Asia/Beirut"))
    tokens = Policies(table).get_quota("tokens-day", 5, "day", UTC_ZONE, SUBJECT, hard=True, when="success")
    assert take(day, NOON, 2)
    assert [one.left(NOON) for one in (day, month, elsewhere, tokens)] == [3, 5, 5, 5]


def test_two_workers_count_up_to_a_quota_of_two_to_the_53(worker: Worker) -> None:
    one, other = quota(worker(0), 1 << 53), quota(worker(1), 1 << 53)
    assert take(one, NOON, 1 << 52)
    assert take(other, NOON, 1 << 52)
    assert not take(one, NOON)


def test_changed_quota_keeps_its_usage(worker: Worker) -> None:
    table = worker(0)
    before = quota(table, 5)
    assert take(before, NOON, 4)
    assert quota(table, 3).left(NOON) == -1
    assert before.left(NOON) == 1
    assert quota(worker(1), 100, hard=False).left(NOON) == 96


# ---- refunds


def test_a_charge_of_a_past_period_is_not_refunded_in_the_present_one(worker: Worker) -> None:
    one = quota(worker(0))
    assert take(one, MIDNIGHT - 1)
    assert take(one, MIDNIGHT + 1, 2)
    one.refund(1, MIDNIGHT - 1)
    assert one.left(MIDNIGHT + 1) == 3
    one.refund(1, MIDNIGHT + 1)
    assert one.left(MIDNIGHT + 1) == 4


def test_counts_never_fall_below_zero(worker: Worker) -> None:
    one, other = quota(worker(0)), quota(worker(1))
    assert take(other, NOON, 3)
    one.refund(1, NOON)
    assert one.left(NOON) == 2
    assert take(one, NOON)
    one.refund(2, NOON)
    assert one.left(NOON) == other.left(NOON) == 1
    one.refund(1, NOON)
    one.refund(1, NOON)
    assert one.left(NOON) == other.left(NOON) == 2


def test_a_charge_in_a_freed_row_is_not_refunded(worker: Worker, path: Path) -> None:
    one, table = quota(worker(0)), worker(1)
    assert take(one, NOON)
    row = table.peek(table.make_key(quota_key("requests-day", UTC_ZONE, SUBJECT)))
    assert row is not None
    table.words[row + at.ROW_GENERATION] += 1
    table.free(number_of(table, row))
    # Another key has the row by now, and this process has counted in it.
    heir = quota(limits(path, 0), per="month")
    assert take(heir, NOON, 4)
    assert table.rows_in_use == 1
    one.refund(1, NOON)
    assert [one.left(NOON), heir.left(NOON)] == [5, 1]
    one.refund(1, NOON)
    assert [one.left(NOON), quota(worker(1), per="month").left(NOON)] == [5, 1]


# ---- later counts, and costs of requests


def of_meter(table: LimitTable, included: int, cost: int, *, hard: bool = True) -> Quota:
    zone, name = UTC_ZONE, "egress-day"
    return Policies(table).get_quota(name, included, "day", zone, SUBJECT, hard=hard, when="answered", cost=cost)


def test_later_counts_are_charged_in_the_period_of_their_time(worker: Worker) -> None:
    one, other = of_meter(worker(0), 100, 0), of_meter(worker(1), 100, 0)
    assert one.left(NOON) == 100
    one.count(70, NOON)
    other.count(70, NOON)
    assert [one.left(NOON), other.left(NOON)] == [-40, -40]
    assert one.retry_after(NOON) == pytest.approx(12 * HOUR, abs=1)
    # No request has read the quota since midnight, and the response is still in progress.
    one.count(30, MIDNIGHT + 1)
    assert [one.left(MIDNIGHT + 1), other.left(MIDNIGHT + 1)] == [70, 70]


def test_quota_retry_time_depends_on_the_request_cost(worker: Worker) -> None:
    dear, cheap = of_meter(worker(0), 25, 10), of_meter(worker(1), 25, 1)
    assert take(dear, NOON, 20)
    assert [(one.cost, one.needs, one.retry_after(NOON) > 0) for one in (dear, cheap)] == [
        (10, 10, True),
        (1, 1, False),
    ]
    assert of_meter(worker(2), 25, 10, hard=False).retry_after(NOON) == 0


# ---- against the reference

ZONES = ("UTC", "Europe/Berlin", "Asia/Beirut", "Asia/Kathmandu", "America/Sao_Paulo", "America/Nuuk", "America/Havana")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("ask", "ask", "ask", "ask", "refund", "refund", "anew", "remade", "tend")),
        st.sampled_from((0.0, 0.0, 0.01, 60.0, HOUR, HOUR / 2, 9 * HOUR, DAY, 15 * DAY, 40 * DAY)),
        st.integers(1, 3),
        st.integers(0, 3),
    ),
    max_size=120,
)


@given(
    steps=STEPS,
    included=st.integers(0, 12),
    per=st.sampled_from(("day", "month")),
    zone=st.sampled_from(ZONES).map(ZoneInfo),
    start=st.one_of(
        st.sampled_from([edge("2026-03-27T20:00"), edge("2026-10-24T19:00"), edge("2026-12-31T20:00"), 0.0]),
        st.floats(0, 1e9),
    ),
    hard=st.booleans(),
)
def test_a_quota_decides_as_the_exact_reference(
    steps: list[tuple[str, float, int, int]], included: int, per: str, zone: ZoneInfo, start: float, hard: bool
) -> None:
    with fresh(QUOTAS) as path:
        exact = ExactQuota(included, per, zone)
        hold_to_the_period(path, steps, exact, start, hard=hard)


def hold_to_the_period(
    path: Path, steps: list[tuple[str, float, int, int]], exact: ExactQuota, start: float, *, hard: bool
) -> None:
    tables = [limits(path, column) for column in range(4)]

    def of(column: int) -> Quota:
        return quota(tables[column], exact.included, exact.per, exact.zone, hard=hard)

    quotas = [of(column) for column in range(4)]
    reclaim = Reclaim(limits(path))
    pending: list[list[tuple[float, int]]] = [[] for _ in range(4)]
    """For each process, the charges that it may refund: time and amount."""
    now = start
    for what, seconds, amount, who in steps:
        now += seconds
        one = quotas[who]
        if what == "ask":
            left = one.left(now)
            assert left == exact.left(now)
            wait = one.retry_after(now, amount)
            if not hard or left >= amount:
                assert wait == 0
                one.charge(amount)
                exact.add(now, amount)
                pending[who].append((now, amount))
            else:
                # The quota is free again in the next day or month, to the second, and not before.
                assert exact.period(now + wait) != exact.period(now) == exact.period(now + max(0, wait - 1.001))
        elif what == "refund" and pending[who]:
            charged, back = pending[who].pop()
            one.refund(back, charged)
            exact.add(charged, -back)
        elif what in ("anew", "remade"):
            if what == "anew":
                tables[who] = limits(path, who)
                pending[who].clear()
            quotas[who] = of(who)
        elif what == "tend":
            reclaim.slice(now, NEVER)
        assert [quota.left(now) for quota in quotas] == [exact.left(now)] * 4


# ---- the row


def test_worker_on_a_spare_column_counts_after_others_refresh(worker: Worker) -> None:
    table, late = worker(0), worker(6)
    one = quota(table)
    assert take(one, NOON)
    assert late.declare_column()
    assert table.refresh_columns()
    newcomer = quota(late)
    assert take(newcomer, NOON, 2)
    assert one.left(NOON) == newcomer.left(NOON) == 2


def test_foreign_counts_apply_to_their_own_period(worker: Worker) -> None:
    one, table = quota(worker(0)), worker(7)
    assert take(one, NOON)
    row = table.peek(table.make_key(quota_key("requests-day", UTC_ZONE, SUBJECT)))
    assert row is not None
    head = [0] * at.HEAD_WORDS
    head[at.CUM], head[at.PERIOD] = 2, period_of(NOON, "day", UTC_ZONE).number
    table.write_foreign(row, {}, head)
    assert one.left(NOON) == 2
    head[at.PERIOD] -= 1
    table.write_foreign(row, {}, head)
    assert one.left(NOON) == 4


# ---- the clock


def test_quota_counts_in_a_period_started_by_another_worker() -> None:
    today, tomorrow = (period_of(now, "day", UTC_ZONE) for now in (NOON, MIDNIGHT))
    assert find_current_period(NOON, "day", UTC_ZONE, ()) == today
    assert find_current_period(NOON, "day", UTC_ZONE, (0, today.number - 1, today.number + 2)) == today
    both = Period(tomorrow.number, today.since, tomorrow.until)
    assert find_current_period(NOON, "day", UTC_ZONE, (today.number, tomorrow.number)) == both
    assert find_current_period(MIDNIGHT, "day", UTC_ZONE, (today.number, tomorrow.number)) == tomorrow


def test_a_clock_that_is_set_back_over_midnight_begins_no_day_anew(worker: Worker) -> None:
    one, other = quota(worker(0)), quota(worker(1))
    assert take(one, MIDNIGHT - 600, 5)
    assert take(one, MIDNIGHT + 600, 4)
    assert [each.left(MIDNIGHT - 3000) for each in (one, other)] == [1, 1]
    assert take(other, MIDNIGHT - 3000)
    wait = one.retry_after(MIDNIGHT - 3000)
    assert one.left(MIDNIGHT + 1) == 0
    # Not before the running day is over.
    assert MIDNIGHT - 3000 + wait >= MIDNIGHT + DAY
    assert one.left(MIDNIGHT - 3000 + wait) == 5


def test_workers_share_a_day_after_one_read_a_clock_that_was_ahead(worker: Worker) -> None:
    one, other = quota(worker(0)), quota(worker(1))
    assert take(one, MIDNIGHT - HOUR / 2, 2)
    assert take(other, MIDNIGHT + HOUR / 2, 3)
    # The clock has been corrected. The first quota got no request meanwhile.
    assert one.left(MIDNIGHT - HOUR / 2 + 1) == other.left(MIDNIGHT - HOUR / 2 + 1) == 2
    assert take(one, MIDNIGHT - HOUR / 2 + 2)
    assert one.left(MIDNIGHT) == other.left(MIDNIGHT) == 1


def test_a_day_far_ahead_is_of_a_clock_that_was_wrong(worker: Worker) -> None:
    one, other = quota(worker(0)), quota(worker(1))
    assert take(one, NOON + 3 * DAY, 5)
    assert other.left(NOON) == 5
    assert one.left(NOON) == 5
    assert take(one, NOON, 2)
    assert [each.left(NOON) for each in (one, other)] == [3, 3]


def test_a_day_is_found_also_where_every_word_is_of_a_clock_that_was_wrong(tmp_path: Path) -> None:
    path = make(tmp_path, QUOTAS._replace(columns=2))
    tables = [limits(path, column) for column in range(2)]
    for table in tables:
        assert take(quota(table), NOON + 3 * DAY)
    row = tables[0].peek(tables[0].make_key(quota_key("requests-day", UTC_ZONE, SUBJECT)))
    assert row is not None
    head = [0] * at.HEAD_WORDS
    head[at.PERIOD] = period_of(NOON + 3 * DAY, "day", UTC_ZONE).number
    tables[0].write_foreign(row, {}, head)
    assert [quota(table).left(NOON) for table in tables] == [5, 5]


@given(
    steps=st.lists(st.tuples(st.floats(0, 12 * HOUR), st.integers(0, 3)), max_size=60),
    turn=st.integers(0, 60),
    hours=st.sampled_from((-1, 1)),
    start=st.floats(NOON, NOON + DAY),
)
def test_set_clock_frees_or_blocks_a_subject_for_at_most_a_day(
    steps: list[tuple[float, int]], turn: int, hours: int, start: float
) -> None:
    with fresh(QUOTAS) as path:
        set_the_clock(path, steps, turn, hours * HOUR, start)


def set_the_clock(path: Path, steps: list[tuple[float, int]], turn: int, step: float, start: float) -> None:
    quotas = [quota(limits(path, column), 3) for column in range(4)]
    now, offset = start, 0.0
    passed: dict[int, int] = {}
    for place, (seconds, who) in enumerate(steps):
        now += seconds
        if place == turn:
            offset = step
        today = int((now + offset) // DAY)
        if take(quotas[who], now + offset):
            passed[today] = passed.get(today, 0) + 1
            assert passed[today] <= 2 * 3
        else:
            assert passed.get(today, 0) + passed.get(today - 1, 0) + passed.get(today + 1, 0) >= 3


# ---- tables that are full


@pytest.fixture
def full(tmp_path: Path) -> LimitTable:
    """The table of one of two workers. No row is free."""
    table = limits(make(tmp_path, QUOTAS._replace(rows=1, columns=4)), 0)
    claim(table, b"other")
    return table


def let_go(table: LimitTable) -> None:
    """Free a row."""
    table.free(number_of(table, claim(table, b"other")))


def count(quota: Quota, now: float) -> int:
    """Charge until the quota refuses."""
    taken = 0
    while take(quota, now):
        taken += 1
    return taken


def test_without_a_row_a_worker_has_its_share(full: LimitTable) -> None:
    told: list[str] = []
    policies = Policies(full, full=lambda: told.append("full"))
    one = policies.get_quota("requests-day", 9, "day", UTC_ZONE, SUBJECT, hard=True, when="answered")
    assert count(one, NOON) == 4
    assert count(one, NOON + 0.9) == 0
    assert told == ["full"]
    assert one.retry_after(NOON + 2) == MIDNIGHT - NOON - 2 + 1
    assert told == ["full"] * 2
    one.refund(1, NOON)
    assert count(one, NOON + 2) == 1
    assert count(one, MIDNIGHT) == 4


def test_local_quota_counts_move_into_a_row_when_one_is_free(full: LimitTable) -> None:
    one, other = quota(full, 9), quota(limits(full.file.path, 1), 9)
    assert count(one, NOON) == 4
    let_go(full)
    assert one.left(NOON + 0.5) == 0
    assert take(other, NOON + 0.5)
    assert one.left(NOON + 1) == other.left(NOON + 1) == 4
    one.refund(4, NOON)
    assert one.left(NOON + 1) == other.left(NOON + 1) == 8


def test_local_quota_counts_apply_to_their_own_day(full: LimitTable) -> None:
    one = quota(full, 9)
    assert count(one, MIDNIGHT - 1) == 4
    let_go(full)
    assert one.left(MIDNIGHT + 1) == 9
    # A day counted without a row does not restart.
    assert one.left(MIDNIGHT - 1) == 9


def test_clock_step_back_over_midnight_restarts_no_quota_without_a_row(full: LimitTable) -> None:
    one = quota(full, 9)
    assert count(one, MIDNIGHT + 1) == 4
    assert count(one, MIDNIGHT - HOUR) == 0
    assert count(one, MIDNIGHT + 2) == 0
    let_go(full)
    assert one.left(MIDNIGHT - HOUR + 5) == 5


def test_local_quota_counts_are_added_to_those_of_the_column(worker: Worker, path: Path) -> None:
    assert take(quota(worker(1), 20), NOON - DAY, 3)
    assert take(quota(worker(0), 20), NOON, 2)
    table = limits(path)
    row = table.peek(table.make_key(quota_key("requests-day", UTC_ZONE, SUBJECT)))
    assert row is not None
    successors = [quota(worker(column), 20) for column in range(2)]
    # The workers get the flock too late for their first requests.
    table.words[row + at.ROW_GENERATION] += 1
    table.words[row + at.ROW_SYNC] += 1
    assert table.file.lock()
    assert [take(successor, NOON, 4) for successor in successors] == [True, True]
    table.file.unlock()
    assert [successor.left(NOON) for successor in successors] == [14, 10]
    assert [successor.left(NOON) for successor in successors] == [10, 10]


def test_a_row_that_is_out_of_reach_for_a_moment_is_counted_in_again(worker: Worker, path: Path) -> None:
    one, table = quota(worker(0), 20), limits(path)
    assert take(one, NOON, 2)
    row = table.peek(table.make_key(quota_key("requests-day", UTC_ZONE, SUBJECT)))
    assert row is not None
    table.words[row + at.ROW_GENERATION] += 1
    table.words[row + at.ROW_SYNC] += 1
    assert table.file.lock()
    assert one.left(NOON) == 5
    assert take(one, NOON, 5)
    table.file.unlock()
    assert one.left(NOON) == 13
