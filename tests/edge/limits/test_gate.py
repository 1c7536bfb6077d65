"""The gate of a shared limit: requests that must wait for the hub, reports, and claims."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeproxy.edge.counters import claims
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import cell_number, pack
from edgeproxy.edge.counters.hub_column import HELD, NEVER
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.counts import Counts
from edgeproxy.edge.limits.denial import is_certain
from edgeproxy.edge.limits.gate import QUIET_SECONDS, Gate, compute_cold_allowance
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.rule import Rule
from tests.support.tables import SHARED, close_all, limits, make

BOTH_ORDERS = True

NOW = 5000.0
RULE = Rule("basic", 600, 60.0)


class Stand:
    """A worker's table, with the words that the supervisor writes."""

    def __init__(self, folder: Path, mode: str) -> None:
        self.table: LimitTable = limits(make(folder, SHARED), 0)
        self.policies = Policies(self.table)
        self.policy: Policy = self.policies.get_policy(RULE, b"acme")
        self.policy.left(NOW)
        counts = self.table.readers[RULE.key(b"acme")]
        assert isinstance(counts, Counts)
        self.counts = counts
        self.told: list[Gate] = []
        self.gate = Gate(self.table, counts, 600, mode, self.told.append)
        self.hosts(3)

    def hosts(self, count: int) -> None:
        self.table.words[at.HOSTS] = count

    def answer(self, *, allowed: int = NEVER, worth: int = NEVER, until: float = NOW + 3, no_use: float = 0.0) -> None:
        """Write an answer of the hub."""
        hub = self.gate.row + self.table.layout.head(4)
        words = self.table.words
        words[self.gate.row + at.ROW_ACKNOWLEDGED] = words[self.gate.row + self.table.head_at + at.CUM]
        words[hub + at.THRESHOLDS] = allowed << 32 | worth
        words[hub + at.WARM_UNTIL] = int(until * 1000)
        words[hub + at.NO_USE_UNTIL] = int(no_use * 1000)
        words[self.gate.row + at.ROW_SYNC] += 1

    def give(self, claims: int) -> None:
        self.table.words[self.gate.row + self.table.head_at + at.GIVEN] += claims

    def lost(self, on_loss: int, hosts: int = 3) -> None:
        """Make the hub unavailable."""
        self.table.words[at.ON_LOSS] = on_loss
        self.hosts(hosts | at.AWAY)

    def others(self, count: int, now: float = NOW) -> None:
        """Write a count of other hosts."""
        layout, words, row = self.table.layout, self.table.words, self.gate.row
        cell = cell_number(now, words[row + at.ROW_WIDTH])
        words[self.table.rings_of(row) + layout.ring_at(4) + cell % layout.ring] = pack(cell, count)
        words[row + at.ROW_SYNC] += 1

    def held(self, part: int, now: float = NOW) -> None:
        """Hold the row to a share, as the supervisor does."""
        self.answer(allowed=NEVER, worth=NEVER, until=now + 3)
        self.others(600 - part, now)

    def passed(self, now: float = NOW) -> int:
        """Return the number of consecutive requests that pass."""
        count = 0
        while self.policy.left(now) >= 1 and self.passes(now):
            count += 1
        return count

    def passes(self, now: float = NOW) -> bool:
        """Count a request if it passes without waiting for the hub. Return whether it does."""
        left = self.policy.left(now)
        assert left >= 1
        if self.gate.must_ask(now, 1, left):
            return False
        self.policy.charge(1)
        self.gate.record_charge(now, 1)
        return True


@pytest.fixture
def stand(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stand]:
    yield Stand(tmp_path, getattr(request, "param", "bounded"))
    close_all()


@pytest.mark.parametrize(
    ("most", "hosts", "allowed"), [(60, 6, 6), (600, 6, 12), (600, 2, 60), (5, 6, 1), (600, 1, 60)]
)
def test_the_cold_allowance_of_a_limit(most: int, hosts: int, allowed: int) -> None:
    assert compute_cold_allowance(most, hosts) == allowed


def test_an_unreported_limit_passes_its_cold_allowance(stand: Stand) -> None:
    allowed = compute_cold_allowance(600, 3)
    assert sum(stand.passes() for _ in range(allowed + 5)) == allowed
    assert stand.told == [stand.gate], "reports are rare"
    stand.answer(until=NOW)
    assert stand.passes(NOW + QUIET_SECONDS)
    assert stand.told == [stand.gate] * 2


@pytest.mark.parametrize("allowed", [1, 7])
def test_after_an_answer_its_allowance_passes(stand: Stand, allowed: int) -> None:
    stand.answer(allowed=allowed)
    assert sum(stand.passes() for _ in range(allowed + 5)) == allowed


