import gc
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.carry import Carry
from edgeproxy.edge.counters.layout import Layout
from edgeproxy.edge.counters.reclaim import GRACE_SECONDS, IDLE_SECONDS, Reclaim
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.bucket import ROUNDING_TOKENS, Hybrid, TokenBucket, compute_room
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.window import SlidingWindow
from tests.edge.limits.conftest import Worker
from tests.edge.limits.reference import ExactBucket, ExactWindow, ask
from tests.support.tables import claim, fresh, limits, make, number_of

BOTH_ORDERS = True

CUSTOMERS = Layout("customers", 5, 8, ring=32, cells=28, width=at.LONE_HEAD_WORDS, parts=at.HEADS_APART)
ADDRESSES = Layout("addresses", 5, 8, ring=16, cells=13, width=at.LONE_HEAD_WORDS, parts=at.HEADS_APART)
START = 51_000_000.0
SUBJECT = b"acme"
NEVER = float("inf")


def rule(limit: int = 10, window: float = 10.0, depth: int = 5, algorithm: str = "token_bucket") -> Rule:
    return Rule("basic", limit, window, algorithm=algorithm, depth=depth)


RULE = rule()
"""One token a second, a burst of five."""


def policy(worker: Worker, column: int = 0, which: Rule = RULE) -> Policy:
    return Policies(worker(column)).get_policy(which, SUBJECT)


def spend(policy: Policy, now: float) -> int:
    """Make requests until the policy refuses one. Return how many passed."""
    spent = 0
    while ask(policy, now):
        spent += 1
    return spent


# ---- a bucket


def test_a_level_is_exact_in_a_limit_with_wide_cells(worker: Worker) -> None:
    yearly = rule(limit=365, window=86400.0 * 365, depth=2)
    one, other = policy(worker, 0, yearly), policy(worker, 1, yearly)
    assert [ask(one, START), ask(other, START), ask(one, START)] == [True, True, False]
    # A level is exact to a thousandth of a token, here 86 seconds.
    assert not ask(one, START + 86300)
    assert not ask(other, START + 86300)
    assert ask(other, START + 86400)
    assert not ask(one, START + 2 * 86400 - 100)


def test_credits_have_a_row_of_their_own(worker: Worker) -> None:
    policies = Policies(worker(0))
    credits = policies.get_policy(rule(algorithm="burst_credits"), SUBJECT)
    assert spend(policies.get_policy(RULE, SUBJECT), START) == 5
    assert spend(credits, START) == 5


def test_bucket_reports_retry_after_and_reset(worker: Worker) -> None:
    bucket, other = policy(worker, 0), policy(worker, 1)
    assert bucket.retry_after(START) == 0
    assert ask(bucket, START, 5)
    assert [one.retry_after(START) for one in (bucket, other)] == [1, 1]
    assert [one.retry_after(START, 4) for one in (bucket, other)] == [4, 4]
    assert other.retry_after(START + 0.5, 4) == 4
    assert other.retry_after(START + 1, 4) == 3
    assert other.retry_after(START + 3, 9) == 2
    assert other.retry_after(START + 4, 4) == 0
    assert bucket.reset(START + 0.5) == 5
    assert bucket.reset(START + 4.5) == 1
    assert bucket.reset(START + 60) == 1
    assert bucket.tail(START + 70) == b";t=1\r\n"


def test_the_tail_of_a_bucket_follows_each_charge(worker: Worker) -> None:
    bucket = policy(worker, 0)
    tails = []
    for _ in range(5):
        assert ask(bucket, START)
        tails.append(bucket.tail(START))
    assert tails == [b";t=%d\r\n" % seconds for seconds in range(1, 6)]
    assert bucket.tail(START) is bucket.tail(START)


# ---- against the reference

