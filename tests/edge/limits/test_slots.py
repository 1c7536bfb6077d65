"""Concurrency limits: workers hold slots of a limit in a shared table, and a dead worker's slots are free."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.counters import columns
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.carry import Carry
from edgeproxy.edge.counters.layout import Layout
from edgeproxy.edge.counters.reclaim import GRACE_SECONDS, IDLE_SECONDS, Reclaim
from edgeproxy.edge.counters.row_key import HAS_GAUGES
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.concurrency import ConcurrencyLimit
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.slots import ROW_RETENTION_SECONDS
from tests.support.program import Program
from tests.support.tables import claim, fresh, limits, make, number_of, opened

BOTH_ORDERS = True

CUSTOMERS = Layout("customers", 5, 8, ring=32, cells=28, width=at.LONE_HEAD_WORDS, parts=at.HEADS_APART)
START = 51_000_000.0
SUBJECT = b"acme"
NEVER = float("inf")


def rule(limit: int) -> Rule:
    return Rule("concurrency", limit, 0.0, algorithm="concurrency")


class Process:
    """A process on a column that it has locked."""

    def __init__(self, path: Path, limit: int = 2, hosts: int = 1) -> None:
        self.file = opened(path)
        self.table = LimitTable(self.file, columns.acquire_column([self.file]))
        self.full: list[str] = []
        policies = Policies(self.table, hosts=hosts, full=lambda: self.full.append("full"))
        self.slots = policies.get_concurrency(rule(limit), SUBJECT)

    @property
    def used(self) -> int:
        """The number of slots that this process holds."""
        return self.slots.counts.used

    def kill(self) -> None:
        """End the process as `kill -9` does: only its words in the table remain."""
        self.file.close()


def in_use(path: Path) -> int:
    """Return the slots in use, as the supervisor counts them."""
    table = limits(path)
    row = table.peek(table.make_key(rule(1).key(SUBJECT)))
    return 0 if row is None else table.in_use(row)


Start = Callable[..., Process]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path, CUSTOMERS)


@pytest.fixture
def start(path: Path) -> Start:
    """Start a process on the lowest free column."""
    return lambda limit=2, hosts=1: Process(path, limit, hosts)


def test_changed_concurrency_limit_keeps_its_slots_in_use(start: Start) -> None:
    worker = start(3)
    assert [worker.slots.acquire(START) for _ in range(3)] == [True] * 3
    fewer, more = (Policies(worker.table).get_concurrency(rule(limit), SUBJECT) for limit in (2, 4))
    assert not fewer.acquire(START)
    assert more.acquire(START)
    for _ in range(2):
        worker.slots.release()
        assert not fewer.acquire(START)
    more.release()
    assert fewer.acquire(START)
    assert worker.used == 2


def test_slots_of_a_dead_worker_are_free_and_not_inherited(start: Start, path: Path) -> None:
    one, killed = start(), start()
    assert one.slots.acquire(START)
    assert killed.slots.acquire(START)
    assert one.slots.retry_after(START) == 1
    killed.kill()
    successor, column = opened(path), 1
    for step in ("free", "reserved", "counting"):
        if step == "reserved":
            assert columns.reserve_column([successor]) == column
        elif step == "counting":
            LimitTable(successor, column)
            columns.begin_counting([successor], column)
        assert in_use(path) == 1
        assert one.slots.retry_after(START) == 0
        assert one.slots.acquire(START)
        one.slots.release()


# ---- random schedules, compared with an exact count


class Numbers:
    """Four processes, each on a column of its own, with an exact count of their slots."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit
        self.processes = [Process(path, limit) for _ in range(4)]
        self.held = [0] * 4
        """The number of slots that each process holds."""

    def replace(self, who: int) -> None:
        """Kill a process and start its successor on that column."""
        self.processes[who].kill()
        self.held[who] = 0
        self.processes[who] = Process(self.path, self.limit)
        assert self.processes[who].table.column == who


HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(("take", "take", "take", "give", "give", "kill", "wait", "tend", "remade")),
        st.integers(0, 3),
        st.sampled_from((0.1, 1.0, 31.0, 70.0, 3600.0)),
    ),
    max_size=120,
)


@given(happenings=HAPPENINGS, limit=st.integers(1, 6))
def test_acquire_succeeds_exactly_when_a_slot_is_free(happenings: list[tuple[str, int, float]], limit: int) -> None:
    with fresh(CUSTOMERS) as path:
        take_and_give_back(Numbers(path, limit), happenings)


