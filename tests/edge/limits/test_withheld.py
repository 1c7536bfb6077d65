"""The part of a limit that a host withholds for other hosts without the hub. Reports show it neither as used nor as
available soon. The tests use a supervisor's rows, a worker's policies and a report on one table."""

import itertools
import random
from dataclasses import replace
from pathlib import Path

import pytest

from edgeproxy.edge.counters import columns
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import cell_number, width_us
from edgeproxy.edge.counters.hub_column import ON_LOSS, OnLoss
from edgeproxy.edge.counters.layout import HEAD_WORDS, KEYS_APART, Layout
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.concurrency import ConcurrencyLimit
from edgeproxy.edge.limits.counts import Counts
from edgeproxy.edge.limits.denial import compute_gate_denial
from edgeproxy.edge.limits.gate import Gate
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.rate_terms import Mode
from edgeproxy.edge.limits.row_usage import Usage
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.usage import compute_usage
from edgeproxy.edge.limits.window import HUB_RETRY_SECONDS
from edgeproxy.edge.sync import plan
from edgeproxy.edge.sync.shared import RowUse, SharedRates
from edgeproxy.edge.sync.totals import SharedTotals
from edgeproxy.hub.report import Cell, Gauge, Report, Window
from loadtest.testbed.memory_hub import Memory
from tests.support.tables import limits, make, opened

LAYOUT = Layout("customers", rows=20, columns=3, ring=32, cells=28, width=HEAD_WORDS, parts=KEYS_APART)
START = 51_000_000.0
WINDOW = Rule("basic", 60, 60.0)
BUCKET = Rule("bucket", 60, 60.0, algorithm="token_bucket", depth=60)
HYBRID = Rule("hybrid", 60, 60.0, algorithm="hybrid", depth=60)
SLOTS = Rule("concurrency", 10, 0.0, algorithm="concurrency")
NAME = b"acme"


class Host:
    """One of two hosts."""

    def __init__(self, folder: Path) -> None:
        path = make(folder, LAYOUT)
        self.now = START
        self.hub = Memory()
        file = opened(path)
        self.table, self.worker = limits(path), LimitTable(file, columns.acquire_column([file]))
        self.shared = SharedRates(self.table, 1, random.Random(1))
        self.totals = SharedTotals(self.table, 1, random.Random(1))
        self.shared.hosts = self.totals.hosts = self.table.words[at.HOSTS] = 2
        self.policies = Policies(self.worker)
        self.on_loss: OnLoss = "share"
        self._seqs = itertools.count(1)
        self._held: list[object] = []

    def use(self, rule: Rule, count: int, mode: Mode = "bounded", *, refused: bool = False) -> Policy:
        """Count usage and report it to the supervisor."""
        policy = self.policies.get_policy(rule, NAME)
        policy.left(self.now)
        if count:
            policy.charge(count)
        row = self.row(rule)
        cells = LAYOUT.cells if rule.algorithm != "token_bucket" else 0
        terms = plan.RateTerms(rule.limit, 60.0, cells, rule.depth, 1.0 if rule.depth else 0.0, mode)
        self.shared.record_use(RowUse(row, self.table.words[row + at.ROW_GENERATION], terms, refused=refused), self.now)
        self.after(0.0)
        self._held.append(policy)
        return policy

    def row(self, rule: Rule) -> int:
        counts = self.worker.readers[rule.key(NAME)]
        assert isinstance(counts, Counts)
        return counts.row

    def others(self, rule: Rule, count: int) -> None:
        """Let the other host use and report this amount."""
        cell = cell_number(self.now, width_us(rule.window, LAYOUT.cells))
        window = Window(rule.limit, LAYOUT.cells, cell, (Cell(cell, count, 0),))
        key = self.table.stored_key(self.row(rule))
        self.hub.report(Report(key, 2, 1, 1, self.now, 60.0, count, window=window))
        self.after(2.0)
        self.use(rule, 0, refused=True)
        self.after(1.0)

    def lost(self, on_loss: OnLoss) -> None:
        """Make the hub unavailable."""
        self.on_loss = on_loss
        self.table.words[at.HOSTS] = 2 | at.AWAY
        self.table.words[at.ON_LOSS] = ON_LOSS[on_loss]
        self.shared.hold_next_rows(self.now, on_loss)
        self.totals.hold_next_rows(on_loss)

    def found(self) -> None:
        """Make the hub available again."""
        self.table.words[at.HOSTS] = 2
        self.shared.resume()
        self.totals.resume()
        self.after(6.0)

    def after(self, seconds: float) -> None:
        """Advance the time, and report or hold the due rows."""
        for _ in range(int(seconds) + 1):
            self.now += seconds / (int(seconds) + 1)
            if self.table.words[at.HOSTS] & at.AWAY:
                self.shared.hold_next_rows(self.now, self.on_loss)
                self.totals.hold_next_rows(self.on_loss)
                continue
            for row, said in list(self.shared.build_reports(self.now, self._seqs)):
                self.shared.apply_answer(row, self.now, said.seq, self.hub.report(said))
            for total, of in list(self.totals.build_reports(self.now)):
                assert isinstance(of, Gauge)
                self.totals.apply_answer(total, self.now, self.hub.gauge(of))

    def looked(self, rule: Rule) -> Usage:
        return compute_usage(self.table, rule, NAME, self.now)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_reports_separate_used_and_withheld_amounts(host: Host) -> None:
    policy = host.use(WINDOW, 20)
    host.others(WINDOW, 20)
    assert host.looked(WINDOW)[:2] == (40, 20)
    host.lost("share")
    assert host.looked(WINDOW) == Usage(20, 10, host.looked(WINDOW).reset, 30)
    host.use(WINDOW, 10)
    assert host.looked(WINDOW) == Usage(30, 0, policy.reset(host.now), 30)
    host.after(50.0)
    assert (host.looked(WINDOW).used, host.looked(WINDOW).held_back) == (30, 30)
    host.after(20.0)
    assert host.looked(WINDOW) == Usage(0, 30, 0, 30)