def test_usage_is_reported_at_the_threshold_of_the_answer(stand: Stand) -> None:
    stand.answer(worth=4)
    for _ in range(3):
        assert stand.passes()
    assert not stand.told
    assert stand.passes()
    assert stand.told == [stand.gate]


def test_a_gate_is_open_if_no_wait_and_no_report_is_due(stand: Stand) -> None:
    stand.answer(allowed=5, worth=4)
    assert [stand.gate.is_open(NOW, cost) for cost in (1, 3, 4)] == [True, True, False]
    assert [stand.gate.is_open(now, 1) for now in (NOW + 2.999, NOW + 3)] == [True, False]
    stand.answer(allowed=3, worth=9)
    assert [stand.gate.is_open(NOW, cost) for cost in (3, 4)] == [True, False]
    stand.gate.update_terms(600, "strict")
    assert not stand.gate.is_open(NOW, 1)
    stand.gate.update_terms(600, "eventual")
    assert [stand.gate.is_open(NOW, cost) for cost in (8, 9)] == [True, False]
    stand.give(1)
    stand.answer()
    assert not stand.gate.is_open(NOW, 1), "a claim must be used first"


def test_a_gate_closes_when_its_row_is_replaced(stand: Stand) -> None:
    stand.answer()
    assert stand.gate.is_open(NOW, 1)
    stand.policies.get_policy(RULE, b"other").left(NOW)
    words, other = stand.table.words, stand.table.peek(stand.table.make_key(RULE.key(b"other")))
    assert other is not None
    words[other + at.ROW_SYNC] = words[stand.gate.row + at.ROW_SYNC]
    stand.counts.number = stand.table.number_version(other)
    assert stand.gate.row == other
    assert not stand.gate.is_open(NOW, 1)


@pytest.mark.parametrize(("on_loss", "passed"), [(at.FULL, 600), (at.SHARE, 200), (at.DENY, 0)])
@pytest.mark.parametrize("mode", ["bounded", "eventual"])
def test_without_the_hub_an_unhandled_row_follows_on_loss(stand: Stand, on_loss: int, passed: int, mode: str) -> None:
    stand.gate.update_terms(600, mode)
    stand.lost(on_loss)
    assert stand.passed() == passed
    if passed < 600:
        assert stand.gate.is_asking_useless(NOW)
        stand.told.clear()
        stand.gate.record_refusal(NOW + QUIET_SECONDS)
        assert stand.told == [stand.gate], "the supervisor handles the row next"


def test_a_share_is_of_the_remaining_amount(stand: Stand) -> None:
    stand.lost(at.FULL)
    assert [stand.passes() for _ in range(60)] == [True] * 60
    stand.answer(allowed=5, worth=4, until=NOW)
    stand.others(120)
    stand.lost(at.SHARE)
    assert stand.passed() == (600 - 60 - 120) // 3


def test_a_share_is_at_least_the_cold_allowance(stand: Stand) -> None:
    stand.lost(at.SHARE, hosts=300)
    assert stand.passed() == compute_cold_allowance(600, 300) == 6


def test_each_window_has_its_share_without_the_supervisor(stand: Stand) -> None:
    stand.lost(at.SHARE)
    assert [stand.passed(NOW + 100 * number) for number in range(5)] == [200] * 5


def test_a_held_row_passes_its_share(stand: Stand) -> None:
    stand.lost(at.SHARE)
    stand.held(350)
    assert [stand.passes() for _ in range(240)] == [True] * 240
    # The row was unused for a time, and the supervisor renews a hold only every quarter of a window.
    later = NOW + 3 + 15
    assert not stand.gate.is_open(later, 1)
    assert stand.passed(later) == 350 - 240


def test_an_old_hold_expires(stand: Stand) -> None:
    stand.lost(at.SHARE)
    stand.held(350)
    assert stand.table.words[stand.gate.row + stand.table.layout.head(4) + at.THRESHOLDS] == HELD
    assert stand.passed(NOW + 100) == 200


def test_reported_costs_are_withheld_only_without_the_hub_and_with_deny(stand: Stand) -> None:
    assert not stand.gate.is_withheld(NOW, 600)
    stand.lost(at.DENY)
    assert stand.gate.is_withheld(NOW, 600)
    stand.lost(at.SHARE)
    assert not stand.gate.is_withheld(NOW, 600)


def test_waiting_is_useless_for_a_time_if_the_hub_has_nothing_left(stand: Stand) -> None:
    stand.answer(allowed=0, no_use=NOW + 1)
    assert stand.gate.is_asking_useless(NOW)
    assert not stand.gate.is_asking_useless(NOW + 1.1)


