"""Headroom: a worker far from a limit decides without reading the others, and no limit passes more for it."""

import random
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.edge.counters.layout import GAUGE, HEAD_WORDS, HEADS_APART, KEYS_APART, LONE_HEAD_WORDS, Layout
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.admission import admit, charge_reported_costs
from edgeproxy.edge.limits.concurrency import ConcurrencyLimit
from edgeproxy.edge.limits.headroom import FULL_SECONDS, compute_headroom
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.unit_limit import UnitLimit
from tests.support.tables import limits, make

BOTH_ORDERS = True

START = 51_000_000.0
WINDOW = 60.0
CELL_SECONDS = 2.142858
WORKERS = 64

Join = Callable[[int], LimitTable]


def make_table(folder: Path, workers: int = WORKERS, *, hub: bool = False) -> Join:
    """Return a table of so many workers, and as many spare columns, as the worker of a column has it."""
    columns = 2 * workers + hub
    width, parts = (HEAD_WORDS, KEYS_APART) if hub else (LONE_HEAD_WORDS, HEADS_APART)
    path = make(folder, Layout("customers", 20, columns, ring=32, cells=28, width=width, parts=parts))
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


def get_seats(table: LimitTable, limit: int) -> ConcurrencyLimit:
    return Policies(table).get_concurrency(Rule("concurrency", limit, 0.0, algorithm="concurrency"), b"acme")


def charge(policy: Policy, now: float, times: int) -> None:
    """Pass this many requests."""
    for _ in range(times):
        assert policy.left(now) >= policy.cost
        policy.charge(policy.cost)


def test_worker_with_headroom_decides_without_reading_the_table(tmp_path: Path) -> None:
    tables = join_all(make_table(tmp_path, 10), range(10))
    one, other = (get_window(table, 8000) for table in tables[:2])
    assert compute_headroom(8000, 20) == 100
    charge(one, START, 1)
    charge(other, START, 50)
    charge(one, START, 99)
    assert one.left(START) == 7850, "all of its headroom is used"
    charge(other, START, 50)
    assert one.left(START) == 7850, "the worker has headroom again and does not see the fifty"
    assert one.left(START + CELL_SECONDS) == 7800, "a new cell"


def test_worker_near_a_limit_makes_other_workers_read_the_table(join: Join) -> None:
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
    assert high.left(START) == 79_996, "it still has headroom of its own"


def test_a_request_that_costs_more_than_the_headroom_reads(join: Join) -> None:
    tables = join_all(join, range(10))
    one, other = get_window(tables[0], 8000, cost=101), get_window(tables[1], 8000)
    for number in range(1, 5):
        charge(one, START, 1)
        charge(other, START, 1)
        assert one.left(START) == 8000 - 102 * number


def test_a_row_that_was_read_as_full_is_not_read_again_for_a_moment(join: Join) -> None:
    # A lowered limit that the other worker does not know yet.
    tables = join_all(join, range(10))
    one, other = get_window(tables[0], 10), get_window(tables[1], 1000)
    charge(other, START, 10)
    assert one.left(START) == 0
    charge(other, START, 5)
    assert one.left(START) == 0
    assert one.left(START + FULL_SECONDS) == -5
    assert one.left(START + 30 * CELL_SECONDS) == 10, "a new cell is read"


def test_workers_of_two_supervisors_have_no_headroom(tmp_path: Path) -> None:
    tables = join_all(make_table(tmp_path, 10), range(11))
    assert not any(table.may_use_headroom for table in tables)
    one, other = (get_window(table, 8000) for table in tables[:2])
    seats, others_seats = (get_seats(table, 8000) for table in tables[:2])
    for number in range(1, 20):
        charge(one, START, 1)
        charge(other, START, 1)
        assert one.left(START) == 8000 - 2 * number
        assert seats.acquire(START)
        assert others_seats.acquire(START)
    assert max(seats.counts._headroom.until, others_seats.counts._headroom.until) < 1
    # The eleventh has left.
    for table in tables[:10]:
        table.limit_active_columns(frozenset(range(10)))
    for table in tables[:10]:
        table.refresh_columns()
    assert all(table.may_use_headroom for table in tables[:10])