STEPS = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0, 0.1), st.floats(0, 1.5)),
        st.sampled_from((1, 1, 1, 2, 3, 10)),
        st.integers(0, 3),
        st.sampled_from(("", "", "", "", "", "anew", "remade", "look", "fail")),
    ),
    min_size=1,
    max_size=100,
)
"""Steps: time since the last one as a fraction of a full bucket's drain time or a window, cost, worker, event."""
LIMITS = st.one_of(st.integers(1, 40), st.sampled_from((1000, 1_000_000)))
WINDOWS = st.sampled_from((0.5, 1.0, 10.0, 60.0, 3600.0, 86400.0 * 31))
DEPTHS = st.one_of(st.integers(1, 40), st.sampled_from((500, 100_000)))
STARTS = st.floats(0, 6e8)


class Workers:
    """Four workers on one table, and their successors."""

    def __init__(self, path: Path, which: Rule) -> None:
        self.path = path
        self.rule = which
        self.tables = [limits(path, column) for column in range(4)]
        self.policies = [Policies(table).get_policy(which, SUBJECT) for table in self.tables]

    def happen(self, what: str, column: int, now: float) -> None:
        """Let an event happen that must not change any decision."""
        if what == "anew":
            # The worker's process was killed, and its successor has taken the column.
            self.tables[column] = limits(self.path, column)
        if what in ("anew", "remade"):
            self.policies[column] = Policies(self.tables[column]).get_policy(self.rule, SUBJECT)
        if what == "look":
            self.policies[(column + 1) % 4].left(now)


@given(steps=STEPS, limit=LIMITS, window=WINDOWS, depth=DEPTHS, start=STARTS, small=st.booleans())
def test_bucket_decides_as_the_exact_reference(
    steps: list[tuple[float, int, int, str]], limit: int, window: float, depth: int, start: float, small: bool
) -> None:
    with fresh(ADDRESSES if small else CUSTOMERS) as path:
        hold_to_the_bucket(Workers(path, rule(limit, window, depth)), steps, start)


def hold_to_the_bucket(workers: Workers, steps: list[tuple[float, int, int, str]], start: float) -> None:
    which = workers.rule
    exact = ExactBucket(which.limit, which.window, which.depth)
    now = start
    for place, (part, cost, column, what) in enumerate(steps):
        now += part * drains_in(which)
        workers.happen(what, column, now)
        if ask(workers.policies[column], now, cost):
            assert exact.has_room(now, cost, -tolerance(which))
            exact.add(now, cost)
        else:
            # A level is rounded up each time that another worker takes it over.
            assert not exact.has_room(now, cost, place * which.depth / (1 << 23))


def drains_in(which: Rule) -> float:
    """Return the seconds until a full bucket is empty, at most a month, so that times stay within a table's range."""
    return min(which.depth * which.window / which.limit, 30 * 86400.0)


def tolerance(which: Rule) -> float:
    """Return the allowed error of a decision in tokens: the bucket's allowance for rounding, and float precision."""
    return compute_room(which.depth) - which.depth + 1e-6


@given(steps=STEPS, limit=LIMITS, window=WINDOWS, depth=DEPTHS, start=STARTS)
def test_retry_after_is_at_most_a_second_too_long_and_never_too_short(
    steps: list[tuple[float, int, int, str]], limit: int, window: float, depth: int, start: float
) -> None:
    with fresh(CUSTOMERS) as path:
        retry(Workers(path, rule(limit, window, depth)), steps, start)


def retry(workers: Workers, steps: list[tuple[float, int, int, str]], start: float) -> None:
    which = workers.rule
    exact = ExactBucket(which.limit, which.window, which.depth)
    now = start
    for place, (part, cost, column, what) in enumerate(steps):
        now += part * drains_in(which)
        workers.happen(what, column, now)
        one = workers.policies[column]
        if ask(one, now, cost):
            exact.add(now, cost)
            continue
        wait = one.retry_after(now, cost)
        assert wait >= 1
        if cost <= which.depth:
            # If nothing else is charged, another worker sees room at that moment.
            assert Policies(limits(workers.path, 5)).get_policy(which, SUBJECT).left(now + wait) >= cost
            rounding = place * which.depth / (1 << 23) / float(exact.rate)
            assert wait <= float(exact.passes_at(now, cost) - Fraction(now)) + 1 + rounding + 1e-3


