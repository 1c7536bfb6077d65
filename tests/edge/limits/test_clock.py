"""Windows after a clock step of an hour. test_bucket.py and test_quota.py test buckets and quotas."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import width_us
from edgeproxy.edge.counters.layout import Layout
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.rule import Rule
from tests.edge.limits.reference import ExactWindow, ask
from tests.support.tables import claim, fresh, limits, make, number_of

BOTH_ORDERS = True

CUSTOMERS = Layout("customers", 5, 8, ring=32, cells=28, width=at.LONE_HEAD_WORDS, parts=at.HEADS_APART)
START = 51_000_000.0
SUBJECT = b"acme"
HOUR = 3600.0


@given(
    steps=st.lists(st.tuples(st.one_of(st.just(0.0), st.floats(0, 1.5)), st.integers(0, 3)), min_size=1, max_size=150),
    limit=st.integers(1, 8),
    window=st.sampled_from((1.0, 60.0, HOUR, 86400.0)),
    turn=st.integers(0, 80),
    hours=st.sampled_from((-1, 1)),
    start=st.floats(HOUR, 6e8),
)
def test_a_clock_step_distorts_a_limit_for_one_window_at_most(
    steps: list[tuple[float, int]], limit: int, window: float, turn: int, hours: int, start: float
) -> None:
    with fresh(CUSTOMERS) as path:
        set_the_clock(path, steps, Rule("basic", limit, window), turn, hours * HOUR, start)


def set_the_clock(path: Path, steps: list[tuple[float, int]], rule: Rule, turn: int, step: float, start: float) -> None:
    windows = [Policies(limits(path, column)).get_policy(rule, SUBJECT) for column in range(4)]
    cell = width_us(rule.window, 28) / 1e6
    exact = ExactWindow(rule.limit, rule.window)
    # A step may erase the usage before it, so the limit may pass a second time.
    freed = ExactWindow(2 * rule.limit, rule.window)
    now, offset = start, 0.0
    frozen = None
    for place, (part, who) in enumerate(steps):
        now += part * rule.window
        if place == turn:
            offset = step
            # In half of the cases, an hour without requests lies between.
            now += HOUR * (turn % 2)
        if ask(windows[who], now + offset):
            assert freed.has_room(now, 1, -1e-3)
            freed.add(now, 1)
            exact.add(now, 1)
            frozen = None
        elif exact.has_room(now, 1, 2 * cell):
            # Usage before a step back may count again when the clock reaches its old time.
            frozen = now if frozen is None else frozen
            assert place >= turn
            assert now - frozen <= rule.window + 2 * cell
        else:
            frozen = None


def test_a_step_back_of_the_clock_erases_usage_at_once(tmp_path: Path) -> None:
    table = limits(make(tmp_path, CUSTOMERS), 0)
    window = Policies(table).get_policy(Rule("basic", 2, 60.0), SUBJECT)
    assert [ask(window, START) for _ in range(3)] == [True, True, False]
    assert [ask(window, START - HOUR) for _ in range(3)] == [True, True, False]
    assert window.retry_after(START - HOUR) <= 63


@pytest.mark.parametrize("algorithm", ["sliding_window", "token_bucket", "hybrid"])
def test_a_full_table_is_tried_again_after_the_clock_was_set_back(tmp_path: Path, algorithm: str) -> None:
    table = limits(make(tmp_path, CUSTOMERS._replace(rows=1, columns=4)), 0)
    claim(table, b"other")
    policy = Policies(table).get_policy(Rule("basic", 60, 60.0, algorithm=algorithm, depth=8), SUBJECT)
    share = policy.left(START)
    table.free(number_of(table, claim(table, b"other")))
    assert policy.left(START - HOUR) == 2 * share
