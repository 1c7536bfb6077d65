"""Admission with limits that hosts share: requests that must wait for the hub, and reports of usage."""

from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.admission import (
    admit,
    can_afford,
    can_credits_cover,
    charge_reported_costs,
    find_blocking_gate,
    list_exhausted,
    notify_hosts,
    spend_credits,
)
from edgeproxy.edge.limits.counts import Counts
from edgeproxy.edge.limits.gate import Gate
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.quota import QuotaCounts
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.slots import Slots
from tests.support.tables import CUSTOMERS, QUOTAS, SHARED, close_all, limits, make

NOW = 5000.0
RULE = Rule("basic", 5, 60.0)
AT_ONCE = Rule("concurrency", 3, 0.0, "customer", "concurrency")


class Told:
    """A total of a row, with the number of its reports."""

    def __init__(self, counts: Slots | QuotaCounts, limit: int) -> None:
        self.counts, self.limit = counts, limit
        self.times = 0

    def used(self, now: float) -> None:
        self.times += 1


class Sharing:
    """Records the gates that would report to a supervisor."""

    def __init__(self) -> None:
        self.told: list[Gate] = []

    def gate(self, table: LimitTable, rule: Rule, subject: bytes, counts: Counts, mode: str) -> Gate:
        return Gate(table, counts, rule.depth or rule.limit, mode, self.told.append)

    def total(self, table: LimitTable, counts: Slots | QuotaCounts, limit: int) -> Told:
        return Told(counts, limit)


@pytest.fixture
def sharing() -> Sharing:
    return Sharing()


@pytest.fixture
def table(tmp_path: Path) -> Iterator[LimitTable]:
    table = limits(make(tmp_path, SHARED), 0)
    table.words[at.HOSTS] = 3
    yield table
    close_all()


@pytest.fixture
def policies(table: LimitTable, sharing: Sharing) -> Policies:
    return Policies(table, sharing=sharing)


@pytest.fixture
def terms(policies: Policies) -> LimitSet:
    policy = policies.get_policy(RULE, b"acme")
    gate = policies.gate(RULE, b"acme", "bounded")
    assert gate is not None
    slots = policies.get_concurrency(AT_ONCE, b"acme")
    total = policies.total(slots)
    assert total is not None
    return LimitSet((policy,), slots=(slots,), gates=((policy, gate),), totals=(total,))


def passes(terms: LimitSet) -> bool:
    """Return whether a request is admitted without waiting for the hub."""
    if find_blocking_gate(terms, NOW) is not None:
        return False
    refused, _, _, noted = admit(terms, NOW)
    notify_hosts(terms, NOW, refused, noted)
    return not refused


def test_a_request_beyond_the_unreported_share_waits_at_its_gate(terms: LimitSet) -> None:
    assert passes(terms)
    held = find_blocking_gate(terms, NOW)
    assert held == terms.traits.sharing.gates[0], "a fifth of the limit of five may pass unreported"


def test_an_admitted_request_is_reported(terms: LimitSet, sharing: Sharing) -> None:
    assert passes(terms)
    assert sharing.told == [terms.traits.sharing.gates[0][1]]
    (total,) = terms.traits.sharing.totals
    assert isinstance(total, Told)
    assert (total.times, total.limit) == (1, 3)
    assert total.counts.place == (terms.slots[0].counts.place)
    assert total.counts.place is not None


def test_a_request_without_room_is_refused_without_waiting(
    terms: LimitSet, table: LimitTable, sharing: Sharing
) -> None:
    table.words[at.HOSTS] = 1
    for _ in range(5):
        assert passes(terms)
        terms.release()
    table.words[at.HOSTS] = 3
    told = len(sharing.told)
    assert find_blocking_gate(terms, NOW + 1) is None
    assert admit(terms, NOW + 1)[0]
    notify_hosts(terms, NOW + 1, True)
    assert len(sharing.told) == told + 1
    assert terms.traits.sharing.gates[0][1].has_refused


