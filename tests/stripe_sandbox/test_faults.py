"""Requested faults: the client's view, and the real outcome."""

from http.client import HTTPException

import pytest

from loadtest.testbed.http_client import Answer
from loadtest.testbed.waiting import until
from tests.support.stripe_sandbox import Sandbox

PATH = "/v1/customers"


def tried(sandbox: Sandbox, **fields: str) -> Answer | None:
    """Try to create a customer. Return the answer, or None if it is incomplete."""
    try:
        return sandbox.call("POST", PATH, "name=A", **fields)
    except (OSError, HTTPException):
        return None


@pytest.mark.parametrize(
    ("kind", "status", "made"),
    [
        ("call_lost", None, 0),
        ("answer_lost", None, 1),
        ("answer_cut", None, 1),
        ("error_before", 500, 0),
        ("error_after", 500, 1),
        ("refused", 401, 0),
        ("rate_limited", 429, 0),
    ],
)
def test_journal_records_the_result_of_a_lost_answer(
    stripe_sandbox: Sandbox, kind: str, status: int | None, made: int
) -> None:
    sandbox = stripe_sandbox
    before = sandbox.journal()[-1]["seq"] if sandbox.journal() else 0
    sandbox.faults({"kind": kind, "path": PATH, "method": "POST", "count": 1})
    answer = tried(sandbox)
    assert (None if answer is None else answer.status) == status
    assert len(sandbox.journal("customer.created", before)) == made
    assert tried(sandbox) is not None
    assert len(sandbox.journal("customer.created", before)) == made + 1
    sandbox.faults()


def test_a_429_says_its_reason_or_is_a_lock_and_a_storm_lasts(stripe_sandbox: Sandbox) -> None:
    sandbox = stripe_sandbox
    sandbox.faults({"kind": "rate_limited", "count": 1}, {"kind": "rate_limited", "reason": "global-rate", "count": 1})
    lock, rate = tried(sandbox), tried(sandbox)
    assert lock is not None
    assert rate is not None
    assert (lock.json()["error"]["code"], lock["stripe-should-retry"]) == ("lock_timeout", "true")
    assert rate["stripe-rate-limited-reason"] == "global-rate"
    sandbox.faults({"kind": "rate_limited", "count": 1, "seconds": 1, "reason": "global-rate"})
    assert [sandbox.call("GET", PATH).status for _ in range(2)] == [429, 429]
    until(lambda: sandbox.call("GET", PATH).status == 200, "the storm is over")


def test_the_same_seed_meets_the_same_calls(stripe_sandbox: Sandbox) -> None:
    def met(seed: int) -> list[bool]:
        stripe_sandbox.faults({"kind": "refused", "probability": 0.5}, seed=seed)
        return [stripe_sandbox.call("GET", PATH).status == 401 for _ in range(20)]

    first = met(1)
    assert met(1) == first
    assert met(2) != first
    assert 0 < sum(first) < 20
    stripe_sandbox.faults()


@pytest.mark.parametrize(("kind", "made"), [("restart_before", 0), ("restart_after", 1)])
def test_restart_loses_only_uncommitted_requests(stripe_sandbox: Sandbox, kind: str, made: int) -> None:
    sandbox = stripe_sandbox
    before = len(sandbox.journal("customer.created"))
    sandbox.faults({"kind": kind, "path": PATH, "method": "POST", "count": 1})
    assert tried(sandbox, Idempotency_Key=kind) is None
    until(sandbox.ready, "the sandbox is ready again")
    assert len(sandbox.journal("customer.created")) == before + made
    again = tried(sandbox, Idempotency_Key=kind)
    assert again is not None
    assert ("idempotent-replayed" in again) == bool(made)
    assert len(sandbox.journal("customer.created")) == before + 1
    sandbox.faults()


def test_events_are_counted_late_and_summaries_lag_and_may_be_wrong(stripe_sandbox: Sandbox) -> None:
    sandbox = stripe_sandbox
    sandbox.faults({"kind": "lag", "seconds": 600}, {"kind": "summary_lag", "seconds": 1200})
    customer = sandbox.call("POST", PATH).json()["id"]
    formula = "display_name=L&event_name=lagging&default_aggregation[formula]=sum"
    meter = sandbox.call("POST", "/v1/billing/meters", formula).json()["id"]
    event = f"event_name=lagging&payload[stripe_customer_id]={customer}&payload[value]=7&identifier=lag"
    assert sandbox.call("POST", "/v1/billing/meter_events", event).status == 200
    minute = int(sandbox.control("clock")["now"]) // 60 * 60
    where = f"/v1/billing/meters/{meter}/event_summaries?customer={customer}"
    where += f"&start_time={minute - 60}&end_time={minute + 120}"

    def sums() -> list[float]:
        return [one["aggregated_value"] for one in sandbox.call("GET", where).json()["data"]]

    assert sums() == []
    sandbox.advance(601)
    assert sums() == []
    sandbox.advance(1200)
    until(lambda: sums() == [7], "the summary has it")
    sandbox.faults({"kind": "summary_wrong", "by": 3, "count": 1})
    assert [sums(), sums()] == [[10], [7]]
    sandbox.faults({"kind": "clock", "seconds": 3600})
    assert sandbox.control("clock")["now"] >= minute + 1801 + 3600
    sandbox.faults()


def test_faults_that_there_are_not_are_refused(stripe_sandbox: Sandbox) -> None:
    with pytest.raises(AssertionError, match="status=400"):
        stripe_sandbox.faults({"kind": "earthquake"})
