"""Burst credits and reported costs on hosts that share a hub, with real tables, gates and planner."""

from pathlib import Path

import pytest

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.hub_column import OnLoss
from edgeproxy.edge.limits.admission import (
    admit,
    can_credits_cover,
    charge_reported_costs,
    find_blocking_gate,
    notify_hosts,
)
from edgeproxy.edge.limits.gate import WAIT_SECONDS_MAX, Gate
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.rate_terms import Mode, RateTerms, build_terms
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.sync.shared import RowUse
from tests.support.hosts import LAYOUT, NEWS, WORKERS, Host, World
from tests.support.tables import limits

MINUTE = 60.0
LIMIT = 60
EARNED, MOST = 30, 90
"""Credits earned a minute, and the highest balance."""
BASIC = Rule("basic", LIMIT, MINUTE)
CREDITS = Rule("burst-credits", EARNED, MINUTE, "customer", "burst_credits", depth=MOST)
SUBJECT = b"acme"


class Waiting:
    """A request waiting at a gate."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.shut: tuple[object, ...] = ()


class Customers:
    """A worker that applies a customer's limits as the proxy does. It replaces hosts.Worker."""

    def __init__(self, host: Host, column: int, mode: Mode, cost: int = 1) -> None:
        self.host, self.world = host, host.world
        self.table = limits(host.path, column)
        policies = Policies(self.table, hosts=host.count)
        self.said: dict[Gate, RateTerms] = {}
        basic, credits = policies.get_policy(BASIC, SUBJECT, cost), policies.get_policy(CREDITS, SUBJECT, cost)
        gates = [self.gate(rule, mode) for rule in (BASIC, CREDITS)]
        self.terms = LimitSet(
            (basic,), plan_policies=1, credits=credits, credits_gate=gates[1], gates=((basic, gates[0]),)
        )
        self.waiting: list[tuple[Gate, Waiting]] = []

    def gate(self, rule: Rule, mode: Mode) -> Gate:
        """Return the gate of a rule's row, and store the terms that its reports carry."""
        counts = self.table.readers[rule.key(SUBJECT)]
        terms = build_terms(rule, LAYOUT.cells, mode)
        gate = Gate(self.table, counts, terms.most, mode, self.notify_hosts)  # type: ignore[arg-type]
        self.said[gate] = terms
        return gate

    def notify_hosts(self, gate: Gate) -> None:
        words = self.table.words
        use = RowUse(gate.row, words[gate.row + at.ROW_GENERATION], self.said[gate], gate.has_refused)
        gate.has_refused = False
        self.world.later(NEWS, self.host.told_by_worker, use)

    def request(self, one: Waiting | None = None) -> None:
        """Decide on a request as Exchange.admit and Exchange.ask do."""
        world, now, terms = self.world, self.world.now, self.terms
        if one is None:
            world.asked += 1
            one = Waiting(now)
        shut = one.shut
        while (held := find_blocking_gate(terms, now, shut)) is not None:  # type: ignore[arg-type]
            policy, gate = held
            left = one.since + WAIT_SECONDS_MAX[gate.mode] - now
            if left > 1e-9 and not gate.is_asking_useless(now) and gate.waiting < policy.left(now):
                self.waiting.append((gate, one))
                gate.add_waiting(policy.cost)
                world.later(left, self.over, gate, one)
                one.shut = shut
                return
            gate.record_refusal(now)
            if policy is terms.traits.credits or not can_credits_cover(terms, now, (policy,)):
                world.refused += 1
                return
            shut = (*shut, policy)
        refused, _, _, noted = admit(terms, now, shut)  # type: ignore[arg-type]
        notify_hosts(terms, now, refused, noted)
        world.refused += refused
        if not refused:
            world.passed.append(now)
            if now > one.since:
                world.waits.append(now - one.since)

    def over(self, gate: Gate, one: Waiting) -> None:
        if (gate, one) in self.waiting:
            self.waiting.remove((gate, one))
            gate.remove_waiting(self.terms.policies[0].cost)
            self.request(one)

    def heard(self) -> None:
        """Retry the waiting requests after the supervisor has written an answer."""
        waiting, self.waiting = self.waiting, []
        for gate, one in waiting:
            gate.remove_waiting(self.terms.policies[0].cost)
            self.request(one)


def world_of(folder: Path, seed: int, mode: Mode, on_loss: OnLoss = "share") -> World:
    world = World(folder, seed, on_loss=on_loss)
    for host in world.hosts:
        host.workers = [Customers(host, column, mode) for column in range(WORKERS)]  # type: ignore[misc]
    return world


def load(world: World, begin: float, end: float, rate: float, hosts: slice = slice(None)) -> None:
    """Schedule random requests, `rate` a second over all workers of these hosts."""
    workers = [worker for host in world.hosts[hosts] for worker in host.workers]
    for worker in workers:
        moment = begin
        while (moment := moment + world.random.expovariate(rate / len(workers))) < end:
            world.later(moment, worker.request)


def is_within(world: World, most: float = 1.0) -> None:
    """Assert that in no period more has passed than `most` times the allowance of limit and credits."""
    for seconds in (1.0, 5.0, 20.0, MINUTE):
        assert world.worst(seconds) <= most * (LIMIT + MOST + EARNED * seconds / MINUTE), seconds


@pytest.mark.parametrize(("mode", "most"), [("bounded", 1.1), ("strict", 1.0)])
def test_credits_are_spent_once_over_all_hosts(tmp_path: Path, seed: int, mode: Mode, most: float) -> None:
    world = world_of(tmp_path, seed, mode)
    load(world, 0, 120, 12)
    world.run(121)
    is_within(world, most)
    assert world.worst(MINUTE) >= 0.9 * (LIMIT + MOST + EARNED)
    # The second minute has the limit and the newly earned credits again.
    assert len(world.passed) >= 0.9 * (2 * LIMIT + MOST + 2 * EARNED)
    assert len(world.waits) < (0.05 if mode == "bounded" else 0.3) * world.asked