def test_a_request_refused_by_another_limit_does_not_wait(policies: Policies, sharing: Sharing) -> None:
    wide, narrow = RULE, Rule("narrow", 1, 1.0)
    held = [(policies.get_policy(rule, b"acme"), policies.gate(rule, b"acme", "strict")) for rule in (wide, narrow)]
    gates = tuple([(policy, gate) for policy, gate in held if gate is not None])
    terms = LimitSet(tuple([policy for policy, _ in gates]), gates=gates)
    assert find_blocking_gate(terms, NOW) == gates[0]
    gates[1][0].left(NOW)
    gates[1][0].charge(1)
    assert find_blocking_gate(terms, NOW) is None
    assert admit(terms, NOW)[0]


def test_a_gate_knows_whether_the_table_has_its_row(terms: LimitSet, tmp_path: Path, sharing: Sharing) -> None:
    ((policy, gate),) = terms.traits.sharing.gates
    policy.left(NOW)
    assert gate.row


def test_a_refusal_by_concurrency_reports_its_slots(terms: LimitSet, table: LimitTable) -> None:
    """Other hosts may have released slots since, so a refusal must fetch their counts."""
    (total,) = terms.traits.sharing.totals
    assert isinstance(total, Told)
    table.words[at.HOSTS] = 1
    for _ in range(3):
        assert passes(terms)
    assert total.times == 3
    assert not passes(terms)
    assert total.times == 4
    for _ in range(3):
        terms.release()
    assert passes(terms)
    assert passes(terms)
    assert total.times == 6
    assert not passes(terms), "the limit is five"
    assert total.times == 6, "a limit with room causes no report"


def test_a_refusal_by_another_cause_is_not_reported(terms: LimitSet, sharing: Sharing) -> None:
    notify_hosts(terms, NOW, True)
    assert not sharing.told


def test_a_quota_has_a_total_to_report(tmp_path: Path, sharing: Sharing) -> None:
    table = limits(make(tmp_path, QUOTAS._replace(columns=5)), 0)
    policies = Policies(table, sharing=sharing)
    quota = policies.get_quota("requests-day", 10, "day", ZoneInfo("UTC"), b"acme", hard=True, when="answered")
    total = policies.total(quota)
    assert isinstance(total, Told)
    assert total.counts is quota.counts
    assert quota.counts.place is None
    assert quota.left(NOW) == 10
    assert quota.counts.place is not None
    close_all()


def test_a_slot_without_a_row_has_no_place(tmp_path: Path) -> None:
    slots = Policies(limits(make(tmp_path, CUSTOMERS), 0)).get_concurrency(AT_ONCE, b"acme").counts
    assert slots.place is None
    close_all()


def test_a_table_of_one_host_has_no_gates(tmp_path: Path, sharing: Sharing) -> None:
    policies = Policies(limits(make(tmp_path, CUSTOMERS), 0), sharing=sharing)
    policies.get_policy(RULE, b"acme")
    assert policies.gate(RULE, b"acme", "bounded") is None
    assert policies.total(policies.get_concurrency(AT_ONCE, b"acme")) is None
    policies.refresh_hosts()
    close_all()


@pytest.mark.parametrize(("hosts", "passed"), [(1, 30), (3, 10), (3 | at.AWAY, 10), (0, 30)])
def test_without_a_row_a_host_has_its_share_of_the_limit(
    tmp_path: Path, sharing: Sharing, hosts: int, passed: int
) -> None:
    table = limits(make(tmp_path, SHARED._replace(rows=1)), 0)
    policies = Policies(table, sharing=sharing)
    policies.get_policy(RULE, b"first").left(NOW)
    table.words[at.HOSTS] = hosts
    policies.refresh_hosts()
    policy = policies.get_policy(Rule("basic", 60, 60.0), b"second")
    count = 0
    while policy.left(NOW) >= 1:
        policy.charge(1)
        count += 1
    assert count == passed
    close_all()


# ---- the hub is unavailable


@pytest.fixture
def charged_later(policies: Policies) -> LimitSet:
    """A limit that is charged only reported costs."""
    policy = policies.get_policy(Rule("reported", 60, 60.0), b"acme")
    gate = policies.gate(Rule("reported", 60, 60.0), b"acme", "bounded")
    assert gate is not None
    return LimitSet(reported=(policy,), reporting_gates={policy: gate})


