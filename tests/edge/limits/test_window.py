from collections import deque
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.counters.cells import MASK, cell_number, width_us
from edgeproxy.edge.counters.layout import HEADS_APART, LONE_HEAD_WORDS, Layout
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits import policies
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.rule import Rule
from tests.edge.limits.conftest import Worker
from tests.edge.limits.reference import ask
from tests.support.tables import fresh, limits, list_ring_words, make

BOTH_ORDERS = True

CUSTOMERS = Layout("customers", 5, 8, ring=32, cells=28, width=LONE_HEAD_WORDS, parts=HEADS_APART)
START = 51_000_000.0
SUBJECT = b"acme"
WIDTH = width_us(60.0, 28)
CELL = WIDTH / 1e6


def policy(worker: Worker, column: int = 0, limit: int = 10, window: float = 60.0, name: str = "basic") -> Policy:
    return Policies(worker(column)).get_policy(Rule(name, limit, window), SUBJECT)


def test_the_oldest_cell_counts_in_full(worker: Worker) -> None:
    window = policy(worker, limit=1)
    start = cell_number(START, WIDTH) * CELL
    assert ask(window, start + 0.01)
    assert window.left(start + 60 + CELL - 0.01) == 0
    assert window.left(start + 60 + CELL + 0.01) == 1


def test_a_single_worker_reads_no_siblings(tmp_path: Path) -> None:
    path = make(
        tmp_path, Layout("customers", rows=5, columns=2, ring=32, cells=28, width=LONE_HEAD_WORDS, parts=HEADS_APART)
    )
    window = Policies(limits(path, 0)).get_policy(Rule("basic", 3, 60.0), SUBJECT)
    assert [ask(window, START) for _ in range(4)] == [True, True, True, False]


def test_sibling_with_a_clock_up_to_two_cells_ahead_is_counted(worker: Worker) -> None:
    for ahead in range(4):
        now = START + ahead * 1000
        behind, before = policy(worker, 0), policy(worker, 1)
        assert ask(before, now + ahead * CELL)
        assert behind.left(now) == (9 if ahead <= 2 else 10)


def test_workers_on_spare_columns_and_others_read_each_other(worker: Worker) -> None:
    tables = [worker(column) for column in (0, 4, 6)]
    for table in tables:
        table.declare_column()
    for table in tables:
        table.refresh_columns()
    windows = [Policies(table).get_policy(Rule("basic", 10, 60.0), SUBJECT) for table in tables]
    # Each of them sums the rings anew in a later cell, and reads the present cells of the others in between.
    for turn, now in enumerate((START, START, START + 2 * CELL)):
        for place, window in enumerate(windows):
            assert window.left(now) == 10 - 3 * turn - place
            assert ask(window, now)
    assert [window.left(START + 2 * CELL) for window in windows] == [1, 1, 1]
    assert [window.left(START + 60 + 1.5 * CELL) for window in windows] == [7, 7, 7]


def test_a_sibling_far_ahead_does_not_count(worker: Worker) -> None:
    one, other, third = (policy(worker, column) for column in range(3))
    for window in (other, third):
        assert ask(window, START + 32 * CELL)
    assert one.left(START) == 10


def test_worker_with_a_clock_set_back_continues_from_the_map(worker: Worker) -> None:
    window = policy(worker)
    for now in (START, START + CELL, START + 2 * CELL, START, START + CELL, START + 4 * CELL, START + 3 * CELL):
        assert ask(window, now)
    assert window.left(START + 4 * CELL) == 3
    assert window.left(START + 5 * CELL) == 3


def test_counts_saturate(worker: Worker) -> None:
    window = policy(worker, limit=1 << 40)
    window.left(START)
    window.charge(MASK)
    window.charge(MASK)
    assert window.left(START) == (1 << 40) - MASK
    assert policy(worker, 1, limit=1 << 40).left(START) == (1 << 40) - MASK