def take_and_give_back(numbers: Numbers, happenings: list[tuple[str, int, float]]) -> None:
    held = numbers.held
    reclaim = Reclaim(limits(numbers.path))
    now = START
    for what, who, seconds in happenings:
        process = numbers.processes[who]
        if what == "take":
            free = sum(held) < numbers.limit
            assert process.slots.retry_after(now) == (0 if free else 1)
            assert process.slots.acquire(now) == free
            held[who] += free
        elif what == "give" and held[who]:
            process.slots.release()
            held[who] -= 1
        elif what == "kill":
            numbers.replace(who)
        elif what == "wait":
            now += seconds
        elif what == "tend":
            # This may reclaim the row if no slot is in use. The next request creates it again.
            reclaim.slice(now, NEVER)
        elif what == "remade" and not held[who]:
            # No slot was in use, so the new object has to rely on the row alone.
            process.slots = Policies(process.table).get_concurrency(rule(numbers.limit), SUBJECT)
        assert in_use(numbers.path) == sum(held)
    for who, process in enumerate(numbers.processes):
        for _ in range(held[who]):
            process.slots.release()
    assert in_use(numbers.path) == 0


class Interrupted:
    """Words that call `others` before each read and each store, as if other processes ran at that moment."""

    def __init__(self, words: memoryview, others: Callable[[], None]) -> None:
        self.words, self.others = words, others

    def __getitem__(self, place: int) -> int:
        self.others()
        return self.words[place]

    def __setitem__(self, place: int, word: int) -> None:
        self.others()
        self.words[place] = word


@given(
    acts=st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=60),
    between=st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 6)), max_size=60),
    limit=st.integers(1, 4),
)
def test_interleaved_acquires_and_releases_never_exceed_the_limit(
    acts: list[tuple[bool, int]], between: list[tuple[bool, int, int]], limit: int
) -> None:
    with fresh(CUSTOMERS) as path:
        interrupt(Numbers(path, limit), acts, between)


def interrupt(numbers: Numbers, acts: list[tuple[bool, int]], between: list[tuple[bool, int, int]]) -> None:
    held = numbers.held
    coming = list(between)
    busy: list[int] = []

    def act(taking: bool, who: int) -> None:
        if who in busy:
            return  # This process is inside a call itself.
        busy.append(who)
        slots = numbers.processes[who].slots
        if taking:
            if slots.acquire(START):
                held[who] += 1
                assert sum(held) <= numbers.limit
        elif held[who]:
            # The slot becomes free for others at some moment during the release.
            held[who] -= 1
            slots.release()
        busy.remove(who)

    def others() -> None:
        if coming and coming[-1][2] == 0:
            taking, who, _ = coming.pop()
            act(taking, who)
        elif coming:
            taking, who, waits = coming.pop()
            coming.append((taking, who, waits - 1))

    for process in numbers.processes:
        assert process.slots.acquire(START) or numbers.limit < 1
        process.slots.release()
        process.table.words = Interrupted(process.table.words, others)  # type: ignore[assignment]
    for taking, who in acts:
        act(taking, who)
    coming.clear()
    for process in numbers.processes:
        process.table.words = process.table.words.words  # type: ignore[attr-defined]
    assert in_use(numbers.path) == sum(held)


TAKER = """
import random, sys
from pathlib import Path
from edgeproxy.edge.counters import columns
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.rule import Rule
from tests.support.tables import opened
file, inside, limit = opened(Path(sys.argv[1])), opened(Path(sys.argv[2])).words, 2
column = columns.acquire_column([file])
table = LimitTable(file, column)
slots = Policies(table).get_concurrency(Rule("concurrency", limit, 0.0, algorithm="concurrency"), b"acme")
chance = random.Random(int(sys.argv[3]))
held = took = 0
# Who does not get the flock at once goes without the row, and is held to its share: of two slots one, whoever has them.
while slots.counts._row < 0:
    if slots.acquire(51e6):
        slots.release()
# What one says that was killed stays: it is for itself only to add that.
others = 1000 + max(2, column + 1)
print("ready", flush=True)
while not inside[1200]:
    for _ in range(200):
        if chance.random() < 0.6:
            if slots.acquire(51e6):
                held += 1
                took += 1
                inside[1000 + column] = held
                # Each says what it holds after it has it, and no longer says so before it gives it back.
                inside[1100 + column] += sum(inside[1000:others].tolist()) > limit
        elif held:
            held -= 1
            inside[1000 + column] = held
            slots.release()
inside[1000 + column] = 0
print(took, flush=True)
"""


