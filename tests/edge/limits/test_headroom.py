"""Headroom: a worker far from a limit decides without reading the others, and no limit passes more for it."""

import random
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.edge.counters.layout import HEAD_WORDS, Layout
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.concurrency import Concurrency
from edgeproxy.edge.limits.headroom import FULL_SECONDS, compute_headroom
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.rule import Rule
from tests.support.tables import limits, make

BOTH_ORDERS = True

START = 51_000_000.0
WINDOW = 60.0
CELL_SECONDS = 2.142858
WORKERS = 64

Join = Callable[[int], LimitTable]


def make_table(folder: Path, *, hub: bool = False) -> Join:
    """Return a table of sixty-four workers, and as many spare columns, as the worker of a column has it."""
    columns = 2 * WORKERS + hub
    path = make(folder, Layout("customers", rows=20, columns=columns, ring=32, cells=28, width=HEAD_WORDS))
    return lambda column: limits(path, column)


@pytest.fixture
def join(tmp_path: Path) -> Join:
    return make_table(tmp_path)


def join_all(join: Join, columns: range) -> list[LimitTable]:
    """Return the tables of these columns' workers, which all know of each other."""
    tables = [join(column) for column in columns]
    for table in tables:
        table.declare_column()
    for table in tables:
        table.refresh_columns()
    return tables


def get_window(table: LimitTable, limit: int, cost: int = 1) -> Policy:
    return Policies(table).get_policy(Rule("basic", limit, WINDOW), b"acme", cost)


def get_seats(table: LimitTable, limit: int) -> Concurrency:
    return Policies(table).get_concurrency(Rule("concurrency", limit, 0.0, algorithm="concurrency"), b"acme")


def charge(policy: Policy, now: float, times: int) -> None:
    """Pass this many requests."""
    for _ in range(times):
        assert policy.left(now) >= policy.cost
        policy.charge(policy.cost)


def test_a_worker_that_has_headroom_decides_without_reading_until_it_is_used(join: Join) -> None:
    tables = join_all(join, range(10))
    one, other = (get_window(table, 8000) for table in tables[:2])
    assert compute_headroom(8000, 10) == 100
    charge(one, START, 1)
    charge(other, START, 50)
    charge(one, START, 99)
    assert one.left(START) == 7850, "all of its headroom is used"
    charge(other, START, 50)
    assert one.left(START) == 7850, "it has headroom again, and does not see the fifty"
    assert one.left(START + CELL_SECONDS) == 7800, "a new cell"


def test_who_comes_near_a_limit_makes_the_others_read(join: Join) -> None:
    tables = join_all(join, range(10))
    one, other, third = (get_window(table, 8000) for table in tables[:3])
    charge(one, START, 1)
    charge(third, START, 1)
    charge(other, START, 5800)
    assert one.left(START) == 7999
    charge(other, START, 300)
    assert one.left(START) == 1898, "the other has found less than a quarter left"
    charge(other, START, 1897)
    assert one.left(START) == third.left(START) == 1
    charge(third, START, 1)
    assert one.left(START) == other.left(START) == 0


def test_headroom_taken_early_is_not_used_late(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LimitTable, "is_living", lambda self, column: True)
    tables = join_all(join, range(WORKERS))
    windows, seats = ([make(table, 10_000) for table in tables] for make in (get_window, get_seats))
    for window, seat in zip(windows, seats, strict=True):
        charge(window, START, 1)
        assert seat.acquire(START)
    # Some are stopped between their decision and its count.
    for window in windows[1:9]:
        assert window.left(START) > 0
    charge(windows[0], START, 10_000 - WORKERS)
    assert all(seats[0].acquire(START) for _ in range(10_000 - WORKERS))
    for window in windows[1:9]:
        window.charge()
    assert {window.left(START) for window in windows[1:]} == {-8}
    assert not any(seat.acquire(START) for seat in seats)


def test_headroom_of_one_limit_is_not_anothers_of_the_same_row(join: Join) -> None:
    tables = join_all(join, range(10))
    policies = Policies(tables[0])
    high, low = (policies.get_policy(Rule("basic", limit, WINDOW), b"acme") for limit in (80_000, 400))
    charge(high, START, 1)
    charge(get_window(tables[1], 80_000), START, 396)
    assert low.left(START) == 3
    charge(low, START, 3)
    assert low.left(START) == 0
    assert high.left(START) == 79_600


def test_a_request_that_costs_more_than_the_headroom_reads(join: Join) -> None:
    tables = join_all(join, range(10))
    one, other = get_window(tables[0], 8000, cost=101), get_window(tables[1], 8000)
    for number in range(1, 5):
        charge(one, START, 1)
        charge(other, START, 1)
        assert one.left(START) == 8000 - 102 * number


def test_a_row_that_was_read_as_full_is_not_read_again_for_a_moment(join: Join) -> None:
    # A lowered limit, of which the other worker does not know yet.
    tables = join_all(join, range(10))
    one, other = get_window(tables[0], 10), get_window(tables[1], 1000)
    charge(other, START, 10)
    assert one.left(START) == 0
    charge(other, START, 5)
    assert one.left(START) == 0
    assert one.left(START + FULL_SECONDS) == -5
    assert one.left(START + 30 * CELL_SECONDS) == 10, "a new cell is read"


