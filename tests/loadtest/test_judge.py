"""What is judged, fault by fault: the verdict, and the words in which it is told."""

from typing import Any

import pytest

from loadtest.conservation import Accounts
from loadtest.judge import Evidence, Loss, judge
from loadtest.record import BROKEN, TIMED_OUT, UNFINISHED, UNREACHABLE, Request
from tests.loadtest.evidence import WORKLOAD, Change, evidence

BASIC, PRO = (list(WORKLOAD.kinds).index(kind) for kind in ("basic", "pro"))


def slow(seconds: float, where: str, begin: float = 0, end: float = 99) -> Change:
    """Requests of a region (or `direct`) are answered so much later."""

    def change(one: Request, region: str, kind: str) -> dict[str, Any]:
        its = kind == "direct" if where == "direct" else region == where and kind != "direct"
        return {"response": seconds, "service": seconds} if its and begin <= one.due < end else {}

    return change


def with_status(status: int, kind: int, begin: float = 0, end: float = 99, **also: Any) -> Change:
    return lambda one, *_: {"status": status, **also} if one.kind == kind and begin <= one.due < end else {}


def late(one: Request, *_: str) -> dict[str, Any]:
    return {"lag": 0.03, "response": 0.05} if 8 <= one.due < 10 and one.worker == 0 else {}


def test_a_run_that_went_well_passes() -> None:
    verdict = judge(evidence())
    assert (verdict.verdict, verdict.exit_code, verdict.findings) == ("pass", 0, [])
    assert verdict.p95 == {"eu": pytest.approx(0.02, rel=0.01), "us": pytest.approx(0.02, rel=0.01)}
    assert verdict.worst["basic-0"].admitted == 60
    assert sum(verdict.series["due"]) == sum(verdict.series["started"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (slow(0.173, "us", 3, 5), "fail: p95 us 173 ms > 80 ms, 3 s to 5 s; direct 20 ms, so not the upstream"),
        (with_status(502, PRO, 5, 5.2), "fail: error_rate 1"),
        (
            with_status(TIMED_OUT, PRO, 5, 5.01, response=10.0),
            "fail: lost 3 > 0: sent and never answered in eu, us, due 5.0",
        ),
        (with_status(BROKEN, PRO, 5, 5.01), "fail: lost 3 > 0"),
        (with_status(UNFINISHED, PRO, 5, 5.01), "fail: lost 3 > 0"),
        (lambda *_: {"status": UNREACHABLE}, "fail: p95 eu: nothing was answered"),
        (with_status(429, PRO, 4, 5), "fail: false_429 pro"),
        (with_status(429, BASIC, 0, 3), "fail: false_429 basic"),
        (with_status(200, BASIC), "fail: limit_error basic-"),
        (lambda one, *_: None if one.due > 10.5 else {}, "generator: started"),
        (late, "generator: late, p95 30 ms, worker 0, 8 s to 10 s"),
        (with_status(200, list(WORKLOAD.kinds).index("bad_key")), "fail: error_rate"),
    ],
)
def test_each_fault_is_told(change: Change, told: str) -> None:
    verdict = judge(evidence(change))
    assert verdict.exit_code == (3 if told.startswith("generator") else 1)
    assert any(str(finding).startswith(told) for finding in verdict.findings), verdict.findings


def test_an_upstream_that_is_slow_itself_is_told_by_direct() -> None:
    def change(one: Request, region: str, kind: str) -> dict[str, Any]:
        return {"response": 0.12, "service": 0.12}

    (first, *_) = judge(evidence(change)).findings
    assert str(first) == "fail: p95 eu 120 ms > 80 ms, 1 s to 11 s; direct 120 ms, so the upstream"


def test_a_spoilt_run_is_invalid_whatever_else_it_shows() -> None:
    verdict = judge(evidence(slow(0.5, "us"), lost_workers=[(1, 8.0)]))
    assert (verdict.verdict, verdict.exit_code) == ("invalid", 3)
    assert str(verdict.findings[0]) == "generator: worker 1 was lost, 8 s after the beginning"
    assert any(finding.verdict == "fail" for finding in verdict.findings)