@pytest.mark.parametrize(("limit", "released"), [(90, 0.3), (1500, 0.2)])
def test_requests_at_once_of_sixty_four_workers_are_as_many_as_allowed(
    join: Join, seed: int, monkeypatch: pytest.MonkeyPatch, limit: int, released: float
) -> None:
    monkeypatch.setattr(LimitTable, "is_living", lambda self, column: True)
    chance = random.Random(seed)
    tables = join_all(join, range(WORKERS))
    seats = [get_seats(table, limit) for table in tables]
    held: list[ConcurrencyLimit] = []
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
    table, place = tables[0], seats[0].counts.place
    assert place is not None
    words = [table.words[place[0] + table.layout.head(column) + GAUGE] & 0xFFFFFFFF for column in range(WORKERS)]
    assert sum(words) == len(held)


def test_workers_of_several_hosts_have_no_headroom(tmp_path: Path) -> None:
    tables = join_all(make_table(tmp_path, hub=True), range(10))
    assert not any(table.may_use_headroom for table in tables)
    one, other = (get_window(table, 8000) for table in tables[:2])
    seat = get_seats(tables[0], 8000)
    for number in range(1, 4000):
        charge(one, START, 1)
        charge(other, START, 1)
        assert one.left(START) == 8000 - 2 * number
        assert seat.acquire(START)
        assert seat.acquire(START)
    one.charge_late(10)
    table = tables[0]
    assert not any(table.words[row + table.alarm_at] for row in table.rows()), (
        "no worker has headroom, so none raises an alarm"
    )


def drain(policy: Policy) -> int:
    """Pass requests until none passes. Return their number."""
    passed = 0
    while policy.left(START) >= policy.cost:
        policy.charge(policy.cost)
        passed += 1
    return passed


UNITS = 100_000


def get_units(table: LimitTable, reserve: int) -> UnitLimit:
    rule = Rule("tokens", UNITS, WINDOW, of="tokens")
    under_way = Rule("tokens-under-way", UNITS, 0.0, algorithm="concurrency")
    return Policies(table).get_unit_limit(rule, under_way, b"acme", reserve)


@pytest.mark.parametrize("workers", [8, 64])
@pytest.mark.parametrize("units", [100, 5000, 10_000])
def test_units_that_answers_state_stay_within_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, units: int
) -> None:
    monkeypatch.setattr(LimitTable, "is_living", lambda self, column: True)
    everyone = [get_units(table, units) for table in join_all(make_table(tmp_path, workers), range(workers))]
    for each in everyone:
        assert each.acquire(START)
        each.count(10, START)
        each.release()
    counted = 10 * workers
    for _ in range(1 + UNITS // units):
        for each in everyone:
            if each.acquire(START):
                each.count(units, START)
                each.release()
                counted += units
    assert UNITS - units < counted <= UNITS


def test_units_are_reserved_by_a_fresh_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LimitTable, "is_living", lambda self, column: True)
    one, *others = (get_units(table, 100) for table in join_all(make_table(tmp_path, 8), range(8)))
    for each in (one, *others):
        assert each.acquire(START)
        each.count(1, START)
        each.release()
    for each in others:
        # Less than a worker's headroom, and for each of them.
        for _ in range(15):
            assert each.acquire(START)
            each.count(100, START)
            each.release()
    left = UNITS - 8 - 7 * 1500
    assert one.policy.left(START) == left
    one.reserve = left + 1
    assert not one.acquire(START)
    one.reserve = left
    assert one.acquire(START)
    others[0].reserve = 1
    assert not others[0].acquire(START), "another worker has reserved all slots"


@pytest.mark.parametrize("workers", [8, 64])
@pytest.mark.parametrize("is_late", [True, False], ids=["late", "beside requests that are charged at once"])
def test_costs_that_answers_report_are_seen_by_all(tmp_path: Path, workers: int, is_late: bool) -> None:
    cost, limit = 10_000, 100_000
    rule = Rule("basic", limit, WINDOW)
    sets = [
        LimitSet(reported=(Policies(table).get_policy(rule, b"acme", is_late=is_late),))
        for table in join_all(make_table(tmp_path, workers), range(workers))
    ]
    for set_ in sets:
        assert not admit(set_, START)[0]
        charge_reported_costs(set_, START, [10])
    counted = 10 * workers
    for _ in range(20):
        for set_ in sets:
            if not admit(set_, START)[0]:
                charge_reported_costs(set_, START, [cost])
                counted += cost
    assert limit <= counted < limit + cost