@given(steps=STEPS, limit=st.integers(1, 40), window=WINDOWS, depth=st.integers(1, 20), start=STARTS)
def test_hybrid_decides_as_a_window_and_a_bucket_together(
    steps: list[tuple[float, int, int, str]], limit: int, window: float, depth: int, start: float
) -> None:
    with fresh(CUSTOMERS) as path:
        which = rule(limit, window, depth, "hybrid")
        workers = Workers(path, which)
        hold_to_both(workers, steps, start)


def hold_to_both(workers: Workers, steps: list[tuple[float, int, int, str]], start: float) -> None:
    which = workers.rule
    bucket, whole = ExactBucket(which.limit, which.window, which.depth), ExactWindow(which.limit, which.window)
    now = start
    # Times are floats, so times that differ by less than their precision count as equal.
    grain = 1e-6 + start * 2**-50
    for place, (part, cost, column, what) in enumerate(steps):
        now += part * which.window / 4
        workers.happen(what, column, now)
        one = workers.policies[column]
        assert isinstance(one, Hybrid)
        cell = one.counts.window.width / 1e6
        wide = one.counts.window.cells * cell - which.window + cell + grain
        if ask(one, now, cost):
            assert whole.has_room(now, cost, -grain)
            assert bucket.has_room(now, cost, -tolerance(which))
            whole.add(now, cost)
            bucket.add(now, cost)
            continue
        assert not (whole.has_room(now, cost, wide) and bucket.has_room(now, cost, place * which.depth / (1 << 23)))
        wait = one.retry_after(now, cost)
        assert wait >= 1
        if cost <= one.most:
            assert Policies(limits(workers.path, 5)).get_policy(which, SUBJECT).left(now + wait) >= cost
            rounding = place * which.depth / (1 << 23) / float(bucket.rate)
            late = max(float(whole.passes_at(now, cost)) + cell, float(bucket.passes_at(now, cost)) + rounding)
            assert now + wait <= late + wide - cell + 1 + 1e-3


def test_a_large_level_survives_many_changes_of_the_charging_worker(worker: Worker) -> None:
    which = rule(limit=100_000, window=86400.0, depth=100_000)
    buckets = [policy(worker, column, which) for column in range(4)]
    exact = ExactBucket(which.limit, which.window, which.depth)
    assert ask(buckets[0], START, 99_990)
    exact.add(START, 99_990)
    now = START
    for step in range(2000):
        now += 0.731
        if ask(buckets[step % 4], now):
            assert exact.has_room(now, 1, -tolerance(which))
            exact.add(now, 1)
            exact.gather(now)
    assert exact.level(now) > 99_990


def test_rereading_a_row_does_not_raise_its_level(worker: Worker) -> None:
    bucket, supervisor = policy(worker, 0, rule(limit=100_000, window=86400.0, depth=100_000)), worker(7)
    assert bucket.left(START) == 100_000
    assert ask(bucket, START + 0.1, 50_000)
    assert ask(bucket, START + 0.2, 50_000)
    row = supervisor.peek(supervisor.make_key(RULE.stem[:3] + b"86400000000:" + SUBJECT))
    assert row is not None
    for step in range(1000):
        supervisor.write_foreign(row, {})
        bucket.left(START + 0.2 + step / 1000)
    assert bucket.left(START + 0.2 + 86.4) == 100


def test_hybrid_reports_the_stricter_of_its_window_and_bucket(worker: Worker) -> None:
    hybrid = policy(worker, 0, rule(limit=10, window=60.0, depth=3, algorithm="hybrid"))
    assert hybrid.most == 3
    assert spend(hybrid, START) == 3
    assert hybrid.retry_after(START) == 6
    assert spend(hybrid, START + 18) == 3
    assert spend(hybrid, START + 36) == 3
    assert spend(hybrid, START + 54) == 1
    assert hybrid.left(START + 55) == 0
    assert 6 <= hybrid.retry_after(START + 55) <= 9
    assert hybrid.reset(START + 55) in range(6, 9)
    fresh = policy(worker, 0, rule(limit=10, window=50.0, depth=3, algorithm="hybrid"))
    assert spend(fresh, START) == 3
    assert fresh.reset(START) == 15
    assert fresh.tail(START) == b";t=15\r\n"
    assert policy(worker, 1, rule(limit=2, window=60.0, depth=3, algorithm="hybrid")).most == 2