def lost_us(one: Request, region: str, kind: str) -> dict[str, Any]:
    """us is lost from 4 s to 6 s: what is under way breaks, the rest goes to eu."""
    if region != "us" or kind == "direct" or not 3.9 < one.due < 6:
        return {}
    return {"status": BROKEN, "response": 0.15} if one.due < 4 else {"asked": 0, "response": 0.11, "service": 0.1095}


def test_what_was_under_way_in_a_lost_region_has_an_account_of_its_own() -> None:
    lost = {"losses": [Loss("us", 4, 6)], "distance": 0.08}
    verdict = judge(evidence(lost_us, **lost))
    assert verdict.findings == []
    assert verdict.counts["lost in grace"] > 0
    assert any(finding.text.startswith("lost") for finding in judge(evidence(lost_us)).findings), "without a loss"


def test_who_moved_has_a_threshold_of_their_own() -> None:
    def change(one: Request, region: str, kind: str) -> dict[str, Any]:
        return lost_us(one, region, kind) | ({"response": 0.2} if region == "us" and 5 < one.due < 6 else {})

    verdict = judge(evidence(change, losses=[Loss("us", 4, 6)], distance=0.08))
    told = [finding.text for finding in verdict.findings if "moved" in finding.text]
    assert told == ["p95 of clients moved from us 200 ms > 160 ms"]


def test_what_is_lost_after_the_grace_is_a_failure() -> None:
    def change(one: Request, region: str, kind: str) -> dict[str, Any]:
        return {"status": BROKEN} if region == "us" and 5.2 < one.due < 5.25 else lost_us(one, region, kind)

    verdict = judge(evidence(change, losses=[Loss("us", 4, 6)], distance=0.08))
    assert any(finding.text.startswith("lost") for finding in verdict.findings)


@pytest.mark.parametrize(
    ("accounts", "told"),
    [
        (Accounts({"a": 5}, {}, {"a": 5}, {"a": 5}), None),
        (Accounts({"a": 5}, {"a": 1}, {"a": 5}, {"a": 6}), None),
        (Accounts({"a": 5}, {}, {"a": 4}, {"a": 5}), "a: 1 answered and not in the ledger"),
        (Accounts({"a": 5}, {}, {"a": 6}, {"a": 5}), "a: 1 in the ledger that the upstream never answered"),
        (Accounts({"a": 5}, {"a": 1}, {"a": 7}, {"a": 7}), "a: 2 in the ledger beyond what was answered"),
        (Accounts({"a": 5}, {}, {"a": 5}, {"a": 6}), "a: 1 answered by the upstream and not in the ledger"),
    ],
)
def test_conservation_customer_by_customer(accounts: Accounts, told: str | None) -> None:
    verdict = judge(evidence(accounts=accounts))
    assert [told] == [told for f in verdict.findings if told and told in f.text] or (
        told is None and not verdict.findings
    )


def test_a_run_in_which_not_all_happened_is_invalid() -> None:
    verdict = judge(evidence(missed=["cut hub"]))
    assert (verdict.exit_code, str(verdict.findings[0])) == (3, "events: cut hub was planned and did not happen")


def test_an_edge_that_wrote_a_traceback_fails_the_run() -> None:
    verdict = judge(evidence(trouble=["edge of us: ['Traceback']"]))
    assert [str(finding) for finding in verdict.findings] == ["fail: edge of us: ['Traceback']"]


def test_limits_that_were_used_before_the_run_are_not_held_against_it() -> None:
    run: Evidence = evidence(with_status(429, BASIC, 0, 3), fresh=False)
    assert judge(run).findings == []


def test_while_the_hub_is_away_a_host_may_refuse_with_its_share_used_up() -> None:
    refused = with_status(429, BASIC, 2)
    assert any(finding.text.startswith("false_429") for finding in judge(evidence(refused)).findings)
    assert judge(evidence(refused, cuts=[(1.5, 10.5)])).findings == []