@pytest.mark.parametrize("rule", [WINDOW, BUCKET, HYBRID], ids=lambda rule: rule.algorithm)
@pytest.mark.parametrize(("on_loss", "mode"), [("deny", "bounded"), ("share", "strict"), ("full", "strict")])
@pytest.mark.parametrize("used", [0, 20])
def test_retry_after_is_the_hub_retry_interval_if_nothing_may_pass(
    host: Host, rule: Rule, on_loss: OnLoss, mode: Mode, used: int
) -> None:
    policy = host.use(rule, used, mode)
    host.after(1.0)
    host.lost(on_loss)
    for _ in range(20):
        host.use(rule, 0, mode)
        assert policy.left(host.now) <= 0
        assert policy.retry_after(host.now) == HUB_RETRY_SECONDS
        if rule is not BUCKET:
            assert policy.tail(host.now) == b";t=%d\r\n" % HUB_RETRY_SECONDS
        usage = host.looked(rule)
        assert usage.used <= used, "the withheld part does not count as used"
        assert usage.remaining == 0
        assert usage.used + usage.held_back >= 60 - 1
        host.after(1.7)
    host.found()
    assert policy.left(host.now) > 0
    assert host.looked(rule).held_back == 0


def test_a_bucket_withholds_the_share_that_drains_for_others(host: Host) -> None:
    policy = host.use(BUCKET, 20)
    host.after(0.5)
    host.lost("share")
    for seconds in range(0, 20, 4):
        usage = host.looked(BUCKET)
        assert usage.used == pytest.approx(20 - seconds, abs=2)
        assert usage.remaining == pytest.approx(20 + seconds / 2, abs=2) == pytest.approx(policy.left(host.now), abs=1)
        assert usage.used + usage.held_back + usage.remaining == 60
        assert usage.reset == pytest.approx(usage.used, abs=1)
        host.after(4.0)


def test_a_share_stays_withheld_for_a_time_after_the_hub_returns(host: Host) -> None:
    host.use(WINDOW, 10)
    host.others(WINDOW, 10)
    host.lost("share")
    host.found()
    usage = host.looked(WINDOW)
    assert usage == Usage(20, 20, usage.reset, 20)
    host.use(WINDOW, 1)
    host.after(10.0)
    host.use(WINDOW, 1)
    host.after(2.0)
    assert host.looked(WINDOW) == Usage(22, 38, host.looked(WINDOW).reset, 0)


def test_expired_cells_withhold_nothing(host: Host) -> None:
    host.use(WINDOW, 1)
    host.after(1.0)
    host.lost("deny")
    host.now += 100.0  # No supervisor runs any more.
    assert host.looked(WINDOW) == Usage(0, 60, 0, 0)


def test_withheld_slots_of_a_concurrency_limit(host: Host) -> None:
    slots = host.policies.get_concurrency(SLOTS, NAME)
    assert isinstance(slots, ConcurrencyLimit)
    for _ in range(3):
        assert slots.acquire(host.now)
    place = slots.counts.place
    assert place is not None
    host.totals.record_use(*place, 10, host.now)
    host.after(2.0)
    host.hub.gauge(Gauge(host.table.stored_key(place[0]), 2, 4, host.now, host.now + 9))
    host.after(3.0)
    assert host.looked(SLOTS) == Usage(7, 3, 1, 0)
    host.lost("share")
    assert host.looked(SLOTS) == Usage(3, 2, 1, 5)
    for _ in range(2):
        assert slots.acquire(host.now)
    assert (slots.retry_after(host.now), host.looked(SLOTS)) == (1, Usage(5, 0, 1, 5))
    host.found()
    assert host.looked(SLOTS).held_back == 0
    host.lost("deny")
    assert (slots.retry_after(host.now), host.looked(SLOTS)) == (HUB_RETRY_SECONDS, Usage(5, 0, 1, 10))