# ---- workers that are stopped between two stores


class Held:
    """Words whose stores wait for `store`, as if the process were stopped between two stores."""

    def __init__(self, words: memoryview) -> None:
        self.words = words
        self.waiting: list[tuple[int, int]] = []

    def __getitem__(self, place: int) -> int:
        return self.words[place]

    def __setitem__(self, place: int, word: int) -> None:
        self.waiting.append((place, word))

    def store(self) -> bool:
        """Store one waiting word. Return whether others are waiting."""
        if self.waiting:
            place, word = self.waiting.pop(0)
            self.words[place] = word
        return bool(self.waiting)


class Stoppable:
    """A worker on a column that charges one word at a time."""

    def __init__(self, path: Path, column: int, which: Rule) -> None:
        self.path, self.column, self.rule = path, column, which
        self.decided = (Fraction(0), 0)
        self.begin()

    def begin(self) -> None:
        """Start a process on the column. It may succeed one that was killed."""
        self.policy = Policies(limits(self.path, self.column)).get_policy(self.rule, SUBJECT)
        self.held: Held | None = None

    def decide(self, now: float) -> bool:
        """Decide on one request. If it passes, all stores of its charge are still waiting."""
        if self.policy.left(now) < 1:
            return False
        assert isinstance(self.policy, TokenBucket)
        counts = self.policy.counts
        self.held = Held(counts.window.words)
        counts.window.words = self.held  # type: ignore[assignment]
        self.policy.charge()
        counts.window.words = self.held.words
        return True

    @property
    def is_unseen(self) -> bool:
        """Return True if a charge has begun and other workers cannot see it.

        Neither its cell nor its count is stored.
        """
        return self.held is not None and len(self.held.waiting) > 2

    def go_on(self) -> None:
        """Store the next word of the charge."""
        if self.held is not None and not self.held.store():
            self.held = None


ACTS = st.lists(
    st.tuples(
        st.sampled_from(("ask", "ask", "ask", "store", "store", "store", "store", "kill", "wait")),
        st.integers(0, 3),
        st.floats(0, 2),
    ),
    max_size=120,
)


@given(acts=ACTS, depth=st.integers(1, 6), start=STARTS, algorithm=st.sampled_from(("token_bucket", "hybrid")))
def test_workers_killed_at_any_store_pass_at_most_one_extra_request_each(
    acts: list[tuple[str, int, float]], depth: int, start: float, algorithm: str
) -> None:
    with fresh(CUSTOMERS) as path:
        stop_and_kill(path, acts, rule(limit=600, window=600.0, depth=depth, algorithm=algorithm), start)


def stop_and_kill(path: Path, acts: list[tuple[str, int, float]], which: Rule, start: float) -> None:
    exact = ExactBucket(which.limit, which.window, which.depth)
    workers = [Stoppable(path, column, which) for column in range(4)]
    now = start
    for what, who, seconds in acts:
        worker = workers[who]
        if what == "wait":
            now += seconds
        elif what == "kill":
            if worker.is_unseen:
                # The killed worker's last request was never served. A part of its charge may still be counted.
                exact.entries.remove(worker.decided)
            worker.begin()
        elif worker.held is not None:
            worker.go_on()
        elif what == "ask" and worker.decide(now):
            # The excess is at most one request for each other worker whose charge is not visible yet.
            unseen = sum(each.is_unseen for each in workers if each is not worker)
            assert exact.has_room(now, 1, -unseen - tolerance(which))
            exact.add(now, 1)
            worker.decided = exact.entries[-1]
    for worker in workers:
        while worker.held is not None:
            worker.go_on()
        worker.policy.left(now)
    # A killed worker may have counted a request that was not served, and a worker that saw half a charge may count
    # it twice. The bucket still drains at one token a second, even though all workers keep reading it.
    seen = [0]
    for _ in range(2 * len(acts) + which.depth):
        now += 1
        seen = [worker.policy.left(now) for worker in workers]
    assert seen == [which.depth] * 4


