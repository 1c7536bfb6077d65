"""The allowance of a customer, from the tier's settings and the customer's own."""

import dataclasses

import pytest

from edgeproxy.config import limits, meters
from edgeproxy.config.allowance import (
    ANONYMOUS,
    Allowance,
    Spending,
    apply_caps,
    apply_key_limits,
    compute_allowance,
    compute_effective_allowance,
    find_missing_reference,
    get_concurrency,
)
from edgeproxy.config.customers import Customer, DirectoryKey, Flag, LimitRaise, Subscriber
from edgeproxy.config.directory import FREE
from edgeproxy.config.limits import SPEND, BurstCredits, ConcurrencyLimit, Entitlement, KeyBudget, Quota
from edgeproxy.config.units import COUNT_MAX, Rate

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


def allowance(loaded, tier, own=""):
    settings = loaded(TIERS + f"  acme: {{tier: {tier}{own}}}\n")
    return compute_allowance(settings.tiers[tier], settings.customers["acme"])


def test_customer_without_own_terms_has_the_allowance_of_its_tier(loaded):
    result = allowance(loaded, "pro")
    assert [limit.count for limit in result.limits] == [600]
    assert result == Allowance(result.limits, ConcurrencyLimit(max=10), (MONTHLY,), CREDITS, None, 3, "Call us")
    assert allowance(loaded, "free") == Allowance((), None, (), None, None, 0, None)


@pytest.mark.parametrize("tier", ["pro", "free"])
def test_anonymous_allowance_equals_the_tiers(loaded, tier):
    assert compute_allowance(loaded(TIERS.removesuffix("customers:\n")).tiers[tier], None) == allowance(loaded, tier)