@pytest.mark.parametrize(
    ("on_loss", "mode", "is_away", "seconds"),
    [
        ("deny", "bounded", True, HUB_RETRY_SECONDS),
        ("share", "strict", True, HUB_RETRY_SECONDS),
        ("share", "bounded", True, 1),
        ("deny", "strict", False, 1),
    ],
)
def test_retry_after_of_a_refusal_at_a_gate(
    host: Host, on_loss: OnLoss, mode: Mode, is_away: bool, seconds: int
) -> None:
    policy, other = host.policies.get_policy(WINDOW, NAME), host.policies.get_policy(HYBRID, NAME)
    policy.left(host.now)
    counts = host.worker.readers[WINDOW.key(NAME)]
    assert isinstance(counts, Counts)
    gate = Gate(host.worker, counts, 60, mode, lambda gate: None)
    host.lost(on_loss)
    host.table.words[at.HOSTS] = 2 | (at.AWAY if is_away else 0)
    terms = LimitSet((policy, other), gates=((policy, gate),))
    assert compute_gate_denial(terms, (policy,)) == ((policy,), seconds)
    assert compute_gate_denial(terms, (other,)) == ((other,), 1)


# ---- changes without the hub


def says(host: Host, rule: Rule, *, limit: int = 60, window: float = 60.0) -> Policy:
    """Let a worker use the row with a changed rule."""
    changed = replace(rule, limit=limit, depth=min(rule.depth, limit))
    policy = host.policies.get_policy(changed, NAME)
    policy.left(host.now)
    host._held.append(policy)
    row = host.row(rule)
    cells = LAYOUT.cells if rule.algorithm != "token_bucket" else 0
    terms = plan.RateTerms(limit, window, cells, changed.depth, limit / window if rule.depth else 0.0)
    host.shared.record_use(RowUse(row, host.table.words[row + at.ROW_GENERATION], terms), host.now)
    host.after(1.0)
    return policy


def begins_anew(host: Host) -> None:
    """Let a new supervisor take over without the hub."""
    host.shared = SharedRates(host.table, 1, random.Random(2))
    host.shared.hosts = 2


@pytest.mark.parametrize("rule", [WINDOW, BUCKET, HYBRID], ids=lambda rule: rule.algorithm)
@pytest.mark.parametrize("on_loss", ["share", "full", "deny"])
def test_a_lowered_limit_without_the_hub_allows_its_new_share(host: Host, rule: Rule, on_loss: OnLoss) -> None:
    host.use(rule, 3)
    host.after(1.0)
    host.lost(on_loss)
    host.after(30.0)
    policy = says(host, rule, limit=10)
    host.after(60.0)
    most = {"share": 10, "full": 10, "deny": 0}[on_loss]
    assert policy.left(host.now) <= most
    assert host.row(rule) in host.shared._rows, "the row stays held"


def test_a_raised_limit_without_the_hub_allows_its_new_share(host: Host) -> None:
    host.use(WINDOW, 3)
    host.others(WINDOW, 20)
    host.lost("share")
    host.after(2.0)
    policy = says(host, WINDOW, limit=600)
    host.after(70.0)
    assert policy.left(host.now) == 300


def test_a_new_supervisor_without_the_hub_still_withholds_for_others(host: Host) -> None:
    host.use(WINDOW, 10)
    host.others(WINDOW, 50)
    host.lost("share")
    host.after(1.0)
    begins_anew(host)
    assert says(host, WINDOW).left(host.now) == 20
    host.lost("deny")
    assert says(host, WINDOW).left(host.now) <= 0
    host.lost("share")
    assert says(host, WINDOW).left(host.now) == 20, "10 of an equal share of 30 are used"


def test_usage_of_a_bucket_survives_a_new_supervisor_and_on_loss(host: Host) -> None:
    slow = Rule("bucket", 60, 3600.0, algorithm="token_bucket", depth=60)
    policy = host.policies.get_policy(slow, NAME)
    host._held.append(policy)
    policy.left(host.now)
    policy.charge(50)
    says(host, slow, window=3600.0)
    host.lost("share")
    host.after(1.0)
    begins_anew(host)
    for on_loss in ("share", "full", "share", "deny", "full"):
        host.lost(on_loss)  # type: ignore[arg-type]
        assert says(host, slow, window=3600.0).left(host.now) <= 10


@pytest.mark.parametrize("on_loss", ["deny", "share"])
def test_a_new_supervisor_with_full_withholds_nothing(host: Host, on_loss: OnLoss) -> None:
    host.use(WINDOW, 2)
    host.others(WINDOW, 5)
    host.lost(on_loss)
    host.after(1.0)
    begins_anew(host)
    host.lost("full")
    assert says(host, WINDOW).left(host.now) >= 53


def test_unused_row_withholds_nothing_after_the_return_time_of_other_hosts(host: Host) -> None:
    long = Rule("basic", 60, 3600.0)
    policy = host.policies.get_policy(long, NAME)
    host._held.append(policy)
    policy.left(host.now)
    policy.charge(5)
    says(host, long, window=3600.0)
    host.others(long, 5)
    says(host, long, window=3600.0)
    host.lost("share")
    host.after(30.0)
    assert host.looked(long).held_back == 30
    host.found()
    assert host.looked(long).held_back == 25, "five of the other host's share are used"
    host.after(20.0)
    assert host.looked(long).held_back == 0
    assert len(host.shared) == 0, "the row is no longer active"