@pytest.mark.parametrize(("on_loss", "passed"), [(at.FULL, 60), (at.SHARE, 20), (at.DENY, 0)])
def test_without_the_hub_reported_costs_follow_on_loss(
    charged_later: LimitSet, table: LimitTable, on_loss: int, passed: int
) -> None:
    assert find_blocking_gate(charged_later, NOW) is None
    table.words[at.ON_LOSS] = on_loss
    table.words[at.HOSTS] |= at.AWAY
    count = 0
    while find_blocking_gate(charged_later, NOW) is None and not admit(charged_later, NOW)[0]:
        charge_reported_costs(charged_later, NOW, [1])
        count += 1
    assert count == passed
    if passed < 60:
        ((policy, gate),) = charged_later.traits.sharing.reporting_gates.items()
        assert find_blocking_gate(charged_later, NOW) == (policy, gate)
        assert gate.is_asking_useless(NOW)
        assert not can_credits_cover(charged_later, NOW, (policy,))


@pytest.mark.parametrize(("on_loss", "passed"), [(at.FULL, 3), (at.SHARE, 1), (at.DENY, 0)])
def test_without_the_hub_concurrency_follows_on_loss(
    terms: LimitSet, table: LimitTable, on_loss: int, passed: int
) -> None:
    table.words[at.ON_LOSS] = on_loss
    table.words[at.HOSTS] |= at.AWAY
    (slots,) = terms.slots
    assert [slots.acquire(NOW) for _ in range(5)].count(True) == passed
    assert slots.retry_after(NOW) > 0
    if passed:
        slots.release()
        assert slots.retry_after(NOW) == 0


# ---- burst credits

CREDITS = Rule("burst-credits", 6, 60.0, "customer", "burst_credits", depth=20)
ROUTE = Rule("route", 100, 60.0, "customer_route")


class Stand:
    """A plan's limit with burst credits, and a route's limit, on one of three hosts without reports from the others."""

    def __init__(self, policies: Policies, sharing: Sharing, mode: str = "bounded", plan: Rule = RULE) -> None:
        self.sharing = sharing
        self.plan, self.route = policies.get_policy(plan, b"acme"), policies.get_policy(ROUTE, b"acme")
        self.credits = policies.get_policy(CREDITS, b"acme")
        gates = [policies.gate(rule, b"acme", mode) for rule in (plan, ROUTE, CREDITS)]
        self.gates = [gate for gate in gates if gate is not None]
        self.terms = LimitSet(
            (self.plan, self.route),
            plan_policies=1,
            credits=self.credits,
            credits_gate=self.gates[2],
            gates=((self.plan, self.gates[0]), (self.route, self.gates[1])),
        )

    def uses_up(self, *policies: Policy) -> None:
        """Use up policies as if other hosts had done it: all of the usage is reported."""
        for policy in policies:
            policy.left(NOW)
            policy.charge(policy.left(NOW))
        for gate in self.gates:
            if gate.row:
                self.told(gate)

    def told(self, gate: Gate) -> None:
        """Mark all counts as acknowledged by the hub."""
        words, row = gate._words, gate.row
        words[row + at.ROW_ACKNOWLEDGED] = words[row + gate._counts.window.cum_at]

    def left(self) -> list[int]:
        return [policy.left(NOW) for policy in (self.plan, self.route, self.credits)]


@pytest.fixture
def stand(policies: Policies, sharing: Sharing) -> Stand:
    stand = Stand(policies, sharing)
    assert stand.left() == [5, 100, 20]
    return stand


def test_within_the_limit_no_credits_are_claimed(stand: Stand) -> None:
    assert find_blocking_gate(stand.terms, NOW) is None
    assert passes(stand.terms)
    assert stand.left() == [4, 99, 20]
    assert find_blocking_gate(stand.terms, NOW) == (stand.plan, stand.gates[0]), "the plan's gate comes first"