@pytest.mark.parametrize("order", ["x86-64"], indirect=True)  # other processes keep the order of the machine
def test_parallel_processes_never_exceed_the_limit_while_others_are_killed(
    path: Path, tmp_path: Path, seed: int
) -> None:
    (tmp_path / "inside").mkdir()
    inside_path = make(tmp_path / "inside", Layout("usage", 8, 4, width=1))
    inside = opened(inside_path).words
    chance = random.Random(seed)

    def begin() -> Program:
        taker = ends.enter_context(Program("-c", TAKER, path, inside_path, chance.randrange(2**32)))
        assert taker.heard() == "ready"
        return taker

    with ExitStack() as ends:
        steady = [begin() for _ in range(2)]
        until = monotonic() + 2
        while monotonic() < until:
            # These processes use the third column in turn. A dead process frees its slots at once.
            inside[1002] = 0
            begin().kill()
        inside[1200] = 1
        assert all(int(taker.end()) > 100 for taker in steady)
    assert inside[1100:1108].tolist() == [0] * 8
    assert in_use(path) == 0


# ---- the row


@pytest.fixture
def one_row(tmp_path: Path) -> Iterator[Path]:
    """A table whose only row belongs to another key."""
    path = make(tmp_path, CUSTOMERS._replace(rows=1, columns=4))
    claim(limits(path), b"other")
    return path


def let_go(path: Path) -> None:
    """Free the table's row."""
    table = limits(path)
    table.free(number_of(table, claim(table, b"other")))


def test_retry_after_knows_slots_that_another_object_of_the_process_uses(path: Path) -> None:
    policies = Policies(limits(path, 0))
    one, two = policies.get_concurrency(rule(1), SUBJECT), policies.get_concurrency(rule(1), SUBJECT)
    assert (one.retry_after(START), two.retry_after(START)) == (0, 0)
    assert one.acquire(START)
    assert two.retry_after(START) == 1
    one.release()
    assert two.retry_after(START) == 0


def test_without_a_row_a_worker_has_a_share_of_the_slots(one_row: Path) -> None:
    worker = Process(one_row, 5)
    slots = worker.slots
    assert [slots.acquire(START) for _ in range(3)] == [True, True, False]
    assert slots.retry_after(START) == 1
    slots.release()
    assert slots.acquire(START + 0.9)
    assert worker.full == ["full"]
    assert not slots.acquire(START + 1.1)
    assert worker.full == ["full", "full"]


def test_without_a_row_retry_after_is_zero_while_the_share_has_a_slot(one_row: Path) -> None:
    slots = Process(one_row, 2).slots
    assert slots.retry_after(START) == 0
    assert slots.acquire(START)
    assert not slots.acquire(START)
    assert slots.retry_after(START) == 1


def test_slots_in_use_without_a_row_enter_the_row(one_row: Path) -> None:
    worker, other = Process(one_row, 5), Process(one_row, 5)
    assert [worker.slots.acquire(START) for _ in range(2)] == [True, True]
    let_go(one_row)
    # The worker retries to get a row after a second.
    assert not worker.slots.acquire(START + 0.5)
    assert worker.slots.acquire(START + 1)
    assert in_use(one_row) == 3
    assert [other.slots.acquire(START + 1) for _ in range(3)] == [True, True, False]
    for _ in range(3):
        worker.slots.release()
    assert in_use(one_row) == 2


def test_a_worker_that_gets_a_row_stores_its_slots_in_use_at_once(one_row: Path) -> None:
    worker = Process(one_row, 5)
    assert worker.slots.acquire(START)
    assert worker.slots.acquire(START)
    let_go(one_row)
    assert worker.slots.retry_after(START + 2) == 0
    assert in_use(one_row) == 2
    table = limits(one_row)
    row = table.peek(table.make_key(rule(5).key(SUBJECT)))
    assert row is not None
    assert table.retained_until(row) >= START + 2 + ROW_RETENTION_SECONDS


def test_a_full_table_is_tried_again_after_the_clock_was_set_back(one_row: Path) -> None:
    slots = Process(one_row, 5).slots
    assert [slots.acquire(START) for _ in range(3)] == [True, True, False]
    let_go(one_row)
    assert slots.acquire(START - 3600)


