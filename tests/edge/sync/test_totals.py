"""The time of reports of quotas and concurrency to the hub, with real tables, a fake hub and a simulated clock."""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.hub_column import OnLoss
from edgeproxy.edge.counters.layout import HEAD_WORDS, Layout
from edgeproxy.edge.counters.row_key import HAS_GAUGES, HAS_PERIODS
from edgeproxy.edge.sync.totals import (
    GAUGE_HOLDS_SECONDS,
    GAUGE_REPEAT_SECONDS,
    IDLE_SECONDS,
    SPREAD_SECONDS,
    SharedTotals,
)
from edgeproxy.hub.report import Gauge, Period
from loadtest.testbed.memory_hub import Memory
from tests.support.tables import WIDTH, limits, make

QUOTAS = Layout("quotas", rows=400, columns=3, ring=1, cells=1, width=HEAD_WORDS)
HUB = QUOTAS.head(2)
STEP = 0.05
OTHER = 2
"""Another host."""


class Edge:
    """A supervisor with the counts of a worker's column. The hub answers at once."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.now = 50_000_000.0
        self.hub = Memory()
        self.table = limits(make(folder, QUOTAS))
        self.totals = SharedTotals(self.table, 1, random.Random(seed))
        self.totals.hosts = 2

    def quota(self, name: str, count: int) -> int:
        """Set a quota's count in the seventh period. Return its row."""
        row, _, _ = self.table.find(self.table.make_key(name.encode()), WIDTH, self.now, HAS_PERIODS)
        head = row + QUOTAS.head(0)
        self.table.words[head + at.PERIOD], self.table.words[head + at.CUM] = 7, count
        return row

    def in_use(self, name: str, count: int) -> int:
        """Set the number of requests in progress, in the column of older files. Return the row."""
        row, _, _ = self.table.find(self.table.make_key(name.encode()), WIDTH, self.now, HAS_GAUGES)
        self.table.words[row + QUOTAS.head(-1) + at.GAUGE] = count
        return row

    def use(self, row: int, limit: int = 1000) -> None:
        self.totals.record_use(row, self.table.words[row + at.ROW_GENERATION], limit, self.now)

    def told(self) -> list[bytes]:
        said = list(self.totals.build_reports(self.now))
        for total, report in said:
            answer = self.hub.period(report) if isinstance(report, Period) else self.hub.gauge(report)
            self.totals.apply_answer(total, self.now, answer)
        return [report.key for _, report in said]

    def over(self, seconds: float) -> Iterator[list[bytes]]:
        """Yield the reported keys of each step in the next seconds."""
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            yield self.told()


@pytest.fixture
def edge(tmp_path: Path, seed: int) -> Edge:
    return Edge(tmp_path, seed)