def test_waiting_requests_are_written_to_the_table(stand: Stand) -> None:
    words, own = stand.table.words, stand.gate.row + stand.table.head_at
    stand.give(1)
    stand.gate.add_waiting(2)
    assert (words[own + at.WANT], stand.told) == (3, [stand.gate])
    stand.gate.remove_waiting(2)
    assert words[own + at.WANT] == 1


def test_unused_claims_are_returned_once(stand: Stand) -> None:
    stand.give(3)
    stand.gate.add_waiting(1)
    claims.return_claims(stand.table, stand.gate.row)
    assert stand.gate.unspent_claims == 3, "a request waits for claims"
    stand.gate.remove_waiting(1)
    claims.return_claims(stand.table, stand.gate.row)
    assert stand.gate.unspent_claims == 0


def test_news_changes_with_an_answer_or_the_loss_of_the_hub(stand: Stand) -> None:
    news = [stand.gate.news]
    stand.table.words[stand.gate.row + at.ROW_SYNC] += 1
    news.append(stand.gate.news)
    stand.hosts(3 | at.AWAY)
    news.append(stand.gate.news)
    stand.answer()
    news.append(stand.gate.news)
    assert len(set(news)) == 4


def test_a_refusal_is_certain_after_a_recent_answer_of_the_hub(stand: Stand) -> None:
    limit_set = LimitSet((stand.policy,), gates=((stand.policy, stand.gate),))

    def certain(*held: Policy) -> bool:
        return is_certain(limit_set, NOW, (stand.policy,), held)

    assert not certain(), "the hub has not answered yet"
    stand.answer(until=NOW + 3)
    assert certain()
    assert not certain(stand.policy), "the request waited without an answer"
    stand.answer(until=NOW - 1, no_use=NOW + 1)
    assert not certain(), "the last answer is too old"
    assert certain(stand.policy), "the hub has just reported that nothing is left"
    assert is_certain(limit_set, NOW, (), ()), "a limit outside the hub refuses"
    stand.hosts(1)
    assert certain(), "no other host counts"
    stand.lost(at.SHARE, 1)
    assert not certain()
    assert not certain(stand.policy)


def test_a_refusal_is_reported_once(stand: Stand) -> None:
    stand.gate.record_refusal(NOW)
    stand.gate.record_refusal(NOW)
    assert stand.told == [stand.gate]
    assert stand.gate.has_refused


@pytest.mark.parametrize("stand", ["eventual"], indirect=True)
def test_eventual_never_waits_for_the_hub(stand: Stand) -> None:
    stand.answer(allowed=0, worth=1)
    assert all(stand.passes() for _ in range(10))
    assert stand.told


@pytest.mark.parametrize("stand", ["strict"], indirect=True)
@pytest.mark.parametrize("hosts", [3, 3 | at.AWAY, 1])
def test_strict_always_waits_for_the_hub(stand: Stand, hosts: int) -> None:
    stand.hosts(hosts)
    stand.answer()
    assert not stand.passes()


def test_without_a_row_a_worker_has_a_share_of_the_share(tmp_path: Path) -> None:
    table = limits(make(tmp_path, SHARED._replace(rows=1)), 0)
    policies = Policies(table)
    policies.get_policy(RULE, b"first").left(NOW)
    policy = policies.get_policy(RULE, b"second")
    policy.left(NOW)
    counts = table.readers[RULE.key(b"second")]
    assert isinstance(counts, Counts)
    told: list[Gate] = []
    gate = Gate(table, counts, 600, "strict", told.append)
    table.words[at.HOSTS] = 3
    assert not gate.must_ask(NOW, 1, 1)
    table.words[at.HOSTS] |= at.AWAY
    assert not gate.must_ask(NOW, 1, 1), "the worker has its share of the host's share"
    table.words[at.ON_LOSS] = at.DENY
    assert gate.must_ask(NOW, 1, 1)
    gate.record_charge(NOW, 1)
    gate.record_refusal(NOW)
    gate.remove_waiting(-1)
    assert not told
    close_all()


def test_limit_without_a_row_reports_nothing_and_writes_nothing(stand: Stand) -> None:
    gate = Gate(stand.table, stand.policies.get_policy(RULE, b"globex").counts, 600, "global", stand.told.append)
    header = stand.table.words[: at.HEADER_WORDS].tobytes()
    gate.request_count(NOW)
    gate.record_late_charge(NOW)
    gate.record_refusal(NOW)
    assert stand.told == []
    gate.add_waiting(1)
    assert stand.table.words[: at.HEADER_WORDS].tobytes() == header