@pytest.mark.parametrize("stores", range(5))
def test_a_killed_workers_partial_charge_drains(worker: Worker, path: Path, stores: int) -> None:
    which = rule(limit=6, window=60.0, depth=1)
    victim = Stoppable(path, 1, which)
    witness = policy(worker, 0, which)
    assert victim.decide(START)
    for _ in range(stores):
        victim.go_on()
    seen = [witness.left(START + second) for second in range(31)]
    assert seen[30] == 1
    # The charge counts once at most, from the time when the witness first saw it.
    assert seen == sorted(seen)
    assert sum(seen) >= 20
    victim.begin()
    assert victim.policy.left(START + 31) == 1


def test_counts_without_a_stored_level_are_in_the_bucket(worker: Worker, path: Path) -> None:
    victim, witness = Stoppable(path, 1, RULE), policy(worker, 0)
    assert witness.left(START) == 5
    for left in (4, 3):
        assert victim.decide(START)
        victim.go_on()
        victim.go_on()
        assert witness.left(START) == left
        assert witness.left(START + 0.5) == left
        # The victim stops here, and a successor starts on its column.
        victim.begin()
    # The witness knows when these charges came. They have drained since, even though it has to reread the row.
    supervisor = worker(7)
    row = supervisor.peek(supervisor.make_key(RULE.key(SUBJECT)))
    assert row is not None
    supervisor.write_foreign(row, {})
    assert witness.left(START + 2.5) == 5
    assert policy(worker, 2).left(START + 2.5) == 5


def test_a_level_that_changes_during_a_read_is_read_again(worker: Worker, path: Path) -> None:
    one, other = policy(worker, 0), policy(worker, 1)
    assert ask(one, START)
    assert other.left(START) == 4
    assert isinstance(other, TokenBucket)
    counts = other.counts
    level_at = counts._sibling_cums[0] + at.LEVEL

    class Busy(Held):
        """Let the sibling charge as soon as its level has been read."""

        def __getitem__(self, place: int) -> int:
            word = super().__getitem__(place)
            if place == level_at and self.busy:
                self.busy = False
                assert ask(one, START)
            return word

        busy = True

    assert ask(one, START)
    counts.window.words = Busy(counts.window.words)  # type: ignore[assignment]
    # The reader may miss a charge made after it read the counts, but it must not use an old level as a new one.
    assert other.left(START) in (2, 3)
    counts.window.words = counts.window.words.words  # type: ignore[attr-defined]
    assert other.left(START) == 2


# ---- the clock


@given(
    steps=STEPS,
    depth=st.integers(1, 20),
    window=st.sampled_from((1.0, 60.0, 3600.0, 86400.0)),
    turn=st.integers(0, 60),
    hours=st.sampled_from((-1, 1)),
    start=st.floats(3600, 6e8),
)
def test_a_clock_step_distorts_a_bucket_for_one_drain_time_at_most(
    steps: list[tuple[float, int, int, str]], depth: int, window: float, turn: int, hours: int, start: float
) -> None:
    with fresh(CUSTOMERS) as path:
        set_the_clock(Workers(path, rule(10, window, depth)), steps, turn, hours * 3600.0, start)


def test_a_bucket_left_idle_after_a_clock_step_drains_completely() -> None:
    # The property test above found this case, with one in some dozens of random seeds.
    with fresh(CUSTOMERS) as path:
        spent_then_stepped: list[tuple[float, int, int, str]] = [(0.0, 1, 0, "")] * 16 + [(0.0, 1, 1, "")]
        set_the_clock(Workers(path, rule(10, 3600.0, 5)), spent_then_stepped, 16, -3600.0, 1e6)


