from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.counters.cells import MASK, cell_number, pack, width_us
from edgeproxy.edge.counters.layout import HEADS_APART, LONE_HEAD_WORDS, Layout
from edgeproxy.edge.counters.reclaim import GRACE_SECONDS, IDLE_SECONDS, Reclaim
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.counts import sum_counts
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.rule import Rule
from tests.edge.limits.conftest import Worker
from tests.support.tables import claim, fresh, limits

BOTH_ORDERS = True

START = 51_000_000.0
RULE = Rule("basic", 10, 60.0)
IDLE_FROM = 60 + 3 + IDLE_SECONDS
NEVER = float("inf")


def charge(policy: Policy, now: float, cost: int = 1) -> int:
    """Charge, and return the remainder from before."""
    left = policy.left(now)
    policy.charge(cost)
    return left


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, MASK)), max_size=40), st.integers(0, 1 << 34))
def test_counts_are_summed_exactly_with_and_without_gaps(cells: list[tuple[int, int]], first: int) -> None:
    words = [pack(first + cell, count) for cell, count in dict(cells).items()]
    counts = sum(word & MASK for word in words)
    assert sum_counts(words, one_ring=True) == sum_counts(words, one_ring=False) == counts


@given(st.lists(st.integers(1, MASK), min_size=1, max_size=32), st.integers(0, 1 << 34))
def test_counts_of_cells_without_a_gap_are_summed_exactly(counts: list[int], first: int) -> None:
    words = [pack(first + place, count) for place, count in enumerate(counts)]
    assert sum_counts(words, one_ring=True) == sum(counts)


# ---- rows that are reclaimed


def test_a_decision_makes_a_closing_row_live_again(worker: Worker) -> None:
    policy, other = (Policies(worker(column)).get_policy(RULE, b"acme") for column in range(2))
    assert charge(policy, START) == 10
    later = START + IDLE_FROM
    reclaim = Reclaim(worker(0))
    assert reclaim.slice(later, NEVER)[0] == 1
    assert charge(policy, later) == 10
    assert charge(other, later) == 9
    assert reclaim.slice(later + GRACE_SECONDS, NEVER) == (0, 0, 0)
    assert [one.left(later + GRACE_SECONDS) for one in (policy, other)] == [8, 8]


