"""The choice and the time of rows reported to the hub, with real tables, a reference hub and a simulated clock."""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeproxy.edge.counters import claims
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import cell_number, width_us
from edgeproxy.edge.counters.hub_column import HELD, ON_LOSS, OnLoss
from edgeproxy.edge.counters.layout import HEAD_WORDS, KEYS_APART, Layout
from edgeproxy.edge.limits.counts import Counts
from edgeproxy.edge.limits.gate import UNUSED_SECONDS, Gate
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.rate_terms import RateTerms
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.sync.plan import ALONE_TICKS, HostCounts
from edgeproxy.edge.sync.rate import GOOD_SECONDS
from edgeproxy.edge.sync.shared import SPREAD_SECONDS, RowUse, SharedRate, SharedRates
from edgeproxy.hub.report import Bucket, Cell, Report, Window
from loadtest.testbed.memory_hub import Memory
from tests.support.tables import limits, make

LAYOUT = Layout("customers", rows=400, columns=3, ring=32, cells=28, width=HEAD_WORDS, parts=KEYS_APART)
RULE = Rule("basic", 600, 60.0)
TERMS = RateTerms(600, 60.0, LAYOUT.cells)
STEP = 0.05


class Edge:
    """A supervisor and one worker on a table. The hub answers at once. Times are edge time."""

    def __init__(self, folder: Path, seed: int, hosts: int = 2) -> None:
        path = make(folder, LAYOUT)
        self.now = 50_000_000.0
        self.hub = Memory()
        self._table, self._seed, self._hosts = limits(path), seed, hosts
        self._starts = itertools.count(1)
        self.begin()
        self._worker = limits(path, 0)
        self._policies = Policies(self._worker)
        self.rows: dict[str, int] = {}
        self._used: dict[str, Callable[[], None]] = {}

    def begin(self) -> None:
        """Start a supervisor, which may replace another one."""
        self.shared = SharedRates(self._table, 1, random.Random(self._seed))
        self.shared.hosts = self._hosts
        self._table.words[at.HOSTS] = self._hosts
        self._seqs = itertools.count(next(self._starts) << 32)

    def count(self, name: str) -> None:
        """Count a request without telling the supervisor."""
        policy = self._policies.get_policy(RULE, name.encode())
        policy.left(self.now)
        policy.charge(1)
        self._used[name] = lambda: policy.charge(1)
        self.rows[name] = self._worker.readers[RULE.key(name.encode())].row  # type: ignore[attr-defined]

    def left(self, name: str) -> int:
        """Return the remaining amount."""
        return self._policies.get_policy(RULE, name.encode()).left(self.now)

    def use(self, name: str, *, refused: bool = False) -> None:
        """Tell the supervisor that the row is in use."""
        row = self.rows[name]
        generation = self._worker.words[row + at.ROW_GENERATION]
        self.shared.record_use(RowUse(row, generation, TERMS, refused), self.now)

    def wait(self, name: str, column: int = 0) -> None:
        """Let a request wait for a claim."""
        head = self.rows[name] + LAYOUT.head(column)
        self._worker.words[head + at.WANT] = self._worker.words[head + at.GIVEN] + 1

    def told(self, most: int = 1000) -> list[str]:
        """Send the due reports to the hub and apply its answers. Return the reported names."""
        names = {row: name for name, row in self.rows.items()}
        said: list[tuple[SharedRate, Report]] = list(self.shared.build_reports(self.now, self._seqs, most))
        for row, report in said:
            self.shared.apply_answer(row, self.now, report.seq, self.hub.report(report))
        return [names[row.row] for row, _ in said]

    def over(self, seconds: float, most: int = 1000) -> Iterator[list[str]]:
        """Yield the reported names of each step in the next seconds."""
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            yield self.told(most)


@pytest.fixture
def edge(tmp_path: Path, seed: int) -> Edge:
    return Edge(tmp_path, seed)


def names(many: int) -> list[str]:
    return [f"customer-{number}" for number in range(many)]


