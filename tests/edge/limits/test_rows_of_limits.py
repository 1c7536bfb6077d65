"""The rows of the limits of plans and routes: the subject of each, equal limits, and reported costs in a head."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.config.allowance import Allowance, apply_caps, compute_allowance
from edgeproxy.config.customers import Subscriber
from edgeproxy.config.edge.customer_store import NOTHING_MORE, HeldKey, read_terms
from edgeproxy.config.edge.routes import Route, RouteLimit
from edgeproxy.config.end_users import EndUser
from edgeproxy.config.limits import BurstCredits, Entitlement, KeyBudget, Limit
from edgeproxy.config.meters import Meter
from edgeproxy.config.tiers import Tier
from edgeproxy.config.units import COUNT_MAX
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.layout import Layout
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.admission import admit
from edgeproxy.edge.limits.counts import Counts
from edgeproxy.edge.limits.denial import find_impossible_costs
from edgeproxy.edge.limits.gate import Gate
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.quota import QuotaCounts
from edgeproxy.edge.limits.rate_terms import Mode
from edgeproxy.edge.limits.reported_cost import cost_pattern, parse_cost
from edgeproxy.edge.limits.route_limits import (
    NO_CLAIMS,
    AppliedLimit,
    LimitTerms,
    PolicyTables,
    RouteLimits,
    apply_limits,
    build_rule,
    concurrency_rule,
    credits_rule,
    credits_sync,
    resolve_subject,
)
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.slots import Slots
from tests.support.tables import CUSTOMERS, QUOTAS, SHARED, close_all, limits, make

DIGEST = bytes(range(32))
ADDRESS = bytes((192, 0, 2, 1))
NOW = 1000.0


def limit(name: str, rate: str = "60/min", **settings: Any) -> Limit:
    return Limit.model_validate({"name": name, "rate": rate, **settings})


def route_limit(name: str, rate: str = "60/min", **settings: Any) -> Limit:
    return RouteLimit.model_validate({"name": name, "rate": rate, **settings})


def create_limits(
    tables: PolicyTables,
    route: Route,
    allowance: Allowance | None,
    meters: dict[str, Meter],
    customer: bytes | None,
    key: bytes = b"",
    claims: Mapping[str, bytes] = NO_CLAIMS,
) -> RouteLimits:
    """Return the limits of a customer on a route, or of an anonymous client if `customer` is None."""
    terms = LimitTerms(tables, route, allowance, meters, is_anonymous=customer is None)
    return RouteLimits(terms, customer, HeldKey(key, b"acme", read_terms(NOTHING_MORE)), claims)


def acme(scope: str) -> tuple[str, str, bytes]:
    return resolve_subject(scope, "v1", b"acme", DIGEST, ADDRESS)


def nobody(scope: str) -> tuple[str, str, bytes]:
    return resolve_subject(scope, "v1", None, b"", ADDRESS)


def names(found: list[AppliedLimit]) -> list[tuple[str, bool]]:
    """Return the names of the applied limits, each with whether the plan defines it."""
    return [(applied.rule.name, applied.is_own) for applied in found]


def test_the_subject_of_each_scope_with_a_customer() -> None:
    assert acme("customer") == ("customers", "customer", b"acme")
    assert acme("key") == ("customers", "key", DIGEST)
    assert acme("ip") == ("addresses", "ip", ADDRESS)
    assert acme("route") == ("customers", "route", b"v1")
    assert acme("customer_route") == ("customers", "customer_route", b"acme\0v1")


def test_the_subject_of_each_scope_without_a_key() -> None:
    for scope in ("customer", "key", "ip"):
        assert nobody(scope) == ("addresses", "ip", ADDRESS)
    assert nobody("route") == ("customers", "route", b"v1")
    assert nobody("customer_route") == ("addresses", "customer_route", ADDRESS + b"\0v1")


def test_different_subjects_have_different_rows() -> None:
    scopes = ("customer", "key", "ip", "route", "customer_route")
    rows = {
        (table, build_rule(limit("a"), scope).key(subject))
        for by in (acme, nobody)
        for table, scope, subject in map(by, scopes)
    }
    # Limits by address and by route have one row for customers and anonymous clients.
    assert len(rows) == 5 + 1


def test_different_limits_all_apply() -> None:
    limits = [
        (True, limit("a")),
        (True, limit("b", "60/h")),
        (True, limit("c", algorithm="token_bucket")),
        (True, limit("d", mode="shadow")),
        (True, limit("e", scope="key")),
        (False, route_limit("f")),
    ]
    assert names(apply_limits(limits, lambda limit: acme(limit.scope))) == [(name, name != "f") for name in "abcdef"]


@pytest.mark.parametrize(("of_plan", "of_route", "holds"), [(60, 70, "plan"), (70, 60, "route"), (60, 60, "route")])
def test_the_lower_of_two_limits_with_one_row_applies(of_plan: int, of_route: int, holds: str) -> None:
    limits = [
        (True, limit("other", "60/h")),
        (True, limit("plan", f"{of_plan}/min")),
        (False, route_limit("first", "60/h")),
        (False, route_limit("route", f"{of_route}/min", scope="customer")),
    ]
    found = apply_limits(limits, lambda limit: acme(limit.scope))
    assert sorted(names(found)) == sorted([("first", False), ("other", True), (holds, holds == "plan")])
    assert [applied.is_own for applied in found] == sorted([applied.is_own for applied in found], reverse=True)


def test_the_shallower_of_two_buckets_with_one_row_applies() -> None:
    bucket = {"algorithm": "token_bucket", "scope": "route"}
    limits = [(True, limit("plan", burst=10, **bucket)), (False, route_limit("route", burst=20, **bucket))]
    assert names(apply_limits(limits, lambda limit: acme(limit.scope))) == [("plan", True)]


def test_a_reported_and_a_plain_limit_can_share_a_row() -> None:
    limits = [(True, limit("plan", "50/min", cost_header="X-Cost")), (False, route_limit("route", scope="customer"))]
    (found,) = apply_limits(limits, lambda limit: acme(limit.scope))
    assert (found.rule.name, found.is_reported, found.is_shadow) == ("plan", True, False)


def test_the_rules_of_slots_and_credits() -> None:
    slots = concurrency_rule(2, "customer")
    assert (slots.name, slots.limit, slots.algorithm) == ("concurrency", 2, "concurrency")
    credits = credits_rule(BurstCredits.model_validate({"earn": "10/s", "max": 600}), "ip")
    assert (credits.name, credits.limit, credits.window, credits.depth) == ("burst-credits", 10, 1.0, 600)
    assert (credits.scope, credits.algorithm) == ("ip", "burst_credits")


@pytest.mark.parametrize(
    ("said", "cost"),
    [
        (b"X-Cost: 0", 0),
        (b"X-Cost: 000", 0),
        (b"x-cost:7", 7),
        (b"X-Cost: %d" % COUNT_MAX, COUNT_MAX),
        (b"X-Cost: %d" % (COUNT_MAX + 1), COUNT_MAX),
        (b"X-Cost: " + b"9" * 30_000, COUNT_MAX),
        (b"X-Cost: " + b"0" * 30_000 + b"7", 7),
        (b"X-Cost: x\r\nX-Cost: 7", 7),
        (b"X-Cost:", None),
        (b"X-Cost: 7 7", None),
        (b"XxCost: 7", None),
        (b"X-Cost: \xb2", None),
    ],
    ids=lambda said: None if isinstance(said, int | None) else said[:20],
)
def test_the_reported_cost_is_parsed_from_a_head(said: bytes, cost: int | None) -> None:
    assert parse_cost(b"HTTP/1.1 200 OK\r\nA: 1\r\n" + said + b"\r\nB: 2\r\n", cost_pattern("X-Cost")) == cost
    assert parse_cost(b"HTTP/1.1 200 OK\r\n" + said + b"\r\n", cost_pattern("X-Cost")) == cost


def test_an_empty_head_has_no_cost() -> None:
    assert parse_cost(b"", cost_pattern("X-Cost")) is None


def test_a_header_name_is_matched_literally() -> None:
    """Characters with a meaning in a pattern may be part of a field name (RFC 9110 section 5.6.2)."""
    head = b"HTTP/1.1 200 OK\r\nX.Cost*|^$+: 7\r\nXyCost: 8\r\n"
    assert parse_cost(head, cost_pattern("X.Cost*|^$+")) == 7
    assert parse_cost(head, cost_pattern("X.Cost")) is None


class Sharing:
    """Shares limits with other hosts, and records the mode of each."""

    def __init__(self) -> None:
        self.modes: list[str] = []

    def gate(self, table: LimitTable, rule: Rule, subject: bytes, counts: Counts, mode: Mode) -> Gate:
        self.modes.append(f"{rule.name} {mode}")
        return Gate(table, counts, rule.most, mode, lambda gate: None)

    def total(self, table: LimitTable, counts: Slots | QuotaCounts, limit: int) -> "Sharing":
        return self

    def used(self, now: float) -> None:
        pass


PLAN = compute_allowance(
    Tier.model_validate(
        {
            "limits": [
                {"name": "plain", "rate": "60/min"},
                {"name": "by-ip", "rate": "40/min", "scope": "ip"},
                {"name": "told", "rate": "500/h", "cost_header": "X-Cost"},
                {"name": "shadow", "rate": "5/min", "mode": "shadow"},
                {"name": "trial", "rate": "5/h", "mode": "shadow", "cost_header": "X-Trial"},
            ],
            "concurrency": 2,
            "burst_credits": {"earn": "1/s", "max": 10},
            "quotas": [
                {"meter": "requests", "included": 9, "per": "month", "cap": "hard"},
                {"meter": "bytes", "included": 9, "per": "day"},
                {"meter": "bytes", "included": 99, "per": "month"},
            ],
        }
    ),
    None,
)
ROUTE = Route.model_validate(
    {"path": "/v1/*", "upstream": "api", "name": "v1", "cost": 3, "limits": [{"name": "all", "rate": "9/min"}]}
)
METERS = {"requests": Meter(count="requests"), "bytes": Meter(count="bytes_out")}


@pytest.fixture
def tables(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[PolicyTables]:
    """Tables with a column for the hub. The `Sharing` of the parameter, if any, shares their limits."""
    sharing = request.param() if getattr(request, "param", None) else None

    def policies(name: str, layout: Layout) -> Policies:
        (tmp_path / name).mkdir()
        return Policies(limits(make(tmp_path / name, layout), 0), sharing=sharing)

    yield PolicyTables(
        policies("customers", SHARED),
        policies("addresses", SHARED._replace(kind="addresses")),
        policies("quotas", QUOTAS._replace(columns=5)),
        policies("end_users", SHARED._replace(kind="end_users")),
    )
    close_all()


def test_a_customers_limits_on_a_route_are_one_set(tables: PolicyTables) -> None:
    held = create_limits(tables, ROUTE, PLAN, METERS, b"acme", DIGEST)
    assert held.terms
    assert held.terms.by_address
    assert [pattern.search(b"\r\nX-Cost: 4\r\n") is not None for pattern in held.terms.headers] == [True, False]
    created = held.build_limit_set(ADDRESS)
    assert [policy.rule.name for policy in created.policies] == ["plain", "by-ip", "all"]
    assert created.traits.plan_policies == 2
    # A request costs three in the plan's limits, and one in the route's limit.
    assert [policy.cost for policy in created.policies] == [3, 3, 1]
    assert created.traits.credits is not None
    others = created.traits.other_rates
    assert [[policy.rule.name for policy in some] for some in (others.reported, others.shadows, others.trials)] == [
        ["told"], ["shadow"], ["trial"]
    ]  # fmt: skip
    assert [quota.cost for quota in created.traits.quotas] == [1, 0, 0]
    assert created.traits.metered == {"bytes": created.traits.quotas[1:]}
    assert len(created.slots) == 1
    assert not created.traits.shares


@pytest.mark.parametrize("tables", [Sharing], indirect=True)
def test_limits_that_hosts_share_have_gates_and_totals(tables: PolicyTables) -> None:
    created = create_limits(tables, ROUTE, PLAN, METERS, b"acme", DIGEST).build_limit_set(ADDRESS)
    assert [policy.rule.name for policy, _ in created.traits.sharing.gates] == ["plain", "by-ip", "all"]
    # Limits that refuse nothing at admission have no admission gates.
    assert {
        policy.rule.name: gate.mode for policy, gate in created.traits.sharing.reporting_gates.items()
    } == dict.fromkeys(("told", "shadow", "trial"), "eventual")
    assert [policy for policy, _ in created.traits.sharing.paying] == [created.traits.credits]
    assert len(created.traits.sharing.totals) == 4


def test_without_a_key_all_is_counted_by_address(tables: PolicyTables) -> None:
    held = create_limits(tables, ROUTE, PLAN, METERS, None)
    assert held.terms.by_address
    created = held.build_limit_set(ADDRESS)
    # Without a key, the plan's limits by customer and by address share a row, and the lower limit applies.
    assert [(policy.rule.name, policy.rule.scope) for policy in created.policies] == [
        ("by-ip", "ip"), ("all", "customer_route")
    ]  # fmt: skip


def test_a_route_without_limits_and_plan_has_no_limits(tables: PolicyTables) -> None:
    bare = ROUTE.model_copy(update={"limits": ()})
    held = create_limits(tables, bare, None, METERS, b"acme")
    assert (bool(held.terms), held.terms.by_address) == (False, False)
    assert held.build_limit_set().policies == ()


@pytest.mark.parametrize(
    ("limits", "mode"),
    [
        ([], "bounded"),
        ([{"name": "a", "rate": "1/s", "sync": "eventual"}], "eventual"),
        ([{"name": "a", "rate": "1/s", "sync": "eventual"}, {"name": "b", "rate": "2/s", "sync": "strict"}], "strict"),
        ([{"name": "a", "rate": "1/s", "sync": "strict", "mode": "shadow"}], "bounded"),
    ],
)
def test_credits_have_the_strictest_sync_of_the_plans_limits(limits: list[dict[str, str]], mode: str) -> None:
    assert credits_sync(compute_allowance(Tier.model_validate({"limits": limits}), None)) == mode


def test_a_plan_of_rates_has_no_slots_quotas_and_credits(tables: PolicyTables) -> None:
    plain = compute_allowance(Tier.model_validate({"limits": [{"name": "plain", "rate": "60/min"}]}), None)
    created = create_limits(tables, ROUTE, plain, METERS, b"acme").build_limit_set()
    assert (len(created.policies), created.slots, created.traits.quotas, created.traits.credits) == (2, (), (), None)


def test_a_cap_per_request_below_the_cost_of_a_route_refuses_all_requests(tables: PolicyTables) -> None:
    def made(most: int | None) -> RouteLimits:
        caps = {} if most is None else {"request": str(most)}
        plan = apply_caps(compute_allowance(Tier.model_validate({"caps": caps}), None), METERS)
        return create_limits(tables, ROUTE.model_copy(update={"limits": ()}), plan, METERS, b"acme")

    assert [bool(made(most).terms) for most in (2, 3, None)] == [True, False, False]
    (cap,) = made(2).build_limit_set().traits.quotas
    assert (cap.name, cap.left(0.0), cap.needs, cap.retry_after(0.0)) == ("request", 2, 3, 1)
    (said,) = find_impossible_costs(made(2).build_limit_set())
    assert (said.name, said.cost, said.most) == ("request", 3, 2)
    assert made(3).build_limit_set().traits.quotas == ()


@pytest.mark.parametrize("meter", ["requests", "bytes"])
def test_a_soft_cap_with_grace_serves_all_of_its_grace(tables: PolicyTables, meter: str) -> None:
    entitled = tuple(
        Entitlement.model_validate({"meter": meter, "per": "month", **terms})
        for terms in ({"included": 10, "grace": 60}, {"included": 12, "cap": "hard"})
    )
    customer = Subscriber.model_validate({"tier": "any"}).model_copy(update={"entitled": entitled})
    allowance = compute_allowance(Tier.model_validate({}), customer)
    route = ROUTE.model_copy(update={"limits": (), "cost": 1})
    limit_set = create_limits(tables, route, allowance, METERS, b"acme").build_limit_set()
    marked = []
    for _ in range(12):
        is_refused, *_, notes = admit(limit_set, NOW)
        assert not is_refused
        for quota in limit_set.traits.metered.get(meter, ()):
            quota.count(1, NOW)
        marked.append(notes is not None)
    assert marked == [False] * 10 + [True] * 2
    assert admit(limit_set, NOW)[0], "the 13th"
    limit_set.refund(NOW, lambda when: False)  # The last request is refunded.
    assert admit(limit_set, NOW)[0] == (meter == "bytes")


def test_a_quota_of_holdings_does_not_apply_to_requests(tables: PolicyTables) -> None:
    meters = {**METERS, "seats": Meter(count="holdings"), "tokens": Meter(count="events")}
    seats = {"meter": "seats", "included": "3", "cap": "hard"}

    def made(*quotas: dict[str, str]) -> RouteLimits:
        plan = compute_allowance(Tier.model_validate({"quotas": quotas}), None)
        return create_limits(tables, ROUTE.model_copy(update={"limits": ()}), plan, meters, b"acme")

    assert not made(seats).terms
    held = made(seats, {"meter": "tokens", "per": "day", "included": "5", "cap": "hard"})
    assert held
    (tokens,) = held.build_limit_set().traits.quotas
    assert (tokens.name, tokens.cost, tokens.needs) == ("tokens-day", 0, 1)
    assert held.build_limit_set().traits.metered == {}, "the edge counts neither of the meters"


def test_requests_reserve_tokens_of_a_key_budget_if_responses_state_usage(tables: PolicyTables) -> None:
    terms = {"per": "day", "included": 1000, "id": "0" * 36, "why": "The budget of the key is used up."}
    budgets = [KeyBudget.model_validate({**terms, "meter": meter}) for meter in ("all", "json")]
    plan = replace(compute_allowance(Tier(), None), quotas=tuple(budgets))
    counts = {"all": {"count": "total_tokens"}, "json": {"count": "response_json", "json": "a"}}
    meters = {name: Meter.model_validate(count) for name, count in counts.items()}

    def build(**settings: Any) -> LimitSet:
        route = Route.model_validate({"path": "/v1/*", "upstream": "api", **settings})
        return create_limits(tables, route, plan, meters, b"acme", DIGEST).build_limit_set()

    assert build().slots == ()
    (reservation,) = build(response_usage="openai").slots
    assert (reservation.name, reservation.limit) == ("key-budget", 1000)


@pytest.mark.parametrize("tables", [Sharing], indirect=True)
def test_a_limit_of_units_applies_only_if_responses_state_usage(tables: PolicyTables) -> None:
    plan = compute_allowance(Tier.model_validate({"limits": [limit("tokens", "900/min", of="all", reserve=300)]}), None)
    meters = {"all": Meter.model_validate({"count": "total_tokens"})}

    def build(**settings: Any) -> LimitSet:
        route = Route.model_validate({"path": "/v1/*", "upstream": "api", **settings})
        return create_limits(tables, route, plan, meters, b"acme", DIGEST).build_limit_set()

    assert not build().traits.applies
    held = build(response_usage="openai")
    (units,) = held.traits.other_rates.units
    assert held.traits.metered == {"all": (units,)}
    assert list(held.traits.sharing.reporting_gates) == [units.policy]
    assert len(held.traits.sharing.totals) == 1
    assert [admit(held, NOW)[0] for _ in range(4)] == [False, False, False, True]
    units.count(500, NOW)
    held.release()
    assert admit(held, NOW)[0], "400 are left, and two requests in progress have reserved them"
    held.release()
    held.release()
    assert not admit(held, NOW)[0]
    units.count(1 << 50, NOW)
    assert units.policy.left(NOW) < 0


def test_reserve_request_reads_the_reservation_from_the_prompt(tables: PolicyTables) -> None:
    meters = {"all": Meter.model_validate({"count": "total_tokens"})}

    def build(**settings: Any) -> RouteLimits:
        tier = Tier.model_validate({"limits": [limit("tokens", "900/min", of="all", **settings)]})
        route = Route.model_validate({"path": "/v1/*", "upstream": "api", "response_usage": "openai"})
        return create_limits(tables, route, compute_allowance(tier, None), meters, b"acme", DIGEST)

    assert not build(reserve=300).terms.reads_prompts
    held = build(reserve="request", reserve_max=400)
    assert held.terms.reads_prompts
    (units,) = held.build_limit_set().traits.other_rates.units
    assert units.by_request is not None
    assert (units.by_request.has_input, units.by_request.has_output, units.by_request.most) == (True, True, 400)


def test_end_users_have_a_row_per_source_and_name(tables: PolicyTables) -> None:
    field, claim = EndUser(header="X-User"), EndUser(claim="sub")
    places = [field.model_dump(exclude_none=True), claim.model_dump(exclude_none=True), "ip"]
    limits = [{"name": f"by-{place}", "rate": "9/min", "per": each} for place, each in enumerate(places)]
    route = Route.model_validate({"path": "/v1/*", "upstream": "api", "limits": limits})

    def rows(name: bytes, sub: bytes, address: bytes) -> tuple[Policy, ...]:
        held = create_limits(tables, route, None, METERS, b"acme", DIGEST, {"sub": sub})
        return held.build_limit_set(address, {field: name}).policies

    ada = rows(b"ada", b"1", ADDRESS)
    assert {policy.rule.scope for policy in ada} == {"end_user"}
    for policy in ada:
        policy.left(NOW)
        policy.charge(4)
    assert [policy.left(NOW) for policy in rows(b"ada", b"1", ADDRESS)] == [5, 5, 5]
    for place, other in enumerate([(b"bob", b"1", ADDRESS), (b"ada", b"2", ADDRESS), (b"ada", b"1", b"\1" * 16)]):
        left = [policy.left(NOW) for policy in rows(*other)]
        assert left == [9 if place == each else 5 for each in range(3)]


@pytest.mark.parametrize("tables", [None, Sharing], indirect=True)
@pytest.mark.parametrize(
    ("plan", "route"),
    [
        (
            Tier(limits=(limit("a"), limit("b", "5/s", scope="key")), concurrency=5),
            Route(path="/v1/*", upstream="api", name="v1"),
        ),
        (
            Tier(limits=(limit("a"),)),
            Route(path="/v1/*", upstream="api", name="v1", cost=3, limits=(route_limit("a", "9/min"),)),
        ),
        (Tier(), Route(path="/v1/*", upstream="api", name="v1", limits=(route_limit("all", "9/min", scope="route"),))),
        (Tier(limits=(limit("t", algorithm="token_bucket"),)), Route(path="/v1/*", upstream="api", name="v1")),
        (Tier(), Route(path="/v1/*", upstream="api", name="v1")),
    ],
)
def test_the_short_path_for_plain_limits_builds_an_equal_set(tables: PolicyTables, plan: Tier, route: Route) -> None:
    def show(limits: RouteLimits) -> tuple[object, ...]:
        created = limits.build_limit_set()
        rates = [(policy.rule, policy.cost, policy.counts.key) for policy in created.policies]  # type: ignore[attr-defined]
        slots = [(slot.name, slot.limit, slot.counts.key) for slot in created.slots]
        gates = [(one.rule, type(gate)) for one, gate in created.traits.sharing.gates]
        traits = created.traits
        kinds = traits.simple, traits.applies, traits.may_ask, traits.shares, traits.has_end_work, traits.plan_policies
        return rates, slots, gates, len(created.traits.sharing.totals), kinds

    limits = create_limits(tables, route, compute_allowance(plan, None), METERS, b"acme", DIGEST)
    other = create_limits(tables, route, compute_allowance(plan, None), METERS, b"acme", DIGEST)
    assert limits.terms.plain is not None
    other.terms.plain = None
    assert show(limits) == show(other)


@pytest.mark.parametrize(("columns", "is_common"), [(2, False), (2, True), (128, False)])
@pytest.mark.parametrize("algorithm", ["sliding_window", "token_bucket"])
def test_a_customers_name_alone_decides_a_plain_set(
    tmp_path: Path, columns: int, is_common: bool, algorithm: str
) -> None:
    table = Policies(limits(make(tmp_path, CUSTOMERS._replace(columns=columns)), 0), is_common=is_common)
    plan = compute_allowance(Tier(limits=(limit("a", algorithm=algorithm), limit("b", "5/s")), concurrency=5), None)
    route = Route(path="/v1/*", upstream="api", name="v1", cost=3)
    full = create_limits(PolicyTables(table, table, table, table), route, plan, METERS, b"acme", DIGEST)
    created, expected = full.terms.create_plain_set(b"acme"), full.build_limit_set()
    assert created.traits is expected.traits
    for one, other in zip(created.policies, expected.policies, strict=True):
        assert (type(one), one.rule, one.cost) == (type(other), other.rule, other.cost)
        assert one.counts.key == other.counts.key
    assert [(slot.limit, slot.counts.key) for slot in created.slots] == [(5, expected.slots[0].counts.key)]
    assert created.policies[0].left(NOW) == 60
    created.policies[0].charge(3)
    assert expected.policies[0].left(NOW) == 57
    close_all()


@pytest.mark.parametrize(("columns", "is_common"), [(4, False), (4, True), (128, False)])
@pytest.mark.parametrize("algorithms", [[], ["sliding_window"], ["token_bucket"]])
def test_rows_of_a_plain_set_are_looked_up_together(
    tmp_path: Path, columns: int, is_common: bool, algorithms: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as fixed:
        # With this seed no two of the keys have one slot of the index. Such keys are looked up one by one.
        fixed.setattr("edgeproxy.edge.counters.file.secrets.randbits", lambda bits: 1)
        path = make(tmp_path, CUSTOMERS._replace(rows=1000, columns=columns))
    rows = len(algorithms) + 2
    rates = [*[limit("a", algorithm=algorithm) for algorithm in algorithms], limit("b", "5/s")]
    table, plan = limits(path, 0), Tier(limits=tuple(rates), concurrency=5)
    route = Route(path="/v1/*", upstream="api", name="v1")
    terms = []
    for policies in (Policies(table, is_common=is_common), Policies(limits(path, 1), is_common=is_common)):
        tables = PolicyTables(policies, policies, policies, policies)
        terms.append(create_limits(tables, route, compute_allowance(plan, None), METERS, b"acme", DIGEST).terms)
    changes = table.words[at.CHANGES]
    sets = [each.create_plain_set(b"acme") for each in terms]
    for each, limit_set in zip(terms, sets, strict=True):
        each.find_rows(limit_set, b"acme", NOW)
        assert (table.rows_in_use, table.words[at.CHANGES]) == (rows, changes + 1)
    assert [admit(limit_set, NOW)[2] for limit_set in sets * 2] == [4, 3, 2, 1]
    assert [slot.counts.used for limit_set in sets for slot in limit_set.slots] == [2, 2]
    assert (table.rows_in_use, table.words[at.CHANGES]) == (rows, changes + 1)
    close_all()


def test_limits_that_find_no_rows_together_look_for_their_own(tmp_path: Path) -> None:
    table = limits(make(tmp_path, CUSTOMERS), 0)
    policies, route = Policies(table), Route(path="/v1/*", upstream="api", name="v1")
    tables, plan = PolicyTables(policies, policies, policies, policies), Tier(limits=(limit("a", "5/s"),))
    terms = create_limits(tables, route, compute_allowance(plan, None), METERS, b"acme", DIGEST).terms
    for number in range(CUSTOMERS.rows):
        table.find(table.make_key(b"%d" % number), 1_000_000, NOW)
    limit_set = terms.create_plain_set(b"acme")
    terms.find_rows(limit_set, b"acme", NOW)
    share = 5 // table.active
    assert [admit(limit_set, NOW)[0] for _ in range(share + 1)] == [False] * share + [True]
    close_all()