def test_policy_notices_that_its_row_closed_in_an_old_cell(worker: Worker) -> None:
    rule = Rule("daily", 10, 86400.0)
    policy, twin = (Policies(worker(column)).get_policy(rule, b"acme") for column in range(2))
    # Asked, and never charged: the row is idle although it was looked at in this very cell.
    born = (START // 3086) * 3086 - 86400 - 3086
    policy.left(born)
    later = START + 10 * 86400
    assert policy.left(later) == 10
    reclaim = Reclaim(worker(0))
    assert reclaim.slice(later + 1, NEVER)[0] == 1
    assert reclaim.slice(later + 1 + GRACE_SECONDS, NEVER)[1] == 1
    assert charge(policy, later + 5) == 10
    assert twin.left(later + 6) == 9


def test_a_charge_between_the_decision_and_the_closing_revives_the_row(worker: Worker) -> None:
    policy = Policies(worker(0)).get_policy(RULE, b"acme")
    charge(policy, START)
    later = START + IDLE_FROM
    reclaim = Reclaim(worker(1))
    assert policy.left(later) == 10
    assert reclaim.slice(later, NEVER)[0] == 1
    policy.charge()
    assert reclaim.slice(later + GRACE_SECONDS, NEVER)[2] == 1
    assert policy.left(later + GRACE_SECONDS) == 9


def test_policy_claims_a_new_row_after_its_row_was_freed(worker: Worker) -> None:
    policy = Policies(worker(0)).get_policy(RULE, b"acme")
    charge(policy, START)
    later = START + IDLE_FROM
    reclaim = Reclaim(worker(1))
    reclaim.slice(later, NEVER)
    assert reclaim.slice(later + GRACE_SECONDS, NEVER)[1] == 1
    assert charge(policy, later + GRACE_SECONDS) == 10
    assert Policies(worker(1)).get_policy(RULE, b"acme").left(later + GRACE_SECONDS) == 9


def test_policy_leaves_a_reassigned_row_to_its_new_key(worker: Worker) -> None:
    table = worker(0)
    policy = Policies(table).get_policy(RULE, b"acme")
    charge(policy, START)
    later = START + IDLE_FROM
    reclaim = Reclaim(worker(1))
    reclaim.slice(later, NEVER)
    reclaim.slice(later + GRACE_SECONDS, NEVER)
    heir = Policies(worker(1)).get_policy(RULE, b"globex")
    assert charge(heir, later + GRACE_SECONDS, cost=4) == 10
    assert table.rows_in_use == 1
    assert charge(policy, later + GRACE_SECONDS) == 10
    assert heir.left(later + GRACE_SECONDS) == 6
    assert policy.left(later + GRACE_SECONDS) == 9


def test_reclaimed_row_of_another_cell_width_counts_nothing(worker: Worker) -> None:
    table = worker(0)
    slow, quick = Rule("slow", 10, 60.001), Rule("quick", 10, 60.0)
    charge(Policies(table).get_policy(slow, b"acme"), START, cost=5)
    later = START + IDLE_FROM
    reclaim = Reclaim(worker(1))
    reclaim.slice(later, NEVER)
    reclaim.slice(later + GRACE_SECONDS, NEVER)
    # A moment with equal cell numbers for cells of both widths.
    moment = (cell_number(START, width_us(60.001, 28)) + 0.5) * width_us(60.0, 28) / 1e6
    assert Policies(table).get_policy(quick, b"acme").left(moment) == 10
    assert table.high == 1


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 1), st.integers(0, 2)),
        st.tuples(st.just("look"), st.integers(0, 1), st.integers(0, 2)),
        st.tuples(st.just("wait"), st.sampled_from((0, 1, 2, 30, 64, 125, 130)), st.just(0)),
        st.tuples(st.just("tend"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(events=EVENTS)
def test_each_charge_counts_for_its_window_despite_reclaimed_rows(events: list[tuple[str, int, int]]) -> None:
    with fresh(
        Layout("customers", rows=3, columns=4, ring=32, cells=28, width=LONE_HEAD_WORDS, parts=HEADS_APART)
    ) as path:
        come_and_go(path, events)


def come_and_go(path: Path, events: list[tuple[str, int, int]]) -> None:
    rule = Rule("basic", 1000, 60.0)
    workers = [limits(path, column) for column in range(2)]
    windows = [[Policies(table).get_policy(rule, b"%d" % subject) for subject in range(3)] for table in workers]
    reclaim = Reclaim(limits(path))
    now = START
    log: list[tuple[float, int]] = []
    for what, which, subject in events:
        if what == "ask":
            windows[which][subject].left(now)
            windows[which][subject].charge()
            log.append((now, subject))
        elif what == "look":
            windows[which][subject].left(now)
        elif what == "wait":
            now += which
        else:
            reclaim.slice(now, NEVER)
        for someone in range(3):
            counted_now = [1000 - window[someone].left(now) for window in windows]
            least = sum(1 for moment, of in log if of == someone and moment > now - 60)
            most = sum(1 for moment, of in log if of == someone and moment > now - 60 - 2.2)
            assert counted_now[0] == counted_now[1]
            assert least <= counted_now[0] <= most


# ---- columns


def test_worker_on_a_spare_column_counts_after_others_refresh(worker: Worker) -> None:
    tables = [worker(column) for column in range(2)]
    windows = [Policies(table).get_policy(RULE, b"acme") for table in tables]
    for window in windows:
        charge(window, START)
    late = worker(6)
    assert late.declare_column()
    for table in tables:
        table.refresh_columns()
    newcomer = Policies(late).get_policy(RULE, b"acme")
    for left in range(8, 3, -1):
        assert [window.left(START) for window in (*windows, newcomer)] == [left] * 3
        newcomer.charge()


def test_unused_table_refreshes_its_columns(path: Path) -> None:
    table: LimitTable = limits(path, 0)
    policy = Policies(table).get_policy(RULE, b"acme")
    limits(path, 5).declare_column()
    assert table.refresh_columns()
    assert policy.left(START) == 10
    assert claim(table, RULE.key(b"acme"))