def test_a_word_of_every_cell_is_summed_as_exactly_as_any_others(worker: Worker) -> None:
    window, other = policy(worker, 0, limit=1 << 40), policy(worker, 1, limit=1 << 40)
    for step in range(40):
        window.left(START + step * CELL)
        window.charge(MASK if step % 3 else 1)
    used = sum(MASK if step % 3 else 1 for step in range(11, 40))
    now = START + 39 * CELL
    assert window.left(now) == other.left(now) == policy(worker, 0, limit=1 << 40).left(now) == (1 << 40) - used


# ---- against an exact reference

STEPS = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0, 0.2), st.floats(0, 1.5)),
        st.integers(1, 4),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=120,
)
WINDOWS = st.sampled_from((0.5, 1.0, 10.0, 60.0, 3600.0, 86400.0 * 31))
"""Of these the shortest has cells of a few milliseconds more than asked for, at 0.28 s of 10 ms."""


@given(steps=STEPS, window=WINDOWS, limit=st.integers(1, 40), start=st.floats(0, 6e8), small=st.booleans())
def test_window_decides_as_the_exact_reference_within_one_cell(
    steps: list[tuple[float, int, int]],
    window: float,
    limit: int,
    start: float,
    small: bool,
) -> None:
    layout = (
        Layout("addresses", 5, 8, ring=16, cells=13, width=LONE_HEAD_WORDS, parts=HEADS_APART) if small else CUSTOMERS
    )
    with fresh(layout) as path:
        hold_to_the_promise(path, layout, steps, Rule("basic", limit, window), start)


def hold_to_the_promise(
    path: Path, layout: Layout, steps: list[tuple[float, int, int]], rule: Rule, start: float
) -> None:
    window, limit = rule.window, rule.limit
    windows = [Policies(limits(path, column)).get_policy(rule, SUBJECT) for column in range(4)]
    cell = width_us(window, layout.cells) / 1e6
    now = start
    log: deque[tuple[float, int]] = deque()
    # Times are floats: differences below their rounding cannot be told apart.
    grain = 1e-6 + start * 2**-50
    for share, cost, column in steps:
        now += share * window
        admitted = ask(windows[column], now, cost)
        if admitted:
            assert cost + sum(c for moment, c in log if moment > now - window + grain) <= limit
            log.append((now, cost))
        else:
            assert cost + sum(c for moment, c in log if moment >= now - cell * (layout.cells + 1) - grain) > limit


@given(steps=STEPS, window=WINDOWS, limit=st.integers(1, 40), start=st.floats(0, 6e8))
def test_retry_passes_at_the_stated_time_and_not_much_earlier(
    steps: list[tuple[float, int, int]],
    window: float,
    limit: int,
    start: float,
) -> None:
    with fresh(CUSTOMERS) as path:
        retry(path, steps, Rule("basic", limit, window), start)


def retry(path: Path, steps: list[tuple[float, int, int]], rule: Rule, start: float) -> None:
    window, limit = rule.window, rule.limit
    windows = [Policies(limits(path, column)).get_policy(rule, SUBJECT) for column in range(4)]
    later = Policies(limits(path, 5)).get_policy(rule, SUBJECT)
    cell = width_us(window, 28) / 1e6
    now = start
    log: list[tuple[float, int]] = []
    for share, cost, column in steps:
        now += share * window
        if ask(windows[column], now, cost):
            assert windows[column].retry_after(now, 0) == 0
            log.append((now, cost))
            continue
        wait = windows[column].retry_after(now, cost)
        assert wait == windows[(column + 1) % 4].retry_after(now, cost) >= 1
        if cost > limit:
            continue
        # With nothing more charged, another's look at that moment must find room.
        assert later.left(now + wait) >= cost
        # An exact window would have had room as soon as the oldest that stand in the way are W old.
        used = sum(c for _, c in log)
        for moment, c in log:
            if used + cost <= limit:
                break
            used -= c
            passes = moment + window
        assert wait <= max(0.0, passes - now) + cell + 1 + 1e-3