def test_slots_released_without_a_row_do_not_enter_the_row(one_row: Path) -> None:
    worker = Process(one_row, 5)
    assert worker.slots.acquire(START)
    assert worker.slots.acquire(START)
    let_go(one_row)
    worker.slots.release()
    worker.slots.release()
    assert worker.slots.retry_after(START + 2) == 0
    assert in_use(one_row) == 0


def test_a_row_is_kept_while_slots_are_in_use_and_for_a_time_after(start: Start, path: Path) -> None:
    worker = start()
    supervisor = limits(path)
    reclaim = Reclaim(supervisor)
    assert worker.slots.acquire(START)
    for later in (ROW_RETENTION_SECONDS + IDLE_SECONDS, 3600.0, 86400.0):
        assert reclaim.slice(START + later, NEVER) == (0, 0, 0)
    now = START + 86400
    worker.slots.release()
    assert worker.slots.acquire(now)
    worker.slots.release()
    # Occasional requests keep the row.
    assert reclaim.slice(now + ROW_RETENTION_SECONDS / 2, NEVER) == (0, 0, 0)
    assert reclaim.slice(now + ROW_RETENTION_SECONDS + 1, NEVER) == (1, 0, 0)
    assert reclaim.slice(now + ROW_RETENTION_SECONDS + 1 + GRACE_SECONDS, NEVER) == (0, 1, 0)
    assert supervisor.rows_in_use == 0
    assert worker.slots.acquire(now + ROW_RETENTION_SECONDS + 2)
    assert in_use(path) == 1


def test_acquiring_a_slot_in_a_closing_row_revives_the_row(start: Start, path: Path) -> None:
    worker = start()
    reclaim = Reclaim(limits(path))
    assert worker.slots.acquire(START)
    worker.slots.release()
    later = START + ROW_RETENTION_SECONDS + IDLE_SECONDS
    assert reclaim.slice(later, NEVER) == (1, 0, 0)
    assert worker.slots.acquire(later)
    worker.slots.release()
    assert reclaim.slice(later + GRACE_SECONDS, NEVER) == (0, 0, 0)
    assert worker.slots.acquire(later + GRACE_SECONDS)
    assert in_use(path) == 1


def test_slots_of_a_row_that_closes_do_not_leak_while_the_table_is_locked(start: Start, path: Path) -> None:
    worker, other = start(2), start(2)
    assert worker.slots.acquire(START)
    table = limits(path)
    row = table.peek(table.make_key(rule(2).key(SUBJECT)))
    assert row is not None
    # The state after the supervisor found the row idle, just before the slot was acquired.
    table.words[row + at.ROW_GENERATION] += 1
    table.words[row + at.ROW_SYNC] += 1
    assert table.file.lock()
    assert worker.slots.acquire(START)
    assert worker.used == in_use(path) == 2
    worker.slots.release()
    worker.slots.release()
    table.file.unlock()
    assert in_use(path) == 0
    assert other.slots.acquire(START)
    assert worker.slots.acquire(START)
    assert not worker.slots.acquire(START)


def test_idle_worker_has_its_slot_share_while_the_table_is_locked(start: Start, path: Path) -> None:
    worker = start(8)
    assert worker.slots.acquire(START)
    worker.slots.release()
    table = limits(path)
    row = table.peek(table.make_key(rule(2).key(SUBJECT)))
    assert row is not None
    table.words[row + at.ROW_GENERATION] += 1
    table.words[row + at.ROW_SYNC] += 1
    assert table.file.lock()
    assert [worker.slots.acquire(START) for _ in range(3)] == [True, True, False]
    table.file.unlock()
    assert worker.slots.acquire(START)
    assert in_use(path) == 3


# ---- columns, tables of another layout


def test_slots_on_a_spare_column_count_after_the_others_refresh_their_columns(path: Path) -> None:
    workers = [Process(path, 3) for _ in range(2)]
    assert workers[0].slots.acquire(START)
    taken = [opened(path) for _ in range(4)]
    for file in taken:
        columns.acquire_column([file])
    late = Process(path, 3)
    assert late.table.column == 6
    assert late.table.declare_column()
    for worker in workers:
        worker.table.refresh_columns()
    assert late.slots.acquire(START)
    assert workers[1].slots.acquire(START)
    assert not workers[0].slots.acquire(START)
    late.slots.release()
    assert workers[0].slots.acquire(START)


def test_the_share_without_a_row_follows_the_number_of_workers(one_row: Path) -> None:
    worker = Process(one_row, 4)
    assert worker.slots.acquire(START)
    limits(one_row, 3).declare_column()
    assert worker.table.refresh_columns()
    # From the next attempt to get a row on, three workers share the table.
    assert worker.slots.acquire(START + 0.1)
    assert not worker.slots.acquire(START + 2)


