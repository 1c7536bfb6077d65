"""A host's handling of the hub's answers: their order, and the part held back for other hosts."""

import itertools

import pytest

from edgeproxy.edge.limits.rate_terms import RateTerms
from edgeproxy.edge.sync.pace import CPU_SAVED_SECONDS_MAX, CPU_SHARE, LATE_SECONDS, UNDER_WAY_MAX, UNDER_WAY_MIN, Pace
from edgeproxy.edge.sync.plan import RETURNING_SECONDS, HostCounts, RatePlan, compute_claim_stock
from edgeproxy.hub.report import Bucket, Cell, Report, ReportAnswer, Window
from loadtest.testbed.memory_hub import Memory

NOW = 50_000_000.0
CELL = 1_000_000
LIMIT = 600


def told(claims: int) -> ReportAnswer:
    return ReportAnswer(True, 2, claims, {}, {}, {})


def test_late_answer_after_a_full_report_grants_nothing_twice() -> None:
    plan = RatePlan(b"k", RateTerms(LIMIT, 60.0, 28), 1, hosts=2)

    def report(seq: int, waiting: int, spent: int) -> None:
        plan.build_report(NOW, CELL, 1, seq, HostCounts({}, spent, LIMIT, spent, waiting))

    report(1, 10, 0)
    assert plan.apply_answer(NOW, CELL, 1, told(10)) == 10
    report(2, 0, 0)
    report(3, 0, 5)
    # One of those under way was refused by the hub, so all of them are forgotten; then the other's answer comes.
    plan.drop_pending()
    assert plan.apply_answer(NOW, CELL, 2, told(10)) == 0, "five have been spent since"
    assert plan.claims == 10
    report(4, 0, 5)
    assert plan.apply_answer(NOW, CELL, 4, told(5 + 3)) == 3, "the next answer includes the grant of the lost one"


def test_a_hybrid_withholds_an_equal_share_after_the_hub_returns() -> None:
    plan = RatePlan(b"k", RateTerms(LIMIT, 60.0, 28, depth=60, rate=10.0), 1, hosts=2)
    plan.resume(NOW, 30)
    assert plan.compute_withheld(NOW) == LIMIT // 2
    assert plan.compute_withheld(NOW + RETURNING_SECONDS) == 0


def test_a_new_row_with_old_counts_does_not_fill_the_bucket_at_once() -> None:
    hub = Memory()

    def report(seq: int, born: int, cum: int, level: float, own: float) -> float:
        bucket = Bucket(100, 1.0, level, own)
        return hub.report(Report(b"k", 1, seq, born, NOW, 100.0, cum, bucket=bucket)).level

    assert report(1, 1, 100_000, 40.0, 10.0) == 50
    # The row is now in a new table's file. Its counts include the counts of the old file.
    assert report(2, 2, 100_003, 50.0, 3.0) == 53
    assert report(3, 2, 100_004, 53.0, 1.0) == 54


class Strict:
    """One host that keeps claims in hand, with its hub, request by request."""

    def __init__(self) -> None:
        self.terms = RateTerms(60_000, 3600.0, 60, mode="strict")
        self.plan = RatePlan(b"k", self.terms, 1, width=60.0)
        self.hub = Memory()
        self.now, self.cum, self.spent = 1_000_000.0, 0, 0
        self._seqs = itertools.count(1)

    def asks(self, requests: int) -> int:
        """So many pass with claims in hand, or wait for some; how many claims come."""
        self.now += 1.0
        cell = int(self.now // 60)
        waiting = max(0, requests - (self.plan.claims - self.spent))
        self.cum += requests - waiting
        self.spent += requests - waiting
        left = self.terms.limit - self.cum
        counted = HostCounts({cell: self.cum}, self.cum, left, self.spent, waiting, False, 20.0)
        seq = next(self._seqs)
        told = self.hub.report(self.plan.build_report(self.now, cell, 7, seq, counted))
        return self.plan.apply_answer(self.now, cell, seq, told)


def test_claims_are_reported_to_an_empty_hub_before_it_counts_as_exhausted() -> None:
    strict = Strict()
    assert strict.asks(1) > 1000
    strict.asks(20)
    for _ in range(3):
        strict.hub = Memory()
        for _ in range(4):
            strict.asks(20)
            assert strict.plan.no_use_until < strict.now
        in_hand = strict.plan.claims - strict.spent
        assert in_hand >= compute_claim_stock(60_000, 59_000, 1) - 20, "as before"
        # Nobody used them, and they were given back.
        strict.spent = strict.plan.claims
        strict.asks(0)
        for _ in range(4):
            strict.asks(20)
            assert strict.plan.no_use_until < strict.now
        assert strict.plan.claims - strict.spent >= in_hand


def test_plan_pauses_requests_that_a_restarted_hub_cannot_grant() -> None:
    strict = Strict()
    strict.asks(1)
    strict.hub = Memory()
    cell = int(strict.now // 60)
    key, window = strict.plan.key, Window(60_000, 60, cell, (Cell(cell, 59_990, 0),))
    strict.hub.report(Report(key, 8, 1, 1, strict.now, 3600.0, 59_990, window=window))
    for _ in range(3):
        strict.asks(3)
    assert strict.asks(5000) == 0
    assert strict.plan.no_use_until > strict.now


# ---- the pace of a supervisor's reports to the hub


def test_no_more_than_its_share_of_a_core_is_spent() -> None:
    pace, now, spent = Pace(0.0), 0.0, 0.0
    while now < 10:
        pace.charge(0.004)
        spent += 0.004
        now += 0.004 + pace.compute_pause_seconds(now + 0.004)
    assert spent / now == pytest.approx(CPU_SHARE, rel=0.01)


def test_unspent_cpu_time_is_saved_up_to_a_maximum() -> None:
    pace = Pace(0.0)
    assert pace.compute_pause_seconds(1000.0) == 0
    pace.charge(CPU_SAVED_SECONDS_MAX)
    assert pace.compute_pause_seconds(1000.0) == 0
    pace.charge(0.01)
    assert pace.compute_pause_seconds(1000.0) == pytest.approx(0.01 / CPU_SHARE)


def test_pace_window_doubles_each_round_trip_with_timely_answers() -> None:
    pace = Pace(0.0)
    for round_trip in range(3):
        for _ in range(pace.window):
            pace.record_answer(round_trip * 0.1, 0.1, 0.1)
    assert pace.window == 8 * UNDER_WAY_MIN
    for _ in range(2 * UNDER_WAY_MAX):
        pace.record_answer(1.0, 0.1, 0.1)
    assert pace.window == UNDER_WAY_MAX


def test_pace_halves_its_window_once_for_simultaneous_late_answers() -> None:
    pace = Pace(0.0)
    for _ in range(1000):
        pace.record_answer(0.0, 0.1, 0.1)
    before, late = pace.window, 0.1 + 2 * LATE_SECONDS
    for _ in range(100):
        pace.record_answer(10.0, late, 0.1)
    assert pace.window == before // 2
    for times in range(50):
        pace.record_answer(20.0 + times, late, 0.1)
    assert pace.window == UNDER_WAY_MIN


def test_reset_pace_starts_with_the_smallest_window() -> None:
    pace = Pace(0.0)
    for _ in range(1000):
        pace.record_answer(0.0, 0.1, 0.1)
    pace.reset()
    assert pace.window == UNDER_WAY_MIN