@st.composite
def happenings(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """Draw events: the kind, the worker's number, and the amount."""
    kind = st.sampled_from(("charge", "charge", "charge", "cells", "cells", "back", "anew", "foreign", "enter", "go"))
    return draw(st.lists(st.tuples(kind, st.integers(0, 3), st.integers(0, 45)), max_size=80))


@given(events=happenings())
def test_all_workers_see_the_counts_in_the_map_after_any_events(events: list[tuple[str, int, int]]) -> None:
    with fresh(CUSTOMERS) as path:
        happen(path, events)


def happen(path: Path, events: list[tuple[str, int, int]]) -> None:
    rule = Rule("basic", 1 << 30, 60.0)
    tables = [limits(path, column) for column in range(4)]
    windows = [Policies(table).get_policy(rule, SUBJECT) for table in tables]
    supervisor = limits(path)
    now = START
    for what, column, amount in events:
        if what == "charge":
            windows[column].left(now)
            windows[column].charge(amount + 1)
        elif what == "cells":
            now += CELL * (amount if amount > 30 else amount / 8)
        elif what == "back":
            now -= CELL * (amount / 20)
        elif what == "anew":
            tables[column] = limits(path, column)
            tables[column].declare_column()
            windows[column] = Policies(tables[column]).get_policy(rule, SUBJECT)
        elif what == "foreign":
            row, _, _ = supervisor.find(supervisor.make_key(rule.key(SUBJECT)), WIDTH, now)
            supervisor.write_foreign(row, {cell_number(now, WIDTH) - amount % 28: amount + 1})
        elif what == "enter":
            late = limits(path, 4 + column)
            late.declare_column()
            window = Policies(late).get_policy(rule, SUBJECT)
            for table in tables:
                table.refresh_columns()
            window.left(now)
            window.charge(amount + 1)
        else:
            supervisor.limit_active_columns(frozenset(range(4)))
            for table in tables:
                table.refresh_columns()
        used = (1 << 30) - windows[column].left(now)
        assert used == reference(supervisor, rule, now)
        for window in windows:
            assert window.left(now) == (1 << 30) - used


def reference(table: LimitTable, rule: Rule, now: float) -> int:
    """Compute the sum from the words in the row, one by one."""
    row = table.peek(table.make_key(rule.key(SUBJECT)))
    if row is None:
        return 0
    cell = cell_number(now, WIDTH)
    words = list_ring_words(table, row)
    return sum(word & MASK for word in words if cell - 28 <= word >> 28 <= cell + 2)


# ---- what clients are told


def test_a_row_keeps_its_counts_when_windows_beyond_the_bound_are_dropped(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "WINDOWS_MAX", 1)
    of_table = Policies(worker(0))
    rule = Rule("basic", 5, 60.0)
    one = of_table.get_policy(rule, b"acme")
    assert ask(one, START)
    of_table.get_policy(Rule("basic", 5, 30.0), b"acme")
    other = of_table.get_policy(rule, b"acme")
    assert ask(other, START)
    assert (one.left(START), other.left(START)) == (3, 3)


def test_slots_in_use_count_when_gauges_beyond_the_bound_are_dropped(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "WINDOWS_MAX", 1)
    of_table = Policies(worker(0))
    rules = [Rule("concurrency", limit, 0.0, algorithm="concurrency") for limit in (1, 2)]
    one, _, other = [of_table.get_concurrency(rule, b"acme") for rule in (rules[0], rules[1], rules[0])]
    assert one.acquire(START)
    assert not other.acquire(START)
    one.release()
    assert other.acquire(START)


def test_a_retry_is_not_put_off_where_there_is_room(worker: Worker) -> None:
    window = policy(worker)
    assert window.retry_after(START) == 0
    assert window.retry_after(START, cost=10) == 0


def test_a_cost_above_the_limit_is_put_off_until_the_window_is_empty(worker: Worker) -> None:
    window = policy(worker)
    assert window.retry_after(START, cost=11) == 1
    assert ask(window, START)
    assert 60 <= window.retry_after(START, cost=11) <= 64


@pytest.mark.patches_methods
def test_refusals_in_a_cell_sum_the_window_once(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    window = policy(worker, limit=2)
    other = policy(worker, 1, limit=2)
    sums: list[int] = []
    moment = type(window)._compute_free_time  # type: ignore[attr-defined]
    monkeypatch.setattr(type(window), "_compute_free_time", lambda self, n: sums.append(n) or moment(self, n))
    start = cell_number(START, WIDTH) * CELL + 0.01
    assert ask(window, start)
    assert ask(other, start)
    waits = [window.retry_after(start + step * 0.001) for step in range(1000)]
    assert sums == [1]
    assert waits == sorted(waits, reverse=True)
    assert 0 <= waits[0] - waits[-1] <= 1
    other.charge()
    window.retry_after(start + 1)
    assert sums == [1, 2]


def test_the_reset_is_when_the_oldest_leaves(worker: Worker) -> None:
    window, other = policy(worker, 0), policy(worker, 1)
    start = cell_number(START, WIDTH) * CELL
    assert window.reset(start + 0.01) == 63
    assert ask(other, start + 0.01)
    assert window.reset(start + 20) == 43
    assert ask(window, start + 31)
    assert window.reset(start + 32) == other.reset(start + 32) == 31
    assert window.reset(start + 62.142) == 1
    assert window.reset(start + 62.2) == 30
    resets = [window.reset(start + 62.2 + step) for step in range(29)]
    assert resets == sorted(resets, reverse=True)
    assert all(one - two <= 1 for one, two in pairwise(resets))


def test_reset_regards_foreign_counts_as_the_oldest(worker: Worker) -> None:
    window = policy(worker)
    table = worker(1)
    window.left(START)
    row = table.peek(table.make_key(Rule("basic", 10, 60.0).key(SUBJECT)))
    assert row is not None
    table.write_foreign(row, {cell_number(START, WIDTH) - 20: 3})
    assert window.left(START) == 7
    assert window.reset(START) < 22


def test_the_tail_is_made_once_a_second(worker: Worker) -> None:
    window = policy(worker)
    start = cell_number(START, WIDTH) * CELL
    now = float(int(start) + 1)
    assert ask(window, now)
    first = window.tail(now)
    assert first == b";t=%d\r\n" % window.reset(now)
    assert window.tail(now + 0.999) is first
    assert window.tail(now + 1.0) == b";t=%d\r\n" % (window.reset(now) - 1)


def test_subjects_of_one_second_share_the_resets_of_equal_ages(worker: Worker) -> None:
    policies, rule = Policies(worker(0)), Rule("basic", 10, 60.0)
    old, young, new = [policies.get_policy(rule, subject) for subject in (b"acme", b"globex", b"initech")]
    start = cell_number(START, WIDTH) * CELL
    assert ask(old, start + 0.01)
    now = start + 20.0
    assert ask(young, now)
    assert ask(new, now)
    assert old.left(now) == 9
    assert [window.tail(now) for window in (old, young, new)] == [
        b";t=%d\r\n" % window.reset(now) for window in (old, young, new)
    ]
    assert old.reset(now) < young.reset(now) == new.reset(now)


def test_a_late_answer_leaves_no_tail_of_its_requests_time_to_others(worker: Worker) -> None:
    policies, rule = Policies(worker(0)), Rule("basic", 10, 60.0)
    slow, quick, idle = [policies.get_policy(rule, subject) for subject in (b"acme", b"globex", b"initech")]
    start = float(int(cell_number(START, WIDTH) * CELL) + 1)
    assert ask(slow, start)
    assert ask(quick, start)
    now = start + 20.0
    for window in (idle, slow, quick):
        window.left(now)
    idle.tail(now)
    assert slow.tail(start) == quick.tail(now) == b";t=%d\r\n" % quick.reset(now)