def test_zero_default_cost_still_reads_counts_of_other_workers(join: Join) -> None:
    tables = join_all(join, range(10))
    one = Policies(tables[0]).get_policy(Rule("basic", 8000, WINDOW), b"acme", 0, is_late=True)
    other = get_window(tables[1], 8000)
    assert one.left(START) == 8000
    charge(other, START, 1)
    assert one.left(START) == 7999


def test_request_that_crosses_the_margin_makes_other_workers_read(tmp_path: Path) -> None:
    tables = join_all(make_table(tmp_path, 8), range(8))
    one, *others = (get_window(table, 8000) for table in tables)
    for each in (one, *others):
        charge(each, START, 1)
    charge(get_window(tables[1], 8000, cost=7982), START, 1)
    assert 8 + 7982 + sum(map(drain, (one, *others))) == 8000


def test_a_refused_request_leaves_headroom_and_the_next_alarm_still_comes(tmp_path: Path) -> None:
    tables = join_all(make_table(tmp_path, 8), range(8))
    one, *others = (get_window(table, 8000) for table in tables)
    large, middle = (get_window(tables[1], 8000, cost=cost) for cost in (2500, 2380))
    charge(one, START, 5600)
    assert large.left(START) == 2400, "too little, and more than the margin"
    for each in (one, *others):
        charge(each, START, 1)
    charge(middle, START, 1)
    assert 5600 + 8 + 2380 + sum(map(drain, (one, *others))) == 8000


@pytest.mark.parametrize("workers", [8, 32])
def test_joining_worker_known_to_one_worker_adds_no_headroom(tmp_path: Path, workers: int) -> None:
    join = make_table(tmp_path, workers)
    tables = join_all(join, range(workers))
    windows = [get_window(table, 8000) for table in tables]
    for window in windows:
        charge(window, START, 1)
    join(workers).declare_column()
    tables[0].refresh_columns()
    assert workers + sum(map(drain, windows)) == 8000


@pytest.mark.parametrize("workers", [8, 32])
def test_released_spare_column_unknown_to_one_worker_adds_no_headroom(tmp_path: Path, workers: int) -> None:
    tables = join_all(make_table(tmp_path, workers), range(workers + 1))
    windows = [get_window(table, 8000) for table in tables[:workers]]
    for window in windows:
        charge(window, START, 1)
    tables[workers].limit_active_columns(frozenset(range(workers)))
    for table in tables[1:workers]:
        table.refresh_columns()
    for window in windows[1:]:
        charge(window, START, 1)
    assert 2 * workers - 1 + sum(map(drain, windows)) == 8000


def test_a_worker_that_knows_of_few_others_still_raises_the_alarm(tmp_path: Path) -> None:
    tables = join_all(make_table(tmp_path, 8), range(8))
    windows = [get_window(table, 8000) for table in tables[:7]]
    for window in windows:
        charge(window, START, 1)
    tables[0].limit_active_columns(frozenset(range(7)))
    assert 7 + sum(map(drain, windows)) == 8000


def take_all(seat: ConcurrencyLimit) -> int:
    """Acquire slots until there is none. Return their number."""
    taken = 0
    while seat.acquire(START):
        taken += 1
    return taken


def test_requests_at_once_stay_within_the_limit_while_columns_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LimitTable, "is_living", lambda self, column: True)
    join = make_table(tmp_path, 8)
    tables = join_all(join, range(8))
    seats = [get_seats(table, 8000) for table in tables]
    assert all(seat.acquire(START) for seat in seats)
    join(8).declare_column()
    tables[0].refresh_columns()
    assert 8 + sum(map(take_all, seats)) == 8000


def test_slots_of_a_dead_worker_do_not_hide_the_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead: set[int] = set()
    monkeypatch.setattr(LimitTable, "is_living", lambda self, column: column not in dead)
    seats = [get_seats(table, 8000) for table in join_all(make_table(tmp_path, 8), range(8))]
    assert all(seat.acquire(START) for seat in seats[:7])
    assert seats[7].counts.take(8000, START, 5900)
    dead.add(7)
    assert seats[0].counts.take(8000, START, 2200)
    assert 7 + 2200 + sum(map(take_all, seats[:7])) == 8000


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


# A low limit gives no headroom.
@pytest.mark.parametrize(("limit", "order"), [(500, "armv8"), (3000, "x86-64")], indirect=["order"])
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
    assert (len(alarms) > 10) == (compute_headroom(limit, 2 * WORKERS) > 0)
