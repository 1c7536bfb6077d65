"""What holds a customer, of what their tier says and what they have of their own."""

import dataclasses

import pytest

from edgeproxy.config.models import BurstCredits, Quota
from edgeproxy.config.plans import ANONYMOUS, Plan, plan_of, unknown_in, with_key
from edgeproxy.config.units import Rate

TIERS = """\
tiers:
  pro:
    limits: [{rate: 600/min}]
    concurrency: 10
    quotas: [{meter: requests, per: month, included: 1000}]
    burst_credits: {earn: 10/s, max: 600}
    priority: 3
    message: Call us
  free: {concurrency: none, burst_credits: off}
customers:
"""

CREDITS = BurstCredits(earn=Rate(10, 1.0), max=600)
MONTHLY = Quota(meter="requests", per="month", included=1000)


def plan(loaded, tier, own=""):
    settings = loaded(TIERS + f"  acme: {{tier: {tier}{own}}}\n")
    return plan_of(settings.tiers[tier], settings.customers["acme"])


def test_a_customer_without_anything_of_their_own_has_what_the_tier_says(loaded):
    found = plan(loaded, "pro")
    assert [limit.count for limit in found.limits] == [600]
    assert found == Plan(found.limits, 10, (MONTHLY,), CREDITS, 3, "Call us")
    assert plan(loaded, "free") == Plan((), None, (), None, 0, None)


@pytest.mark.parametrize("tier", ["pro", "free"])
def test_who_is_no_customer_has_what_the_tier_says(loaded, tier):
    assert plan_of(loaded(TIERS.removesuffix("customers:\n")).tiers[tier], None) == plan(loaded, tier)


@pytest.mark.parametrize(
    ("own", "field", "value"),
    [
        ("limits: []", "limits", ()),
        ("concurrency: 99", "concurrency", 99),
        ("concurrency: none", "concurrency", None),
        ("quotas: []", "quotas", ()),
        (
            "quotas: [{meter: requests, per: day, included: 0, cap: hard}]",
            "quotas",
            (Quota(meter="requests", per="day", included=0, cap="hard"),),
        ),
        ("burst_credits: {earn: 1/min, max: 5}", "burst_credits", BurstCredits(earn=Rate(1, 60.0), max=5)),
        ("burst_credits: off", "burst_credits", None),
        ("burst_credits: No", "burst_credits", None),
        ("priority: 0", "priority", 0),
        ("priority: 1000", "priority", 1000),
        ("message: Be patient", "message", "Be patient"),
    ],
)
@pytest.mark.parametrize("tier", ["pro", "free"])
def test_what_customers_have_of_their_own_replaces_what_the_tier_says_of_it_and_nothing_else(
    loaded, tier, own, field, value
):
    of_tier, of_customer = plan(loaded, tier), plan(loaded, tier, f", {own}")
    assert of_customer == dataclasses.replace(of_tier, **{field: value})


def test_a_plan_cannot_be_changed(loaded):
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan(loaded, "pro").priority = 5


def test_the_tier_of_those_without_a_key_is_one_that_can_be_defined(loaded):
    assert ANONYMOUS in loaded(f"tiers: {{{ANONYMOUS}: {{limits: [{{rate: 1/s}}]}}}}\n").tiers


def test_it_is_told_what_a_plan_rests_on_and_is_not_there(loaded):
    quotas = ", quotas: [{meter: requests, per: day, included: 1}, {meter: requests, per: month, included: 1}]"
    settings = loaded(TIERS + f"  acme: {{tier: pro{quotas}}}\n")
    acme = settings.customers["acme"]
    assert unknown_in(acme, settings.tiers, settings.meters) is None
    assert unknown_in(acme.model_copy(update={"quotas": None}), settings.tiers, ()) is None
    assert unknown_in(acme, {}, settings.meters) == "tier pro"
    assert unknown_in(acme, settings.tiers, ("tokens",)) == "meter requests"


def test_a_key_has_its_own_limits_beside_those_of_the_customer(loaded):
    settings = loaded(
        "tiers: {pro: {limits: [{rate: 600/min}, {rate: 60/min, scope: key, name: each}]}}\n"
        "customers: {acme: {tier: pro}}\n"
        f"keys: [{{sha256: {'a' * 64}, customer: acme}}, "
        f"{{sha256: {'b' * 64}, customer: acme, limits: [{{rate: 5/min}}, {{rate: 1/s}}]}}]\n"
    )
    whole = plan_of(settings.tiers["pro"], settings.customers["acme"])
    bare, limited = settings.keys
    assert with_key(whole, bare) == whole
    held = with_key(whole, limited)
    assert [(limit.name, limit.count, limit.scope) for limit in held.limits] == [
        ("pro", 600, "customer"), ("key", 5, "key"), ("key-2", 1, "key"),
    ]  # fmt: skip
