"""What admission does where other hosts share the limits: who must ask, and who is told."""

from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from edgeproxy.counters import layout as at
from edgeproxy.counters.rows import LimitTable
from edgeproxy.limits.admission import Terms, admit, held_up, tell
from edgeproxy.limits.counts import Counts
from edgeproxy.limits.gate import Gate
from edgeproxy.limits.policies import Policies
from edgeproxy.limits.quota import QuotaCounts
from edgeproxy.limits.rule import Rule
from edgeproxy.limits.slots import Slots
from tests.counters.tables import PEOPLE, QUOTAS, close_all, limits, make

NOW = 5000.0
RULE = Rule("basic", 5, 60.0)
AT_ONCE = Rule("concurrency", 3, 0.0, "customer", "concurrency")


class Told:
    """One number of a row, and how often it was told."""

    def __init__(self, counts: Slots | QuotaCounts, limit: int) -> None:
        self.counts, self.limit = counts, limit
        self.times = 0

    def used(self, now: float) -> None:
        self.times += 1


class Sharing:
    """Who would tell a supervisor."""

    def __init__(self) -> None:
        self.told: list[Gate] = []

    def gate(self, table: LimitTable, rule: Rule, subject: bytes, counts: Counts, mode: str) -> Gate:
        return Gate(table, counts, rule.limit, mode, self.told.append)

    def total(self, table: LimitTable, counts: Slots | QuotaCounts, limit: int) -> Told:
        return Told(counts, limit)


@pytest.fixture
def sharing() -> Sharing:
    return Sharing()


@pytest.fixture
def table(tmp_path: Path) -> Iterator[LimitTable]:
    table = limits(make(tmp_path, PEOPLE._replace(columns=5)), 0)
    table.words[at.HOSTS] = 3
    yield table
    close_all()


@pytest.fixture
def policies(table: LimitTable, sharing: Sharing) -> Policies:
    return Policies(table, sharing=sharing)


@pytest.fixture
def terms(policies: Policies) -> Terms:
    policy = policies.of(RULE, b"acme")
    gate = policies.gate(RULE, b"acme", "bounded")
    assert gate is not None
    slots = policies.concurrency(AT_ONCE, b"acme")
    total = policies.total(slots)
    assert total is not None
    return Terms((policy,), slots=(slots,), gates=((policy, gate),), totals=(total,))


def passes(terms: Terms) -> bool:
    """Whether a request passes without asking, and is admitted then."""
    if held_up(terms, NOW) is not None:
        return False
    refused = admit(terms, NOW)[0]
    tell(terms, NOW, refused=refused)
    return not refused


def test_who_must_ask_is_held_up_at_its_gate(terms: Terms) -> None:
    assert passes(terms)
    held = held_up(terms, NOW)
    assert held == terms.gates[0], "a fifth of a limit of five is all that passes unheard"


def test_what_passes_is_told(terms: Terms, sharing: Sharing) -> None:
    assert passes(terms)
    assert sharing.told == [terms.gates[0][1]]
    (total,) = terms.totals
    assert isinstance(total, Told)
    assert (total.times, total.limit) == (1, 3)
    assert total.counts.place == (terms.slots[0].counts.place)
    assert total.counts.place is not None


def test_who_has_no_room_is_refused_without_asking(terms: Terms, table: LimitTable, sharing: Sharing) -> None:
    table.words[at.HOSTS] = 1
    for _ in range(5):
        assert passes(terms)
        terms.release()
    table.words[at.HOSTS] = 3
    told = len(sharing.told)
    assert held_up(terms, NOW + 1) is None
    assert admit(terms, NOW + 1)[0]
    tell(terms, NOW + 1, refused=True)
    assert len(sharing.told) == told + 1
    assert terms.gates[0][1].has_refused


def test_who_is_refused_by_another_limit_does_not_ask(policies: Policies, sharing: Sharing) -> None:
    wide, narrow = RULE, Rule("narrow", 1, 1.0)
    held = [(policies.of(rule, b"acme"), policies.gate(rule, b"acme", "strict")) for rule in (wide, narrow)]
    gates = tuple([(policy, gate) for policy, gate in held if gate is not None])
    terms = Terms(tuple([policy for policy, _ in gates]), gates=gates)
    assert held_up(terms, NOW) == gates[0]
    gates[1][0].left(NOW)
    gates[1][0].charge(1)
    assert held_up(terms, NOW) is None
    assert admit(terms, NOW)[0]


def test_a_gate_knows_whether_the_table_has_its_row(terms: Terms, tmp_path: Path, sharing: Sharing) -> None:
    ((policy, gate),) = terms.gates
    policy.left(NOW)
    assert not gate.is_local


def test_a_refusal_by_something_else_is_not_the_gates(terms: Terms, sharing: Sharing) -> None:
    tell(terms, NOW, refused=True)
    assert not sharing.told


def test_quotas_are_told(tmp_path: Path, sharing: Sharing) -> None:
    table = limits(make(tmp_path, QUOTAS._replace(columns=5)), 0)
    policies = Policies(table, sharing=sharing)
    quota = policies.quota("requests-day", 10, "day", ZoneInfo("UTC"), b"acme", hard=True, when="answered")
    total = policies.total(quota)
    assert isinstance(total, Told)
    assert total.counts is quota.counts
    assert quota.counts.place is None
    assert quota.left(NOW) == 10
    assert quota.counts.place is not None
    close_all()


def test_a_slot_without_a_row_has_no_place(tmp_path: Path) -> None:
    slots = Policies(limits(make(tmp_path, PEOPLE), 0)).concurrency(AT_ONCE, b"acme").counts
    assert slots.place is None
    close_all()


def test_who_shares_with_nobody_has_no_gates(tmp_path: Path, sharing: Sharing) -> None:
    policies = Policies(limits(make(tmp_path, PEOPLE), 0), sharing=sharing)
    policies.of(RULE, b"acme")
    assert policies.gate(RULE, b"acme", "bounded") is None
    assert policies.total(policies.concurrency(AT_ONCE, b"acme")) is None
    policies.look_for_hosts()
    close_all()


@pytest.mark.parametrize(("hosts", "passed"), [(1, 30), (3, 10), (3 | at.AWAY, 10), (0, 30)])
def test_without_a_row_the_hosts_share_what_there_is(tmp_path: Path, sharing: Sharing, hosts: int, passed: int) -> None:
    table = limits(make(tmp_path, PEOPLE._replace(columns=5, rows=1)), 0)
    policies = Policies(table, sharing=sharing)
    policies.of(RULE, b"first").left(NOW)
    table.words[at.HOSTS] = hosts
    policies.look_for_hosts()
    policy = policies.of(Rule("basic", 60, 60.0), b"second")
    count = 0
    while policy.left(NOW) >= 1:
        policy.charge(1)
        count += 1
    assert count == passed
    close_all()
