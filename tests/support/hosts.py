"""A simulation of hosts on one hub, event by event in simulated time, over real tables, policies and gates."""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from edgeproxy.edge.counters import claims
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.hub_column import ON_LOSS, OnLoss
from edgeproxy.edge.counters.layout import HEAD_WORDS, KEYS_APART, Layout
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.gate import WAIT_SECONDS_MAX, Gate
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.rate_terms import Mode, RateTerms
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.sync.shared import RowUse, SharedRate, SharedRates
from edgeproxy.hub.report import ReportAnswer
from loadtest.testbed.memory_hub import Memory
from loadtest.testbed.windows import most_in_a_window
from tests.support.tables import limits, make

ROUND_TRIPS = (0.001, 0.080, 0.150)
WORKERS = 2
LAYOUT = Layout("customers", rows=64, columns=2 * WORKERS + 1, ring=32, cells=28, width=HEAD_WORDS, parts=KEYS_APART)
NEWS = 0.0005
"""Seconds of a message between a worker and its supervisor."""
DEADLINE = 1.0
LOOK = 0.25
"""Seconds between two searches for unused claims."""


class World:
    """The hub, the network and the clock. Edge time is `now`."""

    def __init__(self, folder: Path, seed: int, round_trips: Sequence[float] = ROUND_TRIPS, on_loss: OnLoss = "share"):
        self.random = random.Random(seed)
        self.now = 50_000_000.0 + self.random.random() * 100
        self.hub = Memory()
        self.linked = True
        self.passed: list[float] = []
        self.waits: list[float] = []
        self.asked = self.refused = 0
        self.on_loss = on_loss
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._count = itertools.count()
        self.hosts = [Host(self, folder / str(of), of + 1, rtt, len(round_trips)) for of, rtt in enumerate(round_trips)]

    def later(self, seconds: float, then: Callable[..., None], *given: object) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._count), then, given))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._events and self._events[0][0] <= until:
            self.now, _, then, given = heapq.heappop(self._events)
            then(*given)
        self.now = until

    def load(self, worker: "Worker", rule: Rule, mode: Mode, begin: float, end: float, rate: float) -> None:
        """Schedule random requests, `rate` per second, between two times from now."""
        at_ = begin
        while (at_ := at_ + self.random.expovariate(rate)) < end:
            self.later(at_, worker.request, rule, mode)

    def worst(self, window: float) -> int:
        """Return the most requests that passed in any window."""
        return most_in_a_window(self.passed, window)


class Host:
    """A supervisor that syncs, and its workers. Each worker has opened the table separately."""

    def __init__(self, world: World, folder: Path, instance: int, rtt: float, hosts: int) -> None:
        folder.mkdir()
        self.world, self.rtt = world, rtt
        self.path = make(folder, LAYOUT)
        self.instance = instance
        self.starts = itertools.count(1)
        self.table = limits(self.path)
        self.count = hosts
        self.back_at = 0.0
        """The time until the supervisor can find a lost hub again."""
        self.workers = [Worker(self, column) for column in range(WORKERS)]
        self.begin()

    def begin(self) -> None:
        """Start the supervisor, perhaps after another one."""
        self.seqs = itertools.count(next(self.starts) << 32)
        self.shared = SharedRates(self.table, self.instance, self.world.random)
        self.shared.hosts, self.shared.rtt = self.count, self.rtt
        self.table.words[at.ON_LOSS] = ON_LOSS[self.world.on_loss]
        self.table.words[at.HOSTS] = self.count
        self.away = False
        self.connection = object()
        self.wakes_at: float | None = None
        self.under_way: deque[float] = deque()
        self.world.later(LOOK, self.look, self.shared)

    def look(self, shared: SharedRates) -> None:
        """Return unused claims."""
        if shared is self.shared:
            for row, _ in shared.list_unused_claims(self.world.now):
                for worker in self.workers:
                    self.world.later(NEWS, claims.return_claims, worker.table, row)
            self.wake_when_due()
            self.world.later(LOOK, self.look, shared)

    def told_by_worker(self, use: RowUse) -> None:
        self.shared.record_use(use, self.world.now)
        if self.away:
            self.shared.hold_next_rows(self.world.now, self.world.on_loss)
        self.wake_when_due()

    def wake_when_due(self) -> None:
        due = self.shared.find_next_due()
        if due is not None and (self.wakes_at is None or due < self.wakes_at):
            self.wakes_at = due
            self.world.later(max(0.0, due - self.world.now), self.wake, due, self.connection)

    def wake(self, at_: float, connection: object) -> None:
        if self.wakes_at != at_ or connection is not self.connection or self.away:
            return
        self.wakes_at = None
        for row, report in self.shared.build_reports(self.world.now, self.seqs):
            self.under_way.append(self.world.now)
            self.world.later(DEADLINE, self.overdue, self.world.now, connection)
            self.world.later(self.rtt / 2, self.at_hub, row, report, connection)
        self.wake_when_due()

    def at_hub(self, row: SharedRate, report: object, connection: object) -> None:
        if self.world.linked:
            told = self.world.hub.report(report)  # type: ignore[arg-type]
            self.world.later(self.rtt / 2, self.answered, row, report.seq, told, connection)  # type: ignore[attr-defined]

    def answered(self, row: SharedRate, seq: int, told: ReportAnswer, connection: object) -> None:
        if not self.world.linked or connection is not self.connection:
            return
        self.under_way.popleft()
        self.shared.apply_answer(row, self.world.now, seq, told)
        for worker in self.workers:
            self.world.later(NEWS, worker.heard)
        self.wake_when_due()

    def overdue(self, sent: float, connection: object) -> None:
        if connection is self.connection and self.under_way and self.under_way[0] <= sent:
            self.away = True
            self.connection = object()
            self.under_way.clear()
            self.table.words[at.HOSTS] = self.count | at.AWAY
            self.shared.hold_next_rows(self.world.now, self.world.on_loss)
            for worker in self.workers:
                self.world.later(NEWS, worker.heard)
            self.world.later(0.5, self.probe)

    def probe(self) -> None:
        if self.world.linked and self.world.now >= self.back_at:
            self.away = False
            self.wakes_at = None
            self.table.words[at.HOSTS] = self.count
            self.shared.resume()
            self.wake_when_due()
        else:
            self.shared.hold_next_rows(self.world.now, self.world.on_loss)
            self.world.later(0.5, self.probe)