@pytest.mark.parametrize(("mode", "most"), [("bounded", 1.25), ("strict", 1.0)])
def test_a_burst_on_all_idle_hosts_stays_within_limit_and_credits(
    tmp_path: Path, seed: int, mode: Mode, most: float
) -> None:
    world = world_of(tmp_path, seed, mode)
    # When the burst starts, hosts may hold claims, and earlier usage has drained.
    load(world, 0, 2, 3)
    load(world, 10, 12, 1000)
    world.run(20)
    is_within(world, most)
    assert world.worst(MINUTE) >= 0.9 * (LIMIT + MOST)
    assert max(world.waits) <= WAIT_SECONDS_MAX[mode]


@pytest.mark.parametrize(
    ("on_loss", "least", "most", "beyond"), [("share", 100, 190, 1.3), ("deny", 0, 30, 1.1), ("full", 100, 240, 1.5)]
)
def test_without_the_hub_each_host_applies_on_loss(
    tmp_path: Path, seed: int, on_loss: OnLoss, least: int, most: int, beyond: float
) -> None:
    world = world_of(tmp_path, seed, "bounded", on_loss)
    load(world, 0, 160, 6)
    world.run(5)
    before = len(world.passed)
    world.linked = False
    world.run(30)
    during = len(world.passed) - before
    assert least <= during <= most
    # Afterwards all hosts know the credits spent without the hub, each once and none that was not spent.
    world.linked = True
    world.run(125)
    after = len(world.passed) - before - during
    allowed = (160 * LIMIT + 160 * EARNED) / MINUTE + MOST
    lost = 30 * LIMIT / MINUTE if on_loss == "deny" else 0
    assert 0.85 * (allowed - lost) <= before + during + after <= beyond * allowed


def test_hosts_report_again_to_a_hub_that_lost_its_data(tmp_path: Path, seed: int) -> None:
    world = world_of(tmp_path, seed, "bounded")
    load(world, 0, 100, 12)
    for moment in (10, 30, 50):
        world.later(moment, world.hub.forget)
    world.run(100)
    is_within(world, 1.15)
    assert len(world.passed) >= 0.9 * (MOST + (LIMIT + EARNED) * 100 / MINUTE)


# ---- reported costs

TOKENS = Rule("tokens", 100_000, MINUTE)
TAKES = 0.2
"""Seconds after which a response reports its cost."""


class Reporting(Customers):
    """A worker with a limit that is charged reported costs."""

    def __init__(self, host: Host, column: int) -> None:
        self.host, self.world = host, host.world
        self.table = limits(host.path, column)
        policies = Policies(self.table, hosts=host.count)
        self.said = {}
        tokens = policies.get_policy(TOKENS, SUBJECT)
        self.terms = LimitSet(reported=(tokens,), reporting_gates={tokens: self.gate(TOKENS, "eventual")})
        self.waiting = []
        self.spent: list[tuple[float, int]] = []

    def asks(self, cost: int) -> None:
        before = len(self.world.passed)
        self.request()
        if len(self.world.passed) > before:
            self.world.later(TAKES, self.answered, cost)

    def answered(self, cost: int) -> None:
        self.spent.append((self.world.now, cost))
        charge_reported_costs(self.terms, self.world.now, [cost])


def reporting(folder: Path, seed: int) -> tuple[World, list[Reporting]]:
    """Return a world of two hosts, each 80 ms from the hub, and their workers."""
    world = World(folder, seed, (0.08, 0.08))
    workers = []
    for host in world.hosts:
        host.workers = [Reporting(host, column) for column in range(WORKERS)]  # type: ignore[misc]
        workers += host.workers
    return world, workers  # type: ignore[return-value]


def spent_in(workers: list[Reporting], seconds: float) -> int:
    """Return the highest sum of charges in any period of this length."""
    charges = sorted([charge for worker in workers for charge in worker.spent])
    return max(sum(cost for at_, cost in charges if since <= at_ < since + seconds) for since, _ in charges)


def test_reported_costs_count_on_all_hosts(tmp_path: Path, seed: int) -> None:
    world, workers = reporting(tmp_path, seed)
    rate = 50
    for worker in workers:
        moment = 0.0
        while (moment := moment + world.random.expovariate(rate / len(workers))) < 90:
            world.later(moment, worker.asks, world.random.randint(1, 1000))
    world.run(91)
    assert world.waits == []
    worst = spent_in(workers, MINUTE)
    # The excess consists of requests in progress and of charges that have not yet reached the other host.
    beyond = rate * (TAKES + 0.25) * 1000
    assert TOKENS.limit <= worst <= TOKENS.limit + beyond
    assert sum(cost for worker in workers[:WORKERS] for _, cost in worker.spent) > TOKENS.limit / 4
    assert sum(cost for worker in workers[WORKERS:] for _, cost in worker.spent) > TOKENS.limit / 4


def test_a_debt_on_one_host_refuses_requests_on_all(tmp_path: Path, seed: int) -> None:
    world, (one, _, other, _) = reporting(tmp_path, seed)
    one.asks(3 * TOKENS.limit)
    world.later(0.5, other.asks, 1)
    world.later(0.6, other.asks, 1)
    world.later(30, other.asks, 1)
    world.later(66, other.asks, 1)
    world.run(29)
    assert len(world.passed) == 2, "the other host's first request passed before a report arrived"
    world.run(10)
    assert (len(world.passed), world.refused) == (2, 2)
    world.run(40)
    assert (len(world.passed), world.refused) == (3, 2)