def test_beyond_the_limit_credits_are_claimed(stand: Stand) -> None:
    stand.uses_up(stand.plan)
    stand.sharing.told.clear()
    assert passes(stand.terms)
    assert passes(stand.terms)
    assert stand.left() == [0, 98, 18]
    assert stand.sharing.told == [stand.gates[1], stand.gates[2]], (
        "the plan's limit was not charged, so it is not reported"
    )
    assert find_blocking_gate(stand.terms, NOW) == (stand.credits, stand.gates[2]), "two of twenty may pass unreported"
    words = stand.gates[2]._words
    words[stand.gates[2].row + stand.gates[2]._own + at.GIVEN] += 1
    assert passes(stand.terms)
    assert stand.gates[2].unspent_claims == 0


def test_credits_pay_when_the_hub_has_no_claims_left(stand: Stand) -> None:
    stand.uses_up()
    assert passes(stand.terms)
    assert find_blocking_gate(stand.terms, NOW) == (stand.plan, stand.gates[0])
    shut = (stand.plan,)
    assert can_credits_cover(stand.terms, NOW, shut)
    assert find_blocking_gate(stand.terms, NOW, shut) is None
    refused, shown, left, noted = admit(stand.terms, NOW, shut)
    assert (refused, shown, left) == (False, stand.plan, 0)
    assert noted is not None
    assert noted.paid == shut
    notify_hosts(stand.terms, NOW, refused, noted)
    assert stand.left() == [4, 98, 19]
    assert admit(stand.terms, NOW, shut)[0] is False
    # Claims that arrive later are for other requests. A request that pays waits for claims of credits.
    words = stand.gates[0]._words
    words[stand.gates[0].row + stand.gates[0]._own + at.GIVEN] += 1
    assert find_blocking_gate(stand.terms, NOW) is None
    assert find_blocking_gate(stand.terms, NOW, shut) == (stand.credits, stand.gates[2])


def test_a_request_without_credits_is_refused_and_reported(stand: Stand) -> None:
    stand.uses_up(stand.plan, stand.credits)
    stand.sharing.told.clear()
    assert find_blocking_gate(stand.terms, NOW) is None
    assert admit(stand.terms, NOW)[0]
    notify_hosts(stand.terms, NOW, True)
    assert [gate.has_refused for gate in stand.gates] == [True, False, True]
    assert stand.sharing.told == [stand.gates[0], stand.gates[2]]


def test_unused_credits_do_not_count_as_refusing(stand: Stand) -> None:
    stand.uses_up(stand.plan, stand.route)
    assert find_blocking_gate(stand.terms, NOW) is None, "credits are not for routes' limits"
    assert list_exhausted(stand.terms, NOW) == (stand.plan, stand.route)
    assert admit(stand.terms, NOW)[0]
    notify_hosts(stand.terms, NOW, True)
    assert [gate.has_refused for gate in stand.gates] == [True, True, False]


@pytest.mark.parametrize("alone", [False, True])
def test_without_the_hub_and_with_deny_credits_buy_nothing(
    policies: Policies, sharing: Sharing, table: LimitTable, alone: bool
) -> None:
    stand = Stand(policies, sharing)
    terms = LimitSet(credits=stand.credits, credits_gate=stand.gates[2])
    assert can_afford(terms, NOW, alone=alone)
    table.words[at.HOSTS] |= at.AWAY
    table.words[at.ON_LOSS] = at.DENY
    assert not can_afford(terms, NOW, alone=alone)
    assert find_blocking_gate(stand.terms, NOW) == (stand.plan, stand.gates[0])
    assert find_blocking_gate(stand.terms, NOW, (stand.plan,)) == (stand.route, stand.gates[1])
    stand.uses_up(stand.plan)
    stand.gates[1].mode = "strict"
    words, gate = table.words, stand.gates[1]
    words[gate.row + gate._own + at.GIVEN] += 1
    assert find_blocking_gate(stand.terms, NOW) == (stand.credits, stand.gates[2])


def test_other_limits_are_claimed_before_credits(stand: Stand) -> None:
    stand.uses_up(stand.plan)
    stand.gates[1].mode = "strict"
    assert find_blocking_gate(stand.terms, NOW) == (stand.route, stand.gates[1])


