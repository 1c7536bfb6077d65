"""Plans and routes as rows: whom each limit counts by, which are one, and what a head says of a cost."""

from typing import Any

import pytest

from edgeproxy.config.models import BurstCredits, Limit, RouteLimit
from edgeproxy.config.units import COUNT_MAX
from edgeproxy.limits.limit_set import Applied, applied, concurrency_rule, cost_in, credits_rule, field, rule_of, whom

DIGEST = bytes(range(32))
ADDRESS = bytes((192, 0, 2, 1))


def limit(name: str, rate: str = "60/min", **settings: Any) -> Limit:
    return Limit.model_validate({"name": name, "rate": rate, **settings})


def route_limit(name: str, rate: str = "60/min", **settings: Any) -> Limit:
    return RouteLimit.model_validate({"name": name, "rate": rate, **settings})


def acme(scope: str) -> tuple[str, str, bytes]:
    return whom(scope, "v1", b"acme", DIGEST, ADDRESS)


def nobody(scope: str) -> tuple[str, str, bytes]:
    return whom(scope, "v1", None, b"", ADDRESS)


def names(found: list[Applied]) -> list[tuple[str, bool]]:
    """Which limits apply, each with whether it is of the plan."""
    return [(each.rule.name, each.of_plan) for each in found]


def test_whom_a_limit_of_a_customer_counts_by() -> None:
    assert acme("customer") == ("customers", "customer", b"acme")
    assert acme("key") == ("customers", "key", DIGEST)
    assert acme("ip") == ("addresses", "ip", ADDRESS)
    assert acme("route") == ("customers", "route", b"v1")
    assert acme("customer_route") == ("customers", "customer_route", b"acme\0v1")


def test_whom_a_limit_of_those_without_a_key_counts_by() -> None:
    for scope in ("customer", "key", "ip"):
        assert nobody(scope) == ("addresses", "ip", ADDRESS)
    assert nobody("route") == ("customers", "route", b"v1")
    assert nobody("customer_route") == ("addresses", "customer_route", ADDRESS + b"\0v1")


def test_no_two_of_them_have_one_row() -> None:
    scopes = ("customer", "key", "ip", "route", "customer_route")
    rows = {
        (table, rule_of(limit("a"), scope).key(subject))
        for by in (acme, nobody)
        for table, scope, subject in map(by, scopes)
    }
    # By address, and on a route, it is the same whoever asks.
    assert len(rows) == 5 + 1


def test_limits_that_differ_in_anything_are_all_held_to() -> None:
    limits = [
        (True, limit("a")),
        (True, limit("b", "60/h")),
        (True, limit("c", algorithm="token_bucket")),
        (True, limit("d", mode="shadow")),
        (True, limit("e", scope="key")),
        (False, route_limit("f")),
    ]
    assert names(applied(limits, acme)) == [(name, name != "f") for name in "abcdef"]


@pytest.mark.parametrize(("of_plan", "of_route", "holds"), [(60, 70, "plan"), (70, 60, "route"), (60, 60, "route")])
def test_of_two_that_are_one_the_lesser_holds(of_plan: int, of_route: int, holds: str) -> None:
    limits = [
        (True, limit("other", "60/h")),
        (True, limit("plan", f"{of_plan}/min")),
        (False, route_limit("first", "60/h")),
        (False, route_limit("route", f"{of_route}/min", scope="customer")),
    ]
    found = applied(limits, acme)
    assert sorted(names(found)) == sorted([("first", False), ("other", True), (holds, holds == "plan")])
    assert [each.of_plan for each in found] == sorted([each.of_plan for each in found], reverse=True)


def test_of_two_buckets_that_are_one_the_shallower_holds() -> None:
    bucket = {"algorithm": "token_bucket", "scope": "route"}
    limits = [(True, limit("plan", burst=10, **bucket)), (False, route_limit("route", burst=20, **bucket))]
    assert names(applied(limits, acme)) == [("plan", True)]


def test_what_is_charged_in_another_way_is_one_row_all_the_same() -> None:
    limits = [(True, limit("plan", "50/min", cost_header="X-Cost")), (False, route_limit("route", scope="customer"))]
    (found,) = applied(limits, acme)
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
def test_what_a_head_says_of_a_cost(said: bytes, cost: int | None) -> None:
    assert cost_in(b"HTTP/1.1 200 OK\r\nA: 1\r\n" + said + b"\r\nB: 2\r\n", field("X-Cost")) == cost
    assert cost_in(b"HTTP/1.1 200 OK\r\n" + said + b"\r\n", field("X-Cost")) == cost


def test_no_head_says_nothing() -> None:
    assert cost_in(b"", field("X-Cost")) is None


def test_what_a_name_has_of_a_pattern_is_no_pattern() -> None:
    """These are letters of names of fields too (RFC 9110 section 5.6.2)."""
    head = b"HTTP/1.1 200 OK\r\nX.Cost*|^$+: 7\r\nXyCost: 8\r\n"
    assert cost_in(head, field("X.Cost*|^$+")) == 7
    assert cost_in(head, field("X.Cost")) is None
