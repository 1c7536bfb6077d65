"""The judge's verdict and message for each fault."""

from typing import Any

import pytest

from loadtest.conservation import Accounts
from loadtest.evidence import Evidence, Loss, name_controls
from loadtest.judge import judge
from loadtest.machine import Machine
from loadtest.measured import list_measured
from loadtest.record import BROKEN, TIMED_OUT, UNFINISHED, UNREACHABLE, Request
from tests.loadtest.evidence import WORKLOAD, Change, evidence

BASIC, PRO = (list(WORKLOAD.kinds).index(kind) for kind in ("basic", "pro"))


def slow(seconds: float, where: str, begin: float = 0, end: float = 99) -> Change:
    """Return a change that delays the answers of a region (or of `direct`) by `seconds`."""

    def change(one: Request, region: str, kind: str) -> dict[str, Any]:
        its = kind == "direct" if where == "direct" else region == where and kind != "direct"
        return {"response": seconds, "service": seconds} if its and begin <= one.due < end else {}

    return change


def with_status(status: int, kind: int, begin: float = 0, end: float = 99, **also: Any) -> Change:
    return lambda one, *_: {"status": status, **also} if one.kind == kind and begin <= one.due < end else {}


def late(one: Request, *_: str) -> dict[str, Any]:
    return {"lag": 0.03, "response": 0.05} if 8 <= one.due < 10 and one.worker == 0 else {}


def test_good_run_passes() -> None:
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
def test_each_fault_has_its_own_finding(change: Change, told: str) -> None:
    verdict = judge(evidence(change))
    assert verdict.exit_code == (3 if told.startswith("generator") else 1)
    assert any(str(finding).startswith(told) for finding in verdict.findings), verdict.findings


def test_direct_requests_reveal_a_slow_upstream() -> None:
    def change(one: Request, region: str, kind: str) -> dict[str, Any]:
        return {"response": 0.12, "service": 0.12}

    (first, *_) = judge(evidence(change)).findings
    assert str(first) == "fail: p95 eu 120 ms > 80 ms, 1 s to 11 s; direct 120 ms, so the upstream"


def slow_us(seconds: float, upstream: float) -> Change:
    """Return a change that delays responses in us by `seconds`.

    The upstream takes `upstream` of it. eu is unchanged.
    """

    def change(one: Request, region: str, kind: str) -> dict[str, Any]:
        its = upstream if kind == "direct" else seconds
        return {"response": its, "service": its} if region == "us" else {}

    return change


@pytest.mark.parametrize(
    ("upstream", "told"),
    [
        (0.17, "direct us 170 ms, so the upstream"),
        (0.079, "direct us 79 ms, so not the upstream"),
        (0.02, "direct us 20 ms, so not the upstream"),
    ],
)
def test_each_region_is_compared_with_its_own_upstream(upstream: float, told: str) -> None:
    controls = {"eu": "direct eu", "us": "direct us"}
    verdict = judge(evidence(slow_us(0.173, upstream), controls=controls))
    assert [str(finding) for finding in verdict.findings] == [f"fail: p95 us 173 ms > 80 ms, 1 s to 11 s; {told}"]
    mostly = judge(evidence(slow_us(0.09, 0.079), controls=controls)).findings
    assert str(mostly[0]).endswith("direct us 79 ms, so mostly the upstream")


def test_shared_upstream_of_two_regions_has_one_control() -> None:
    url, other = "http://10.0.0.5:9000", "http://10.0.0.6:9000"
    assert name_controls({"eu": url, "us": url}) == {}
    assert name_controls({"eu": url, "us": other, "asia": url}) == {
        "eu": "direct eu",
        "us": "direct us",
        "asia": "direct eu",
    }


def unjudged(run: Evidence) -> dict[str, bool]:
    """Return the thresholds that a run did not judge, and whether each was not judged at all."""
    return {one.threshold: one.whole for one in judge(run).unjudged}


def test_thresholds_not_judged_are_named() -> None:
    outside = evidence(outside=True, fresh=False)
    assert unjudged(outside) == {"conserved": True, "moved_p95": True, "limit_error of pro": False, "false_429": True}
    states = {(one.threshold, one.of): one.state for one in list_measured(outside, judge(outside))}
    assert states["conserved", "customers that differ"] == states["false_429", "basic"] == "not judged"
    assert states["p95", "eu"] == "holds"
    inside = evidence(lost_us, losses=[Loss("us", 4, 6)], distance=0.08, accounts=Accounts({}, {}, {}, {}))
    assert unjudged(inside) == {"limit_error of pro": False}


def test_limit_reported_differently_by_the_edge_fails_the_run() -> None:
    verdict = judge(evidence(promised={("us", "basic"): "40 in 60 s"}, outside=True, fresh=False))
    assert [str(finding) for finding in verdict.findings] == [
        "fail: limit basic us: the edge says 40 in 60 s, the workload 60 in 60 s"
    ]