def test_credits_are_spent_without_waiting_while_load_is_shed(policies: Policies, sharing: Sharing) -> None:
    credits = policies.get_policy(CREDITS, b"acme")
    gate = policies.gate(CREDITS, b"acme", "bounded")
    assert gate is not None
    terms = LimitSet(credits=credits, credits_gate=gate)
    assert terms.traits.shares
    assert spend_credits(terms, NOW)
    assert sharing.told == [gate]
    assert spend_credits(terms, NOW)
    assert not can_afford(terms, NOW)
    assert not spend_credits(terms, NOW)
    assert spend_credits(terms, NOW, alone=True), "this host decides alone"
    gate.mode = "strict"
    assert not can_afford(terms, NOW, alone=True)
    assert credits.left(NOW) == 17


# ---- reported costs, and shadow limits


@pytest.fixture
def later(policies: Policies) -> LimitSet:
    """A limit with reported costs, a shadow limit, and a shadow limit with reported costs."""
    rules = [
        Rule(name, 5, 60.0, scope, mode=mode)
        for name, scope, mode in (
            ("tokens", "customer", "enforce"),
            ("trial", "customer", "shadow"),
            ("tokens-trial", "key", "shadow"),
        )
    ]
    made = [policies.get_policy(rule, b"acme") for rule in rules]
    gates = [policies.gate(rule, b"acme", "eventual") for rule in rules]
    told = {policy: gate for policy, gate in zip(made, gates, strict=True) if gate is not None}
    return LimitSet(reported=(made[0],), shadows=(made[1],), trials=(made[2],), reporting_gates=told)


def test_reported_costs_are_reported_when_they_are_charged(later: LimitSet, sharing: Sharing) -> None:
    reported, shadow, trial = [
        later.traits.sharing.reporting_gates[each]
        for each in (
            *later.traits.other_rates.reported,
            *later.traits.other_rates.shadows,
            *later.traits.other_rates.trials,
        )
    ]
    assert passes(later)
    assert sharing.told == [shadow, reported, trial], "the usage of other hosts must be known by the time of the charge"
    assert [gate.has_refused for gate in (reported, shadow, trial)] == [True, False, True]
    for gate in (reported, shadow, trial):
        words = gate._words
        words[gate.row + gate._heads + at.WARM_UNTIL] = int(NOW * 1000) + 3000
        words[gate.row + gate._heads + at.THRESHOLDS] = 4
        gate._quiet_until = 0.0
    sharing.told.clear()
    assert passes(later)
    assert sharing.told == [], "the usage of other hosts is known"
    charge_reported_costs(later, NOW, [3, 0])
    assert sharing.told == [], "the usage is below the threshold of a report"
    charge_reported_costs(later, NOW, [1, 4])
    assert sharing.told == [reported, trial]


def test_a_refusal_by_reported_costs_fetches_the_usage_of_other_hosts(later: LimitSet, sharing: Sharing) -> None:
    assert passes(later)
    notify_hosts(later, NOW, True)
    reported = later.traits.sharing.reporting_gates[later.traits.other_rates.reported[0]]
    reported.has_refused = False
    notify_hosts(later, NOW, True)
    assert not reported.has_refused, "the limit has not refused a request"
    charge_reported_costs(later, NOW, [9, 0])
    assert not passes(later)
    assert reported.has_refused


def test_a_shadow_limit_without_room_reports_nothing(later: LimitSet, sharing: Sharing) -> None:
    shadow = later.traits.sharing.reporting_gates[later.traits.other_rates.shadows[0]]
    for _ in range(5):
        shadow._quiet_until = 0.0
        assert passes(later)
    shadow._quiet_until = 0.0
    sharing.told.clear()
    assert passes(later)
    assert shadow not in sharing.told


def test_a_limit_without_a_row_reports_nothing(tmp_path: Path, sharing: Sharing) -> None:
    table = limits(make(tmp_path, SHARED._replace(rows=1)), 0)
    policies = Policies(table, sharing=sharing)
    policies.get_policy(RULE, b"first").left(NOW)
    tokens = policies.get_policy(RULE, b"second")
    gate = policies.gate(RULE, b"second", "eventual")
    assert gate is not None
    terms = LimitSet(reported=(tokens,), reporting_gates={tokens: gate})
    assert passes(terms)
    charge_reported_costs(terms, NOW, [3])
    assert sharing.told == []
    close_all()