def test_slots_of_an_old_table_count_until_released(tmp_path: Path) -> None:
    old_path, path = make(tmp_path, CUSTOMERS), make(tmp_path, CUSTOMERS._replace(rows=9), generation=2)
    old, worker = Process(old_path, 3), Process(path, 3)
    assert old.slots.acquire(START)
    assert old.slots.acquire(START)
    # The supervisor carries counts once when it prepares the new table, and then at each sweep.
    Carry(limits(old_path), limits(path)).slice(START, NEVER)
    assert in_use(path) == 2
    assert [worker.slots.acquire(START) for _ in range(2)] == [True, False]
    old.slots.release()
    carry = Carry(limits(old_path), limits(path))
    carry.slice(START, NEVER)
    assert in_use(path) == 2
    assert worker.slots.acquire(START)
    old.kill()
    Carry(limits(old_path), limits(path)).slice(START, NEVER)
    assert in_use(path) == 2
    assert worker.slots.acquire(START)
    assert not worker.slots.acquire(START)


def test_a_gauge_has_room_for_any_number(start: Start, path: Path) -> None:
    most = (1 << 28) - 1
    worker, other = start(most), start(most)
    assert worker.slots.counts.take(most, START, most - 1)
    assert worker.slots.acquire(START)
    assert in_use(path) == most
    assert not other.slots.acquire(START)
    worker.slots.release()
    assert other.slots.acquire(START)


def test_the_row_is_marked_as_holding_gauges(start: Start, path: Path) -> None:
    worker = start()
    assert isinstance(worker.slots, ConcurrencyLimit)
    assert worker.slots.name == "concurrency"
    assert worker.slots.limit == 2
    assert worker.slots.acquire(START)
    table = limits(path)
    row = table.peek(table.make_key(rule(2).key(SUBJECT)))
    assert row is not None
    assert table.words[row + at.ROW_STATE] & HAS_GAUGES


# ---- the hub is away


@pytest.mark.parametrize(
    ("on_loss", "elsewhere", "passed"),
    [
        (at.FULL, 0, 6),
        (at.FULL, 4, 2),
        (at.SHARE, 0, 3),
        (at.SHARE, 1, 3),
        (at.SHARE, 3, 3),
        (at.SHARE, 5, 1),
        (at.DENY, 0, 0),
        (at.DENY, 6, 0),
    ],
)
def test_without_the_hub_a_host_applies_on_loss(tmp_path: Path, on_loss: int, elsewhere: int, passed: int) -> None:
    path = make(tmp_path, CUSTOMERS._replace(columns=9, width=at.HEAD_WORDS, parts=at.KEYS_APART))
    one, other = Process(path, 6), Process(path, 6)
    words, layout = one.table.words, one.table.layout
    for process in (one, other):
        process.table.declare_column()
        assert process.slots.acquire(START)
        process.slots.release()
    one.table.refresh_columns()
    place = one.slots.counts.place
    assert place is not None
    words[place[0] + layout.head(8) + at.GAUGE] = elsewhere
    words[at.ON_LOSS], words[at.HOSTS] = on_loss, 2 | at.AWAY
    taken = [process.slots.acquire(START) for _ in range(4) for process in (one, other)]
    assert taken.count(True) == passed
    assert one.slots.retry_after(START) == other.slots.retry_after(START) > 0
    assert words[place[0] + layout.head(8) + at.GAUGE] == elsewhere
    words[at.HOSTS] = 2
    assert one.slots.acquire(START) == (passed + elsewhere < 6)


@pytest.mark.parametrize("on_loss", [at.SHARE, at.DENY])
def test_without_the_hub_and_a_row_a_worker_applies_on_loss(tmp_path: Path, on_loss: int) -> None:
    path = make(tmp_path, CUSTOMERS._replace(rows=1, columns=9, width=at.HEAD_WORDS, parts=at.KEYS_APART))
    table = limits(path)
    table.find(table.make_key(b"other"), 1000, START)
    process = Process(path, 60, hosts=2)
    process.table.declare_column()
    table.words[at.ON_LOSS], table.words[at.HOSTS] = on_loss, 2 | at.AWAY
    part = 60 // (2 * process.table.active)
    assert [process.slots.acquire(START) for _ in range(60)].count(True) == (0 if on_loss == at.DENY else part)
    assert process.slots.retry_after(START) > 0
    assert process.full
