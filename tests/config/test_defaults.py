"""Names of limits."""

import pytest


def names(limits):
    return [limit.name for limit in limits]


def test_limits_are_called_after_their_tier(loaded):
    settings = loaded(
        "tiers:\n  basic: {limits: [{rate: 1/s}, {rate: 2/min}, {name: own, rate: 3/h}, {rate: 4/day}]}\n"
        "customers:\n  acme: {tier: basic, limits: [{rate: 9/s}, {rate: 9/min}]}\n  plain: {tier: basic}\n"
    )
    assert names(settings.tiers["basic"].limits) == ["basic", "basic-2", "own", "basic-4"]
    assert names(settings.customers["acme"].limits) == ["basic", "basic-2"]
    assert settings.customers["plain"].limits is None


def test_a_long_name_makes_room_for_the_number(loaded):
    tier = "t" * 64
    settings = loaded(f"tiers:\n  {tier}: {{limits: [{{rate: 1/s}}, {{rate: 2/min}}]}}\n")
    assert names(settings.tiers[tier].limits) == [tier, "t" * 62 + "-2"]


@pytest.mark.parametrize(
    ("route", "called"),
    [
        ("path: /export/*, name: bulk", "bulk"),
        ("path: /export/*", "export"),
        ("path: /v1/orders", "v1-orders"),
        ("path: /.well-known/~me, host: api.example", "well-known-me"),
        ("path: /*", "route"),
        (f"path: /{'p' * 70}", "p" * 64),
    ],
)
def test_route_limits_are_named_by_route_name_or_path(loaded, route, called):
    text = f"upstreams: {{u: {{endpoints: ['http://a']}}}}\nroutes:\n  - {{{route}, upstream: u, limits: %s}}\n"
    limits = loaded(text % "[{rate: 1/s}, {rate: 2/min}, {rate: 3/h, name: own}]", alone=True).routes[0].limits
    assert names(limits) == [called, called[:62] + "-2", "own"]
    assert [limit.scope for limit in limits] == ["customer_route"] * 3


@pytest.mark.parametrize("route", ["path: '1', name: [x]", "name: '-', path: /", "upstream: u"])
def test_invalid_route_name_is_reported_once(problems, route):
    upstreams = "upstreams: {u: {endpoints: ['http://a']}}\n"
    rest = "" if "upstream" in route else ", upstream: u"
    plain, limited = (
        problems(f"{upstreams}routes: [{{{route}{rest}{limits}}}]") for limits in ("", ", limits: [{rate: 1/s}]")
    )
    assert plain == limited != []


def test_the_name_of_a_tier_is_complained_of_once(problems):
    from tests.config.conftest import LEAST

    result = problems(LEAST + "customers:\n  a: {tier: '-', limits: [{rate: 1/s}]}\n  b: {limits: [{rate: 1/s}]}\n")
    assert [line.split(", ")[0] for line in result] == [
        "edge.yaml:4: customers.a.tier: '-' is not a name",
        "edge.yaml:5: customers.b.tier: is missing",
    ]