def test_a_used_quota_is_reported_at_every_tick(edge: Edge) -> None:
    told = 0
    for step in range(200):
        edge.use(edge.quota("q", 3 + step // 20))
        edge.now += STEP
        told += len(edge.told())
    assert 8 <= told <= 14


def test_a_growing_quota_is_reported_without_a_message(edge: Edge) -> None:
    row = edge.quota("q", 3)
    edge.use(row)
    assert edge.told() == [b"q"]
    edge.now += 0.01
    edge.quota("q", 4)
    assert sum(len(said) for said in edge.over(3.0)) == 1


def test_slots_in_use_are_reported_again_before_they_expire(edge: Edge) -> None:
    edge.use(edge.in_use("g", 2))
    moments = [edge.now for said in edge.over(60.0) if said]
    assert max(after - before for before, after in pairwise(moments)) < GAUGE_HOLDS_SECONDS - 1
    assert len(moments) <= 31
    edge.in_use("g", 0)
    assert sum(len(said) for said in edge.over(5.0)) == 1
    assert not any(edge.over(IDLE_SECONDS + 2))
    assert len(edge.totals) == 0


def test_a_returning_hub_gets_all_totals_gradually(edge: Edge) -> None:
    rows = [edge.quota(f"q-{number}", 3) for number in range(200)]
    for row in rows:
        edge.use(row)
    assert len(edge.told()) == 200
    list(edge.over(IDLE_SECONDS + 2))
    edge.totals.hold_next_rows("share")
    edge.hub.forget()
    changed = {edge.quota(f"q-{number}", 4) and b"q-%d" % number for number in range(5)}
    edge.totals.resume()
    steps = list(edge.over(SPREAD_SECONDS + 2))
    counts = Counter(key for step in steps for key in step)
    assert len(counts) == 200
    assert changed <= {key for step in steps[:3] for key in step}
    assert max(len(step) for step in steps[3:]) <= 40, "the rate of a whole second would be 40"


def test_without_the_hub_a_host_has_its_share_of_concurrency(edge: Edge) -> None:
    rows = [edge.in_use(f"g-{number}", 1) for number in range(30)]
    for row in rows:
        edge.use(row, 10)
    edge.told()
    edge.totals.hold_next_rows("share", 10)
    assert sum(edge.table.words[row + HUB + at.GAUGE] == 5 for row in rows) == 10
    assert edge.totals.find_next_due() == 0
    edge.totals.hold_next_rows("share")
    assert all(edge.table.words[row + HUB + at.GAUGE] == 5 for row in rows)
    assert edge.totals.find_next_due() is None
    # The operator changes `on_loss` twice.
    edge.totals.hold_next_rows("deny")
    assert all(edge.table.words[row + HUB + at.GAUGE] == 10 for row in rows)
    edge.totals.hold_next_rows("full")
    assert all(edge.table.words[row + HUB + at.GAUGE] == 0 for row in rows)


def elsewhere(edge: Edge, key: bytes, count: int) -> None:
    """Let another host report its requests in progress to the hub."""
    edge.hub.gauge(Gauge(key, OTHER, count, edge.now, edge.now + GAUGE_HOLDS_SECONDS))


def held(edge: Edge, row: int) -> int:
    """Return the number that the table has for other hosts."""
    return edge.table.words[row + HUB + at.GAUGE]


def test_slots_of_other_hosts_expire_without_new_reports(edge: Edge) -> None:
    row = edge.in_use("g", 0)
    elsewhere(edge, b"g", 3)
    edge.use(row)
    edge.told()
    assert held(edge, row) == 3
    list(edge.over(GAUGE_HOLDS_SECONDS + GAUGE_REPEAT_SECONDS + 0.5))
    assert held(edge, row) == 0, "the other host has died"
    edge.use(row)
    assert sum(len(said) for said in edge.over(IDLE_SECONDS - 1)) <= 2, "reports stop"
    assert not any(edge.over(60.0))


def test_slots_of_other_hosts_are_dropped_without_requests_here(edge: Edge) -> None:
    row = edge.in_use("g", 0)
    elsewhere(edge, b"g", 3)
    edge.use(row)
    told = 0
    for said in edge.over(IDLE_SECONDS + GAUGE_REPEAT_SECONDS + 2):
        elsewhere(edge, b"g", 3)
        told += len(said)
    assert (held(edge, row), len(edge.totals)) == (0, 0)
    assert told <= (IDLE_SECONDS + GAUGE_REPEAT_SECONDS + 2) / GAUGE_REPEAT_SECONDS + 1


def test_a_new_supervisor_refreshes_the_totals_of_the_former_one(edge: Edge) -> None:
    rows = [edge.in_use(f"g-{number}", 0) for number in range(20)]
    quota = edge.quota("q", 3)
    for row in (*rows, quota):
        edge.table.words[row + HUB + at.GAUGE] = 3
    closing = rows.pop()
    edge.table.words[closing + at.ROW_GENERATION] += 1
    edge.totals = SharedTotals(edge.table, 1, random.Random(1))
    edge.totals.hosts = 2
    elsewhere(edge, b"g-7", 1)
    assert edge.totals.find_next_due() == 0
    said = {key for step in edge.over(1.0) for key in step}
    assert said == {b"g-%d" % number for number in range(19)}
    assert [held(edge, row) for row in rows] == [int(number == 7) for number in range(19)]


@pytest.mark.parametrize(("on_loss", "kept"), [("share", 5), ("deny", 0), ("full", 10)])
def test_without_the_hub_the_last_totals_of_other_hosts_do_not_apply(edge: Edge, on_loss: OnLoss, kept: int) -> None:
    row = edge.in_use("g", 1)
    elsewhere(edge, b"g", 9)
    edge.use(row, 10)
    edge.told()
    assert held(edge, row) == 9
    edge.totals.hold_next_rows(on_loss)
    assert held(edge, row) == 10 - kept


def test_used_rows_are_reported_first_when_the_hub_returns(edge: Edge) -> None:
    rows = [edge.in_use(f"g-{number}", 0) for number in range(20)]
    for row in rows:
        edge.use(row, 10)
    edge.told()
    edge.totals.hold_next_rows("deny")
    edge.totals.resume()
    edge.told()
    for row in rows:
        assert held(edge, row) == 10
        edge.use(row, 10)
    edge.now += STEP
    edge.told()
    assert [held(edge, row) for row in rows] == [0] * 20