def set_the_clock(
    workers: Workers, steps: list[tuple[float, int, int, str]], turn: int, step: float, start: float
) -> None:
    which = workers.rule
    # A level up to a second ahead of the clock is not reset, and the time of a level is rounded to a tick.
    drains = drains_in(which) + 1.01 + which.window / 28 / 32
    # A second full bucket may pass, because the step may erase the usage before it.
    exact = ExactBucket(which.limit, which.window, 2 * which.depth)
    now, offset, last = start, 0.0, -drains
    for place, (part, cost, column, what) in enumerate(steps):
        now += part * drains
        if place == turn:
            offset = step
            # Each worker does this at its next sweep.
            for table in workers.tables:
                table.recover_clock(now + offset)
        workers.happen(what, column, now + offset)
        if ask(workers.policies[column], now + offset, cost):
            assert exact.has_room(now, cost, -2 * tolerance(which))
            exact.add(now, cost)
            last = now
        else:
            # Usage that drained before the step may have to drain once more after it.
            assert cost > which.depth or now - last < drains * (1 if place < turn else 2)
    assert [policy.left(now + offset + 2 * drains) for policy in workers.policies] == [which.depth] * 4


def test_a_bucket_drains_for_workers_started_after_the_clock_was_set_back(worker: Worker) -> None:
    assert spend(policy(worker, 0), START) == 5
    for second in range(5):
        # A new worker each time: it has not seen the bucket drain.
        assert policy(worker, 1 + second % 3).left(START - 3600 + second) == second


def test_a_bucket_drains_by_the_new_clock_from_the_first_read_on(worker: Worker) -> None:
    one, other = policy(worker, 0), policy(worker, 1)
    assert ask(one, START, 4)
    assert [each.left(START) for each in (one, other)] == [1, 1]
    back = START - 3600
    assert one.left(back) == 1
    assert one.left(back + 1) == 2
    # The other worker reads the level that the first one has stored since.
    assert other.left(back + 2) == 3
    assert [each.left(back + 4) for each in (one, other)] == [5, 5]


def test_workers_that_see_a_clock_step_at_different_times_share_one_bucket(worker: Worker) -> None:
    one, other = policy(worker, 0), policy(worker, 1)
    assert one.left(START) == other.left(START) == 5
    assert ask(one, START + 3600, 4)
    assert other.left(START + 0.5) == 1
    assert ask(other, START + 1.5)
    assert one.left(START + 2) == other.left(START + 2) == 1
    assert one.left(START + 2.5) == other.left(START + 2.5) == 2


# ---- limits that are changed


@given(
    changes=st.lists(
        st.tuples(st.integers(1, 60), st.integers(1, 30), st.integers(0, 20), st.floats(0, 5), st.integers(0, 3)),
        min_size=1,
        max_size=20,
    )
)
def test_usage_survives_changes_of_limit_and_depth(
    changes: list[tuple[int, int, int, float, int]],
) -> None:
    with fresh(CUSTOMERS) as path:
        change(path, changes)