def test_workers_beside_those_of_another_supervisor_have_no_headroom(tmp_path: Path) -> None:
    path = make(tmp_path, Layout("customers", rows=20, columns=20, ring=32, cells=28, width=HEAD_WORDS))
    tables = join_all(lambda column: limits(path, column), range(11))
    assert {table.sharers for table in tables} == {0}
    one, other = (get_window(table, 8000) for table in tables[:2])
    seats, others_seats = (get_seats(table, 8000) for table in tables[:2])
    for number in range(1, 20):
        charge(one, START, 1)
        charge(other, START, 1)
        assert one.left(START) == 8000 - 2 * number
        assert seats.acquire(START)
        assert others_seats.acquire(START)
    assert seats.counts._headroom.until == others_seats.counts._headroom.until == -1
    # The eleventh has left.
    for table in tables[:10]:
        table.limit_active_columns(frozenset(range(10)))
    for table in tables[:10]:
        table.refresh_columns()
    assert {table.sharers for table in tables[:10]} == {10}


@pytest.mark.parametrize(("limit", "released"), [(90, 0.3), (1500, 0.2)])
def test_requests_at_once_of_sixty_four_workers_are_as_many_as_allowed(
    join: Join, seed: int, monkeypatch: pytest.MonkeyPatch, limit: int, released: float
) -> None:
    monkeypatch.setattr(LimitTable, "is_living", lambda self, column: True)
    chance = random.Random(seed)
    seats = [get_seats(table, limit) for table in join_all(join, range(WORKERS))]
    held: list[Concurrency] = []
    was_full = 0
    for number in range(8000):
        seat = chance.choice(seats)
        # In the middle most of them end, and then it fills again.
        if held and chance.random() < (released if not 4000 < number < 6500 else 0.95):
            held.pop(chance.randrange(len(held))).release()
        elif chance.random() < 0.1:
            is_full = seat.retry_after(START) > 0
            assert is_full == (len(held) == limit)
            was_full += is_full
        elif seat.acquire(START):
            held.append(seat)
        else:
            assert len(held) == limit
        assert len(held) <= limit
    assert was_full


def test_workers_of_several_hosts_have_no_headroom(tmp_path: Path) -> None:
    assert {table.sharers for table in join_all(make_table(tmp_path, hub=True), range(10))} == {0}


class Worker:
    """A worker of the simulation. `pending` is a decision that is not counted yet, as the worker was stopped."""

    def __init__(self, join: Join, column: int) -> None:
        self.table = join(column)
        self.table.declare_column()
        self._policies = Policies(self.table)
        self.pending: tuple[float, Policy] | None = None
        self.is_stopped = False

    def get_policy(self, limit: int, cost: int) -> Policy:
        return self._policies.get_policy(Rule("basic", limit, WINDOW), b"acme", cost)


@pytest.mark.parametrize("limit", [500, 10_000])
def test_sixty_four_workers_stopped_killed_and_reloaded_keep_the_limit(tmp_path: Path, seed: int, limit: int) -> None:
    """Any worker may be stopped between its decision and its count, for long, and with headroom; some are killed and
    replaced, and all get new limits now and then. By the times of decisions no window has more than L + 2 (N − 1) c,
    and none refuses a request that fits into L beside the last W + w.
    """
    join = make_table(tmp_path)
    chance = random.Random(seed)
    workers = [Worker(join, column) for column in range(WORKERS)]
    for worker in workers:
        worker.table.refresh_columns()
    cost = 3
    passed: deque[tuple[float, int]] = deque()
    window: deque[tuple[float, int]] = deque()
    now, counted, in_window, most, refused, alarms = START, 0, 0, 0, 0, set()
    number, pace, turns = 0, 0.5, 1.0
    for _ in range(5 * limit + 10_000):
        # Requests come in bursts, to one worker or to many.
        if chance.random() < 0.002:
            pace, turns = chance.choice((0.02, 0.5, 3.0)), chance.choice((0.002, 0.05, 1.0))
        now += chance.expovariate(1.0) * WINDOW / limit * pace
        if chance.random() < turns:
            number = chance.randrange(WORKERS)
        worker = workers[number]
        event = chance.random()
        if event < 0.001:
            workers[number] = Worker(join, number)  # Killed: a request without a count has not passed.
            workers[number].table.refresh_columns()
            continue
        worker.is_stopped = event < 0.9 if worker.is_stopped else event > 0.998
        if worker.is_stopped:
            continue
        while passed and passed[0][0] <= now - WINDOW - CELL_SECONDS:
            counted -= passed.popleft()[1]
        if worker.pending is not None:
            moment, policy = worker.pending
            worker.pending = None
            policy.charge(policy.cost)
            passed.append((moment, policy.cost))
            window.append((moment, policy.cost))
            counted += policy.cost
            in_window += policy.cost
            while window[0][0] <= now - WINDOW:
                in_window -= window.popleft()[1]
            most = max(most, in_window)
            continue
        # A reload lowers or raises the limit, but not above the one that is tested, and not for all at once.
        terms = limit if chance.random() < 0.9 else limit * 3 // 4
        policy = worker.get_policy(terms, chance.randint(1, cost))
        if policy.left(now) >= policy.cost:
            worker.pending = now, policy
        else:
            assert counted + policy.cost > terms
            refused += 1
        alarms.add(worker.table.words[worker.table.row(0) + worker.table.alarm_at])
    assert most <= limit + 2 * (WORKERS - 1) * cost
    assert refused
    assert (len(alarms) > 10) == (compute_headroom(limit, WORKERS) > 0)