def test_waiting_rows_are_reported_first_then_urgent_ones_then_the_others(edge: Edge) -> None:
    for name in names(60):
        edge.count(name)
        edge.use(name)
    assert len(edge.told()) == 60
    # The hub's answers are still valid, and all rows are due.
    edge.now += GOOD_SECONDS - 0.01
    for name in names(60):
        edge.count(name)
    wait, matter = names(60)[20:40], names(60)[40:]
    for name in wait:
        edge.wait(name)
        edge.use(name)
    for name in matter:
        edge.use(name, refused=True)
    told = edge.told(16)
    assert set(told[:12]) <= set(wait)
    assert set(told[12:15]) <= set(matter)
    assert set(told[15:]) <= set(names(20))
    rest = [name for _ in range(4) for name in edge.told(16)]
    assert len({*told, *rest}) == 60, "no row is reported twice before all others are reported"


def test_a_row_used_by_one_host_is_reported_less_often(edge: Edge) -> None:
    edge.count("alone")
    edge.count("shared")
    edge.use("alone")
    edge.use("shared")
    other = iter(range(1, 1000))
    told: Counter[str] = Counter()
    for said in edge.over(24.0):
        told.update(said)
        edge.count("alone")
        edge.count("shared")
        seq = next(other)
        key = edge.shared.table.stored_key(edge.rows["shared"])
        edge.hub.report(Report(key, 2, seq, 1, edge.now, 60.0, seq))
        for name in ("alone", "shared"):
            words = edge.shared.table.words
            warm_until = words[edge.rows[name] + LAYOUT.head(2) + at.WARM_UNTIL]
            assert warm_until > edge.now * 1000 or not told[name]
    assert 24 / ALONE_TICKS * 0.8 <= told["alone"] <= 24 / ALONE_TICKS * 1.3 + 1
    assert told["shared"] >= 20


def test_a_returning_hub_gets_new_counts_first_and_the_rest_gradually(edge: Edge) -> None:
    for name in names(300):
        edge.count(name)
        edge.use(name)
    assert len(edge.told()) == 300
    edge.shared.hold_next_rows(edge.now, "share", 1000)
    edge.now += 1.0
    for name in names(10):
        edge.count(name)
    edge.shared.resume()
    edge.hub.forget()
    steps = list(edge.over(SPREAD_SECONDS + 2.0))
    told = Counter(name for said in steps for name in said)
    assert set(told) == set(names(300))
    assert set(names(10)) <= {name for said in steps[:3] for name in said}
    assert max(len(said) for said in steps[3:]) <= 40, "the rate of a whole second would be 60"


def test_without_the_hub_rows_are_held_in_batches(edge: Edge) -> None:
    for name in names(50):
        edge.count(name)
        edge.use(name)
    edge.told()

    def held() -> int:
        table, ring = edge.shared.table, LAYOUT.ring_at(2)
        rings = [table.rings_of(row) + ring for row in edge.rows.values()]
        return sum(any(table.words[first : first + LAYOUT.ring].tolist()) for first in rings)

    assert held() == 0
    edge.shared.hold_next_rows(edge.now, "share", 20)
    assert held() == 20
    assert edge.shared.find_next_due() == 0, "rows are left to hold"
    # A newly used row is held next.
    edge.count("new")
    edge.use("new")
    edge.shared.hold_next_rows(edge.now, "share", 1)
    table = edge.shared.table
    assert any(table.words[table.rings_of(edge.rows["new"]) + LAYOUT.ring_at(2) :][: LAYOUT.ring].tolist())
    edge.shared.hold_next_rows(edge.now, "share", 1000)
    assert held() == 51
    assert (edge.shared.find_next_due() or 0) > edge.now