@pytest.mark.parametrize(
    ("own", "field", "value"),
    [
        ("limits: []", "limits", ()),
        ("concurrency: 99", "concurrency", ConcurrencyLimit(max=99)),
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
def test_customer_setting_replaces_only_the_same_setting_of_its_tier(loaded, tier, own, field, value):
    of_tier, of_customer = allowance(loaded, tier), allowance(loaded, tier, f", {own}")
    assert of_customer == dataclasses.replace(of_tier, **{field: value})


def test_an_allowance_cannot_be_changed(loaded):
    with pytest.raises(dataclasses.FrozenInstanceError):
        allowance(loaded, "pro").priority = 5


def test_anonymous_tier_can_be_defined(loaded):
    assert ANONYMOUS in loaded(f"tiers: {{{ANONYMOUS}: {{limits: [{{rate: 1/s}}]}}}}\n").tiers


def test_missing_tier_or_meter_of_an_allowance_is_reported(loaded):
    quotas = ", quotas: [{meter: requests, per: day, included: 1}, {meter: requests, per: month, included: 1}]"
    settings = loaded(TIERS + f"  acme: {{tier: pro{quotas}}}\n")
    acme = settings.customers["acme"]
    assert find_missing_reference(acme, settings.tiers, settings.meters) is None
    assert find_missing_reference(acme.model_copy(update={"quotas": None}), settings.tiers, ()) is None
    assert find_missing_reference(acme, {}, settings.meters) == "tier pro"
    assert find_missing_reference(acme, settings.tiers, ("tokens",)) == "meter requests"


def test_key_limits_apply_beside_customer_limits(loaded):
    settings = loaded(
        "tiers: {pro: {limits: [{rate: 600/min}, {rate: 60/min, scope: key, name: each}]}}\n"
        "customers: {acme: {tier: pro}}\n"
        f"keys: [{{sha256: {'a' * 64}, customer: acme}}, "
        f"{{sha256: {'b' * 64}, customer: acme, limits: [{{rate: 5/min}}, {{rate: 1/s}}]}}]\n"
    )
    whole = compute_allowance(settings.tiers["pro"], settings.customers["acme"])
    bare, limited = settings.keys
    assert apply_key_limits(whole, bare, {}) == whole
    held = apply_key_limits(whole, limited, {})
    assert [(limit.name, limit.count, limit.scope) for limit in held.limits] == [
        ("pro", 600, "customer"), ("key", 5, "key"), ("key-2", 1, "key"),
    ]  # fmt: skip


def test_money_budget_of_a_key_is_ignored_while_charging_is_off(loaded):
    tier = loaded(TIERS.removesuffix("customers:\n")).tiers["free"]
    whole, id_ = compute_allowance(tier, Customer(tier="free")), "01a21442-3786-74a0-ad96-a8a6b562d604"
    money, units = (
        KeyBudget(meter=meter, is_of_money=meter == SPEND, per="month", included=5, id=id_, why="It is used up")
        for meter in (SPEND, "tokens")
    )
    stopped = {FREE: Flag(percent=100)}
    for budget, when_free in ((money, ()), (units, (units,))):
        key = DirectoryKey(sha256="a" * 64, customer="acme", budget=budget)
        assert apply_key_limits(whole, key, {}).quotas == (budget,)
        assert apply_key_limits(whole, key, stopped).quotas == when_free
        missing = find_missing_reference(Customer(tier="free"), {"free": tier}, {}, key)
        assert missing == (None if budget is money else "meter tokens"), "edges need not know what money is spent on"
    assert (money.name, money.count_name, money.subject) == ("key-budget", "spend-month", f"budget:{id_}")
    limited = DirectoryKey(sha256="a" * 64, customer="acme", limits=[{"name": "key", "rate": "9/min", "of": "tokens"}])
    assert find_missing_reference(Customer(tier="free"), {"free": tier}, {}, limited) == "meter tokens"


COST = "meters: {cost: {count: response_header, header: X-Cost}, requests: {count: requests}}\n"


@pytest.mark.parametrize(
    ("caps", "limits", "quotas"),
    [
        ("{session: 100000/60min, day: 500000, request: 5}", [("session", 100_000, "X-Cost")], [("cost-day", 500_000)]),
        ("{request: 5}", [], []),
        ("{}", [], []),
    ],
)
def test_spending_caps_become_limits_and_quotas(loaded, caps, limits, quotas):
    settings = loaded(COST + TIERS + f"  acme: {{tier: pro, caps: {caps}}}\n")
    whole = compute_allowance(settings.tiers["pro"], settings.customers["acme"])
    held = apply_caps(whole, settings.meters)
    assert [(limit.name, limit.count, limit.cost_header) for limit in held.limits[1:]] == limits
    assert [(quota.name, quota.included) for quota in held.quotas[1:]] == quotas
    assert all(quota.cap == "hard" for quota in held.quotas[1:])
    assert all(limit.scope == "spending" for limit in held.limits[1:])


def test_customer_without_caps_gets_no_further_limits(loaded):
    settings = loaded(TIERS + "  acme: {tier: pro}\n")
    whole = compute_allowance(settings.tiers["pro"], settings.customers["acme"])
    assert apply_caps(whole, settings.meters) is whole
    capped = settings.customers["acme"].model_copy(update={"caps": limits.Caps(day=5)})
    assert find_missing_reference(capped, settings.tiers, settings.meters) == "meter cost"
    assert compute_allowance(settings.tiers["pro"].model_copy(update={"caps": capped.caps}), capped).caps == capped.caps


def test_a_raise_multiplies_rates_and_concurrency_and_nothing_of_money(loaded):
    tiers = """\
tiers:
  pro:
    limits:
      - {rate: 600/min}
      - {rate: 10/s, algorithm: token_bucket, burst: 30, scope: key}
      - {rate: 5/s, scope: route}
      - {rate: 2e8/day}
    concurrency: 10
    quotas: [{meter: requests, per: month, included: 1000}]
    burst_credits: {earn: 10/s, max: 600}
    caps: {session: 100000/60min}
meters: {requests: {count: requests}, cost: {count: response_header, header: X-Cost}}
"""
    settings = loaded(tiers)
    usual = compute_allowance(settings.tiers["pro"], Customer(tier="pro"))
    raised = LimitRaise(factor=5, ends_at=9.0)
    result = compute_allowance(settings.tiers["pro"], Subscriber(tier="pro", raised=raised))
    assert [(limit.count, limit.window, limit.depth) for limit in result.limits] == [
        (3000, 60.0, 0),
        (50, 1.0, 150),
        (5, 1.0, 0),
        (COUNT_MAX, 86400.0, 0),
    ], "routes that customers share stay, and no count is larger than one can be"
    assert (get_concurrency(usual), get_concurrency(result)) == (10, 50)
    assert dataclasses.replace(result, limits=usual.limits, concurrency=usual.concurrency) == usual
    spending = [limit for limit in apply_caps(result, settings.meters).limits if limit.name == "session"]
    assert [limit.count for limit in spending] == [100_000]
    free = Subscriber(tier="pro", concurrency="none", limits=(), raised=raised)
    assert compute_allowance(settings.tiers["pro"], free).concurrency is None


def test_credits_and_money_caps_are_ignored_while_charging_is_off(loaded):
    purchased = Entitlement(meter="cost", per="ever@3", included=5, cap="hard")
    plan = Entitlement(meter="requests", per="month@7", included=9, grace=60)
    places = Entitlement(meter="seats", included=3)
    assert [(one.name, one.is_credits) for one in (purchased, plan, places)] == [
        *(("credits", True), ("requests-month", False), ("seats", False)),
    ]
    tier = loaded(TIERS.removesuffix("customers:\n")).tiers["free"]
    who = Subscriber.model_construct(tier="free", entitled=(purchased, plan, places))
    for flags in ({}, {FREE: Flag(percent=0)}):
        assert compute_effective_allowance(tier, who, flags).quotas == (purchased, plan, places)
    lifted = compute_effective_allowance(tier, who, {FREE: Flag(percent=100)})
    assert (lifted.quotas, lifted.caps) == ((places,), None), "what a plan covers is about money, and places are not"
    assert apply_caps(
        compute_effective_allowance(tier, who, {}), {"requests": meters.Meter(count="requests")}
    ).quotas == (plan,), "the configuration has no meter of cost or seats"


def test_a_cap_of_a_session_counts_requests_that_it_does_not_refuse():
    terms = {"rate": Rate(600, 3600.0), "cost_header": "X-Cost", "routes": ("chat",)}
    assert Spending(name="session", **terms).counts_all
    assert not limits.Limit(name="plain", **terms).counts_all