def test_expected_error_status_is_no_error() -> None:
    def change(one: Request, region: str, kind: str) -> dict[str, Any]:
        return {"status": 404, "request": 1} if one.kind == PRO else {}

    told = judge(evidence(change, names=["GET /gone"]))
    assert any(finding.text.startswith("error_rate") for finding in told.findings)
    told = judge(evidence(change, names=["GET /gone"], expected={1: (404,)}))
    assert told.findings == []
    times, statuses = told.requests[1]
    assert {404: times.count} == statuses


@pytest.mark.parametrize(
    ("machine", "verdict"),
    [
        (Machine(2, idle=0.02, others=0.8, waiting=0.9), "invalid"),
        (Machine(2, idle=0.3, others=0.6, waiting=0.5), "fail"),
        (Machine(2, idle=0.02, others=0.2, waiting=0.9), "fail"),
    ],
)
def test_overloaded_machine_invalidates_timing_but_not_usage_loss(machine: Machine, verdict: str) -> None:
    found = judge(evidence(slow(0.2, "us"), machine=machine))
    assert found.verdict == verdict
    said = (
        "machine: unfit, 2 cores, 1.6 of them taken by other work, 2 % idle; something waited for one 90 % of the time"
    )
    assert (str(found.findings[0]) == said) == (verdict == "invalid")
    assert any(str(finding).startswith("fail: p95 us 200 ms") for finding in found.findings), "and what else it shows"
    assert judge(evidence(machine=machine)).verdict == "pass", "what holds on a busy machine holds"
    lost_usage = judge(evidence(accounts=Accounts({"a": 5}, {}, {"a": 4}, {"a": 5}), machine=machine))
    assert lost_usage.verdict == "fail", "no machine is too busy to keep books"


def test_run_with_a_lost_worker_is_invalid_despite_other_findings() -> None:
    verdict = judge(evidence(slow(0.5, "us"), lost_workers=[(1, 8.0)]))
    assert (verdict.verdict, verdict.exit_code) == ("invalid", 3)
    assert str(verdict.findings[0]) == "generator: worker 1 was lost, 8 s after the beginning"
    assert any(finding.verdict == "fail" for finding in verdict.findings)


def lost_us(one: Request, region: str, kind: str) -> dict[str, Any]:
    """us is lost from 4 s to 6 s: requests in progress break, later ones go to eu."""
    if region != "us" or kind == "direct" or not 3.9 < one.due < 6:
        return {}
    return {"status": BROKEN, "response": 0.15} if one.due < 4 else {"asked": 0, "response": 0.11, "service": 0.1095}


def test_requests_in_progress_in_a_lost_region_are_counted_apart() -> None:
    lost = {"losses": [Loss("us", 4, 6)], "distance": 0.08}
    verdict = judge(evidence(lost_us, **lost))
    assert verdict.findings == []
    assert verdict.counts["lost in grace"] > 0
    assert any(finding.text.startswith("lost") for finding in judge(evidence(lost_us)).findings), "without a loss"


def test_clients_moved_from_a_lost_region_have_their_own_threshold() -> None:
    def change(one: Request, region: str, kind: str) -> dict[str, Any]:
        return lost_us(one, region, kind) | ({"response": 0.2} if region == "us" and 5 < one.due < 6 else {})

    verdict = judge(evidence(change, losses=[Loss("us", 4, 6)], distance=0.08))
    told = [finding.text for finding in verdict.findings if "moved" in finding.text]
    assert told == ["p95 of clients moved from us 200 ms > 160 ms"]


def test_request_lost_after_the_grace_fails_the_run() -> None:
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
def test_usage_is_conserved_for_each_customer(accounts: Accounts, told: str | None) -> None:
    verdict = judge(evidence(accounts=accounts))
    assert [told] == [told for f in verdict.findings if told and told in f.text] or (
        told is None and not verdict.findings
    )


def test_run_with_a_missed_event_is_invalid() -> None:
    verdict = judge(evidence(missed=["cut hub"]))
    assert (verdict.exit_code, str(verdict.findings[0])) == (3, "events: cut hub was planned and did not happen")


def test_traceback_of_an_edge_fails_the_run() -> None:
    verdict = judge(evidence(trouble=["edge of us: ['Traceback']"]))
    assert [str(finding) for finding in verdict.findings] == ["fail: edge of us: ['Traceback']"]


def test_limits_used_before_the_run_cause_no_finding() -> None:
    run: Evidence = evidence(with_status(429, BASIC, 0, 3), fresh=False)
    assert judge(run).findings == []


def test_host_may_refuse_beyond_its_share_while_the_hub_is_cut_off() -> None:
    refused = with_status(429, BASIC, 2)
    assert any(finding.text.startswith("false_429") for finding in judge(evidence(refused)).findings)
    assert judge(evidence(refused, cuts=[(1.5, 10.5)])).findings == []