def test_a_count_during_a_hold_does_not_enlarge_the_share(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    edge.count("new")
    edge.use("new")
    (row,) = edge.shared._rows.values()
    read = row.read_counts

    def counted(self: SharedRate, now: float) -> HostCounts:
        """Count a request after the sums were read and before the cells are read."""
        found = read(now)
        edge._used["new"]()
        return found._replace(cells={of: count + 1 for of, count in found.cells.items()}, left=found.left - 1)

    monkeypatch.setattr(SharedRate, "read_counts", counted)
    edge.shared.hold_next_rows(edge.now, "share", 1)
    assert row.held == 300, "half of the limit is held"


@pytest.mark.parametrize("algorithm", ["sliding_window", "token_bucket"])
def test_a_changed_on_loss_applies_without_the_hub(edge: Edge, algorithm: str) -> None:
    rule = Rule("basic", 600, 600.0, algorithm=algorithm, depth=600)
    policy = Policies(edge._worker).get_policy(rule, b"acme")
    policy.left(edge.now)
    policy.charge(100)
    counts = edge._worker.readers[rule.key(b"acme")]
    assert isinstance(counts, Counts)
    cells = LAYOUT.cells if algorithm == "sliding_window" else 0
    terms = RateTerms(600, 600.0, cells, 0 if cells else 600, 0.0 if cells else 1.0)
    edge.shared.record_use(RowUse(counts.row, edge._worker.words[counts.row + at.ROW_GENERATION], terms), edge.now)
    edge.rows["acme"] = counts.row
    key, cell = edge.shared.table.stored_key(counts.row), cell_number(edge.now, width_us(600.0, LAYOUT.cells))
    window = Window(600, cells, cell, (Cell(cell, 100, 0),)) if cells else None
    bucket = None if cells else Bucket(600, 1.0, 0.0, 100.0)
    edge.hub.report(Report(key, 2, 1, 1, edge.now, 600.0, 100, window=window, bucket=bucket))
    assert edge.told() == ["acme"]
    # share: half of the limit or of a bucket's remainder. deny: nothing. full: the whole remainder.
    for on_loss, left in (("share", 200), ("deny", 0), ("full", 400), ("share", 200), ("full", 400)):
        edge.shared.hold_next_rows(edge.now, on_loss)  # type: ignore[arg-type]
        assert max(0, policy.left(edge.now)) == pytest.approx(left, abs=1), on_loss


def test_losing_the_hub_ends_the_allowance_of_all_rows_at_once(edge: Edge) -> None:
    for name in names(50):
        edge.count(name)
        edge.use(name)
    edge.told()
    words, hub = edge.shared.table.words, LAYOUT.head(2)
    before = [words[row + at.ROW_SYNC] for row in edge.rows.values()]
    assert all(words[row + hub + at.WARM_UNTIL] > edge.now * 1000 for row in edge.rows.values())
    edge.shared.hold_next_rows(edge.now, "share", 1)
    warm = [row for row in edge.rows.values() if words[row + hub + at.WARM_UNTIL]]
    assert [words[row + hub + at.THRESHOLDS] for row in warm] == [HELD]
    moved = zip(before, [words[row + at.ROW_SYNC] for row in edge.rows.values()], strict=True)
    assert all(now > then for then, now in moved)


@pytest.mark.parametrize(("on_loss", "is_whole"), [("share", True), ("deny", True), ("deny", False)])
def test_without_the_hub_a_bucket_follows_on_loss(edge: Edge, on_loss: OnLoss, is_whole: bool) -> None:
    bucket = Rule("basic", 600, 60.0, algorithm="token_bucket", depth=20)
    worker = Policies(edge._worker)
    policy = worker.get_policy(bucket, b"acme")
    policy.left(edge.now)
    counts = edge._worker.readers[bucket.key(b"acme")]
    assert isinstance(counts, Counts)
    gate = Gate(edge._worker, counts, 20, "bounded", lambda gate: None)
    words, generation = edge._worker.words, edge._worker.words[gate.row + at.ROW_GENERATION]
    edge.shared.record_use(RowUse(gate.row, generation, RateTerms(0, 60.0, 0, 20, 10.0)), edge.now)
    edge.rows["acme"] = gate.row
    assert edge.told() == ["acme"]
    (row,) = edge.shared._rows.values()
    if is_whole:
        words[at.HOSTS], words[at.ON_LOSS] = 2 | at.AWAY, ON_LOSS[on_loss]
    passed = 0
    for number in range(200):
        edge.now += STEP
        if is_whole:
            edge.shared.hold_next_rows(edge.now, on_loss)
        elif number % 20 == 0:
            # The hub node of the row does not answer, and the row is held again each second.
            edge.shared.hold_row(row, edge.now, on_loss)
        left = policy.left(edge.now)
        if left >= 1 and (gate.is_open(edge.now, 1) or not gate.must_ask(edge.now, 1, left)):
            policy.charge(1)
            passed += 1
        elif left >= 1:
            assert gate.is_asking_useless(edge.now)
    assert passed == 0 if on_loss == "deny" else 50 <= passed <= 65


def test_a_clock_set_back_does_not_delay_reports(edge: Edge) -> None:
    for name in names(20):
        edge.count(name)
        edge.use(name)
    assert len(edge.told()) == 20
    edge.now -= 3600.0
    edge.shared.restart(edge.now)
    told = {name for said in edge.over(SPREAD_SECONDS + 0.5) for name in said}
    assert told == set(names(20))
    edge.wait("customer-0")
    edge.use("customer-0")
    assert "customer-0" in [name for said in edge.over(0.5) for name in said]


def test_counts_of_a_far_future_do_not_hide_present_counts(edge: Edge) -> None:
    edge.count("customer")
    edge.use("customer")
    key = edge.shared.table.stored_key(edge.rows["customer"])
    cell = cell_number(edge.now, width_us(RULE.window, LAYOUT.cells))
    for instance, of in ((3, cell + 3 * LAYOUT.ring), (2, cell)):
        window = Window(600, LAYOUT.cells, of, (Cell(of, 100 * instance, 0),))
        edge.hub.report(Report(key, instance, 1, 1, edge.now, 60.0, 100 * instance, window=window))
    assert edge.told() == ["customer"]
    assert edge.left("customer") == 600 - 1 - 200


def test_a_refused_claim_is_not_repeated_before_the_next_cell(edge: Edge) -> None:
    edge.count("customer")
    edge.use("customer")
    key = edge.shared.table.stored_key(edge.rows["customer"])
    width = width_us(RULE.window, LAYOUT.cells)
    cell = cell_number(edge.now, width)
    window = Window(600, LAYOUT.cells, cell, (Cell(cell, 600, 0),))
    edge.hub.report(Report(key, 2, 1, 1, edge.now, 60.0, 600, window=window))
    edge.wait("customer")
    assert edge.told() == ["customer"]
    until = edge.shared.table.words[edge.rows["customer"] + LAYOUT.head(2) + at.NO_USE_UNTIL] / 1000
    assert edge.now < until <= edge.now + width / 1e6
    assert cell_number(until + 0.001, width) == cell + 1


@pytest.mark.parametrize("column", [0, 1])
def test_unused_claims_are_returned_even_by_another_supervisor(edge: Edge, column: int) -> None:
    edge.count("customer")
    edge.use("customer")
    edge.told()
    edge.wait("customer", column)
    edge.now += 1.0
    edge.use("customer")
    assert edge.told() == ["customer"]
    assert claims.in_hand(edge.shared.table, edge.rows["customer"], column) == 1
    edge.begin()
    edge.use("customer")
    edge.told()
    edge.now += max(UNUSED_SECONDS.values())
    assert [row for row, _ in edge.shared.list_unused_claims(edge.now)] == [edge.rows["customer"]]
    claims.clear_claims(edge.shared.table, edge.rows["customer"], column)
    assert edge.shared.list_unused_claims(edge.now) == []
    for _ in edge.over(15.0):
        pass
    assert len(edge.shared) == 0, "the row is no longer in use"


def test_current_counts_of_unused_rows_are_reported_again_to_an_empty_hub(edge: Edge) -> None:
    for name in names(50):
        edge.count(name)
        edge.use(name)
    edge.told()
    for _ in edge.over(15.0):
        pass
    assert len(edge.shared) == 0
    edge.hub.forget()
    edge.shared.hold_next_rows(edge.now, "share")
    edge.shared.resume()
    told = Counter(name for said in edge.over(SPREAD_SECONDS + 0.5) for name in said)
    assert told == dict.fromkeys(names(50), 1)
    for _ in edge.over(15.0):
        pass
    assert len(edge.shared) == 0
    # A second renewal covers only the keys of one node.
    keys = {edge.shared.table.stored_key(edge.rows[name]) for name in names(20)}
    edge.shared.schedule_renewal(lambda key: key in keys, edge.now)
    told = Counter(name for said in edge.over(SPREAD_SECONDS + 0.5) for name in said)
    assert told == dict.fromkeys(names(20), 1)
    for _ in edge.over(RULE.window):
        pass
    edge.shared.resume()
    assert not [name for said in edge.over(SPREAD_SECONDS + 0.5) for name in said], "the counts have expired"
    edge.count("new")
    edge.use("new")
    assert edge.told() == ["new"]