class Worker:
    """A worker: the code of edge/proxy/ for limits, without requests."""

    def __init__(self, host: Host, column: int) -> None:
        self.host, self.world = host, host.world
        self.table: LimitTable = limits(host.path, column)
        self.policies = Policies(self.table, hosts=host.count)
        self.gates: dict[bytes, Gate] = {}
        self.terms: dict[bytes, RateTerms] = {}
        self.rules: dict[bytes, Rule] = {}
        self.waiting: dict[bytes, deque[float]] = {}

    def request(self, rule: Rule, mode: Mode, since: float | None = None) -> None:
        now = self.world.now
        if since is None:
            self.world.asked += 1
        policy = self.policies.get_policy(rule, b"acme")
        left = policy.left(now)
        key = rule.stem
        gate = self.gates.get(key)
        if gate is None:
            counts = self.table.readers[rule.key(b"acme")]
            gate = self.gates[key] = Gate(self.table, counts, policy.most, mode, self.tell)  # type: ignore[arg-type]
            cells = LAYOUT.cells if rule.algorithm != "token_bucket" else 0
            self.terms[key] = RateTerms(
                rule.limit, rule.window, cells, rule.depth, rule.limit / rule.window if rule.depth else 0.0, mode
            )
            self.waiting[key] = deque()
            self.rules[key] = rule
        if left < 1:
            self.refuse(gate)
        elif gate.must_ask(now, 1, left):
            if gate.is_asking_useless(now) or len(self.waiting[key]) >= left:
                self.refuse(gate)
            else:
                self.waiting[key].append(now if since is None else since)
                gate.add_waiting(1)
                self.world.later(WAIT_SECONDS_MAX[mode], self.give_up, rule, self.waiting[key][-1], gate)
        else:
            policy.charge(1)
            gate.record_charge(now, 1)
            self.world.passed.append(now)
            if since is not None:
                self.world.waits.append(now - since)

    def refuse(self, gate: Gate) -> None:
        self.world.refused += 1
        gate.record_refusal(self.world.now)

    def give_up(self, rule: Rule, since: float, gate: Gate) -> None:
        if since in self.waiting[rule.stem]:
            self.waiting[rule.stem].remove(since)
            gate.remove_waiting(1)
            self.refuse(gate)

    def tell(self, gate: Gate) -> None:
        key = next(key for key, one in self.gates.items() if one is gate)
        words = self.table.words
        use = RowUse(gate.row, words[gate.row + at.ROW_GENERATION], self.terms[key], gate.has_refused)
        gate.has_refused = False
        self.world.later(NEWS, self.host.told_by_worker, use)

    def heard(self) -> None:
        """The supervisor has written an answer, so waiting requests decide again."""
        for key, waiting in self.waiting.items():
            gate = self.gates[key]
            rule = self.rules[key]
            policy = self.policies.get_policy(rule, b"acme")
            now = self.world.now
            while waiting:
                left = policy.left(now)
                if left < 1 or (gate.must_ask(now, 1, left) and gate.is_asking_useless(now)):
                    waiting.popleft()
                    gate.remove_waiting(1)
                    self.refuse(gate)
                elif gate.must_ask(now, 1, left):
                    break
                else:
                    since = waiting.popleft()
                    policy.charge(1)
                    gate.record_charge(now, 1)
                    gate.remove_waiting(1)
                    self.world.passed.append(now)
                    self.world.waits.append(now - since)
