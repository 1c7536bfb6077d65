"""Each kind of limit says whether it refuses, with the status and remedy that edges state."""

import pytest

from edgeproxy.base.calendar import Period
from edgeproxy.collector.quotas.access import (
    AccessLimit,
    describe_account,
    describe_budget,
    describe_concurrency,
    describe_credits,
    describe_keys,
    describe_quota,
    describe_rate,
    find_verdict,
    order_limits,
)
from edgeproxy.collector.quotas.quota_status import QuotaUsage
from edgeproxy.config.allowance import SpendingCap
from edgeproxy.config.limits import Entitlement, Limit, Quota
from edgeproxy.config.refusal_terms import TERMS

DAY = Period(1, 0.0, 86400.0)
RATE = Limit.model_validate({"rate": "12/60s", "name": "basic"})
QUOTA = Quota.model_validate({"meter": "requests", "per": "day", "included": 12, "cap": "hard"})
SOFT = Quota.model_validate({"meter": "requests", "per": "day", "included": 12})
PLAN = Entitlement.model_validate({"meter": "requests", "per": "month", "included": 12, "cap": "hard"})
CAP = SpendingCap.model_validate({"meter": "cost", "per": "day", "included": 12, "cap": "hard"})


def describe_all(used: int) -> list[AccessLimit]:
    """Describe one limit of 12 of each kind, with `used` units used."""
    return [
        describe_rate(RATE, used),
        describe_concurrency(12, (), used),
        *(describe_quota(QuotaUsage(quota, used, DAY), quota) for quota in (QUOTA, PLAN, CAP)),
        describe_budget("ek_12", (None, "usd"), used, 12, "2027-01-02T00:00:00Z", is_held=True),
        describe_credits(12, used, "usd", is_charged=True),
    ]


def test_each_reached_limit_has_the_status_and_remedy_of_the_edge() -> None:
    by_kind = {limit["kind"]: limit for limit in describe_all(12)}
    assert by_kind.keys() == TERMS.keys() - {"account", "key"}
    for kind, limit in by_kind.items():
        terms = TERMS[kind]
        assert (limit["state"], limit["status"], limit["remedy"]) == ("reached", terms.status, terms.remedy), kind
    for used, state in ((9, "free"), (10, "near")):
        assert {limit["state"] for limit in describe_all(used)} == {state}


@pytest.mark.parametrize(("used", "verdict"), [(0, "yes"), (12, "no")])
def test_spent_credits_refuse_all_requests_and_other_limits_only_some(used: int, verdict: str) -> None:
    limits = describe_all(used)
    assert find_verdict(limits) == verdict
    if used:
        assert order_limits(limits)[0]["kind"] == "credits"
        assert find_verdict([limit for limit in limits if limit["kind"] != "credits"]) == "partly"


def test_soft_quotas_and_limits_that_are_not_enforced_refuse_nothing() -> None:
    assert describe_quota(QuotaUsage(SOFT, 99, DAY), SOFT)["state"] == "near"
    assert describe_credits(0, 5, "usd", is_charged=False)["state"] == "near"
    assert describe_budget("ek", (None, "usd"), 99, 12, "", is_held=False)["state"] == "near"
    assert describe_rate(RATE, None)["state"] == "unknown"


def test_unpaid_pause_names_payment_and_another_pause_names_contact() -> None:
    paused = describe_account(False, {"why": "unpaid", "status": 402})
    assert (paused["state"], paused["status"], paused["remedy"], paused["why"]) == ("reached", 402, "pay", "unpaid")
    paused = describe_account(False, {"why": "abuse", "status": 403})
    assert (paused["status"], paused["remedy"]) == (403, "contact")
    assert find_verdict([paused]) == "no"
    assert find_verdict([describe_account(True, None)]) == "yes"


def test_customer_without_valid_keys_cannot_call() -> None:
    assert find_verdict(describe_keys(0, 2)) == "no"
    assert find_verdict(describe_keys(1, 2)) == "yes"
    assert describe_keys(0, 0) == [], "who never had a key may be known otherwise"