def change(path: Path, changes: list[tuple[int, int, int, float, int]]) -> None:
    tables = [limits(path, column) for column in range(4)]
    now, level = START, 0.0
    for limit, depth, asked, seconds, column in changes:
        which = rule(limit, 60.0, depth)
        # All workers see the new limit before the next request.
        policies = [Policies(table).get_policy(which, SUBJECT) for table in tables]
        assert {policy.left(now) for policy in policies} <= {
            int((depth - level + slack) // 1) for slack in (-0.01, ROUNDING_TOKENS, 0.01)
        }
        for _ in range(asked):
            level += ask(policies[column], now)
        now += seconds
        # Until now, the bucket drained at this rate.
        level = max(0.0, level - seconds * limit / 60)
        for policy in policies:
            policy.left(now)


def test_a_bucket_reads_the_column_of_a_worker_that_joins(path: Path) -> None:
    one, late = limits(path, 0), limits(path, 6)
    used, unused = (Policies(one).get_policy(RULE, subject) for subject in (SUBJECT, b"globex"))
    assert ask(used, START)
    assert late.declare_column()
    assert one.refresh_columns()
    for subject in (SUBJECT, b"globex"):
        assert ask(Policies(late).get_policy(RULE, subject), START, 2)
    assert [used.left(START), unused.left(START)] == [2, 3]


def test_bucket_row_is_reclaimed_after_it_drained_at_its_current_rate(worker: Worker) -> None:
    deep, slow = rule(limit=60, window=60.0, depth=600), rule(limit=1, window=60.0, depth=600)
    table = worker(0)
    first = Policies(table).get_policy(deep, SUBJECT)
    assert spend(first, START) == 600
    reclaim = Reclaim(worker(1))
    assert reclaim.slice(START + 599, NEVER)[0] == 0
    assert Policies(table).get_policy(slow, SUBJECT).left(START + 300) == 300
    del first
    gc.collect()
    assert reclaim.slice(START + 300 + 299 * 60, NEVER)[0] == 0
    assert reclaim.slice(START + 301 + 300 * 60, NEVER)[0] == 1
    assert reclaim.slice(START + 301 + 300 * 60 + GRACE_SECONDS, NEVER)[1] == 1


def test_a_reclaimed_row_leaves_no_cached_counts(worker: Worker, path: Path) -> None:
    bucket, table = policy(worker), limits(path)
    assert ask(bucket, START, 5)
    later = START + 100 + IDLE_SECONDS
    reclaim = Reclaim(table)
    assert reclaim.slice(later, NEVER)[0] == 1
    assert reclaim.slice(later + GRACE_SECONDS, NEVER)[1] == 1
    victim = Stoppable(path, 1, RULE)
    for _ in range(3):
        assert victim.decide(later + GRACE_SECONDS)
        victim.go_on()
        victim.go_on()
        victim.begin()
    # The victim's counts are seen although no level was stored, and although the row's former counts were higher.
    assert bucket.left(later + GRACE_SECONDS) == 2


# ---- tables that are full, columns, tables of another layout


@pytest.fixture
def full(tmp_path: Path) -> LimitTable:
    """The table of one of two workers. It has no free row."""
    table = limits(make(tmp_path, CUSTOMERS._replace(rows=1, columns=4)), 0)
    claim(table, b"other")
    return table


def let_go(table: LimitTable) -> None:
    """Free a row of the table."""
    table.free(number_of(table, claim(table, b"other")))


def test_a_bucket_without_a_row_allows_its_share(full: LimitTable) -> None:
    bucket = Policies(full).get_policy(rule(limit=20, window=10.0, depth=7), SUBJECT)
    assert spend(bucket, START) == 3
    assert bucket.retry_after(START) == 1
    assert bucket.retry_after(START, 3) == 3
    assert spend(bucket, START + 2.5) == 2
    assert bucket.reset(START + 2.5) == 3
    assert spend(bucket, START + 5.5) == 3


@pytest.mark.parametrize("algorithm", ["token_bucket", "hybrid"])
def test_usage_without_a_row_enters_the_bucket_when_it_gets_a_row(full: LimitTable, algorithm: str) -> None:
    which = rule(limit=120, window=60.0, depth=6, algorithm=algorithm)
    bucket = Policies(full).get_policy(which, SUBJECT)
    other = Policies(limits(full.file.path, 1)).get_policy(which, SUBJECT)
    assert spend(bucket, START) == 3
    let_go(full)
    # One token has drained: half the rate is one a second.
    assert bucket.left(START + 1) == 4
    assert other.left(START + 1) == 4
    assert [one.left(START + 1.5) for one in (bucket, other)] == [5, 5]
    assert spend(other, START + 1.5) == 5


def test_bucket_exhausted_without_a_row_drains_after_it_gets_one(full: LimitTable) -> None:
    which = rule(limit=10, window=10.0, depth=1)
    bucket = Policies(full).get_policy(which, SUBJECT)
    assert ask(bucket, START)
    let_go(full)
    seen = [bucket.left(START + 1 + step / 10) for step in range(20)]
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_usage_that_drained_without_a_row_does_not_enter_it(full: LimitTable) -> None:
    bucket = Policies(full).get_policy(rule(limit=10, window=10.0, depth=10), SUBJECT)
    assert spend(bucket, START) == 5
    let_go(full)
    assert bucket.left(START + 3600) == 10


def test_counts_of_a_row_without_a_level_drain_from_the_first_read_on(worker: Worker) -> None:
    table = worker(0)
    row, _, _ = table.find(table.make_key(RULE.key(SUBJECT)), 357143, START)
    table.words[row + table.layout.head(2) + at.CUM] = 4
    bucket, other = policy(worker, 1), policy(worker, 3)
    assert bucket.left(START) == 1
    # The first reader stored the level, so the second one continues from it.
    assert other.left(START + 2) == 3


def test_counts_carried_from_an_old_table_enter_the_bucket_and_drain(tmp_path: Path) -> None:
    old = limits(make(tmp_path, CUSTOMERS), 0)
    bucket = Policies(old).get_policy(RULE, SUBJECT)
    assert spend(bucket, START) == 5
    new = limits(make(tmp_path, CUSTOMERS._replace(rows=9, columns=4), generation=2), 1)
    carry = Carry(old, new)
    carry.slice(START, NEVER)
    successor = Policies(new).get_policy(RULE, SUBJECT)
    assert successor.left(START) == 0
    assert ask(bucket, START + 1)
    assert successor.left(START + 1) == 1
    carry.slice(START + 1, NEVER)
    assert successor.left(START + 1) == 0
    for second in range(5):
        carry.slice(START + 1 + second, NEVER)
        assert successor.left(START + 1 + second) == second
    assert spend(successor, START + 5) == 4
    assert bucket.left(START + 5) == 4


def test_foreign_counts_change_the_level_only_by_themselves(worker: Worker) -> None:
    bucket, supervisor = policy(worker), worker(7)
    assert ask(bucket, START, 3)
    row = supervisor.peek(supervisor.make_key(RULE.key(SUBJECT)))
    assert row is not None
    supervisor.write_foreign(row, {}, (0,))
    assert bucket.left(START + 0.9) == 2
    assert bucket.left(START + 1) == 3
    supervisor.write_foreign(row, {}, (2,))
    assert bucket.left(START + 1) == 1
    assert policy(worker, 1).left(START + 2) == 2


# ---- debts


@given(debt=st.integers(1, 999_999_999), depth=st.integers(1, 1000), limit=st.integers(1, 100_000))
def test_a_debt_lasts_until_it_has_drained(debt: int, depth: int, limit: int) -> None:
    with fresh(CUSTOMERS) as path:
        which = rule(limit, 60.0, depth)
        bucket, other = (Policies(limits(path, column)).get_policy(which, SUBJECT) for column in range(2))
        assert bucket.left(START) == depth
        bucket.charge(debt)
        wait = bucket.retry_after(START)
        if debt < depth:
            assert wait == 0
            return
        assert bucket.left(START) == depth - debt
        assert abs(other.left(START) - (depth - debt)) <= debt / (1 << 22) + 1
        exact = ExactBucket(limit, 60.0, depth)
        exact.add(START, debt)
        passes = exact.passes_at(START, 1)
        assert passes - tolerance(which) * 60 / limit <= START + wait <= passes + 2 + debt / (1 << 21) * 60 / limit
        assert other.left(START + wait) >= 1


def test_retry_after_a_large_debt_covers_the_rounded_debt(worker: Worker) -> None:
    which = rule(limit=1, window=1.0, depth=1)
    bucket, other = policy(worker, 0, which), policy(worker, 1, which)
    assert bucket.left(START) == 1
    bucket.charge(300_000_001)
    # In a shared word, a level of this size is rounded up to a multiple of 16.
    assert other.left(START) == 1 - 300_000_016
    wait = bucket.retry_after(START)
    assert other.left(START + wait) == 1
    assert wait <= 300_000_001 + 100


def test_retry_after_a_debt_of_a_hybrid_covers_window_and_bucket(worker: Worker) -> None:
    hybrid = policy(worker, 0, rule(limit=10, window=60.0, depth=2, algorithm="hybrid"))
    assert hybrid.left(START) == 2
    hybrid.charge(40)
    # The debt leaves the window after a minute. It drains from the bucket slowly.
    assert SlidingWindow.left(hybrid, START + 70) == 10  # type: ignore[arg-type]
    assert hybrid.retry_after(START + 70) == 164
    assert hybrid.left(START + 70 + 164) == 1
