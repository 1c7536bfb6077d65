"""Which requests a limit names: patterns of routes, scopes, and names that no route has."""

from typing import NamedTuple

import pytest

from edgeproxy.config.customers import Customer
from edgeproxy.config.directory import parse_customer, render_line
from edgeproxy.config.edge.load import load_edge
from edgeproxy.config.limits import ConcurrencyLimit
from edgeproxy.config.problems import ConfigError
from edgeproxy.config.selection import RouteSelector, matches_pattern

LEAST = """\
state: s
upstreams: {api: {endpoints: ["http://127.0.0.1:1"]}}
routes: [{name: chat, path: /chat, upstream: api, scopes: [run]}, {path: /v1/*, upstream: api}]
"""


class Route(NamedTuple):
    """A route, as far as limits look at it."""

    label: str
    scopes: frozenset[str] = frozenset()
    response_usage: object = None


NO_SCOPE = "no route asks for the scope walk"
CHAT, RUN = Route("chat"), Route("run-all", frozenset({"execute", "read"}))


@pytest.mark.parametrize(
    ("pattern", "label", "matches"),
    [
        ("chat", "chat", True),
        ("chat", "chats", False),
        ("chat-*", "chat-a", True),
        ("chat-*", "chat", False),
        ("*", "", True),
        ("/v1/*", "/v1/*", True),
        ("*.example.com/*", "api.example.com/v1/*", True),
        ("ch?t", "chat", False),
        ("[chat]", "c", False),
        ("a*b*c", "a-b-b-c", True),
    ],
)
def test_a_pattern_has_no_other_wildcard_than_the_star(pattern: str, label: str, matches: bool) -> None:
    assert matches_pattern(pattern, label) is matches


@pytest.mark.parametrize(
    ("routes", "scopes", "selected"),
    [
        ((), (), [CHAT, RUN]),
        (("chat",), (), [CHAT]),
        ((), ("execute",), [RUN]),
        (("chat",), ("read",), [CHAT, RUN]),
        (("run-*",), ("read",), [RUN]),
    ],
)
def test_a_limit_is_of_the_routes_that_it_names_by_themselves_or_by_scopes(
    routes: tuple[str, ...], scopes: tuple[str, ...], selected: list[Route]
) -> None:
    limit = ConcurrencyLimit(max=1, routes=routes, scopes=scopes)
    selector = RouteSelector([CHAT, RUN])
    assert [route for route in (CHAT, RUN) if selector.selects(limit, route)] == selected


@pytest.mark.parametrize(("routes", "scopes"), [(("talk",), ()), ((), ("speak",)), (("run-all", "talk"), ())])
def test_limit_with_an_unknown_selector_counts_all_requests_and_is_reported(
    routes: tuple[str, ...], scopes: tuple[str, ...]
) -> None:
    reported: list[str] = []
    selector = RouteSelector([CHAT, RUN], reported.append)
    assert selector.selects(ConcurrencyLimit(max=1, routes=routes, scopes=scopes), CHAT)
    assert reported == ["route with the scope speak" if scopes else "route talk"]


@pytest.mark.parametrize(
    ("written", "place", "problem"),
    [
        ("limits: [{rate: 1/s, routes: [chta]}]", "limits.0.routes.0", "there is no route chta, did you mean chat?"),
        ("concurrency: {max: 2, routes: [chat, 'x-*']}", "concurrency.routes.1", "there is no route x-*"),
        ("quotas: [{meter: requests, per: day, included: 1, scopes: [walk]}]", "quotas.0.scopes.0", NO_SCOPE),
        ("caps: {day: 5, routes: [talk]}", "caps.routes.0", "there is no route talk"),
    ],
)
def test_unknown_route_of_a_limit_is_an_error_at_its_line(tmp_path, written: str, place: str, problem: str) -> None:
    meters = "meters: {requests: {count: requests}, cost: {count: cost}}"
    tiers = f"tiers: {{t: {{{written}}}, u: {{}}}}\ncustomers: {{a: {{tier: u, {written}}}}}"
    (tmp_path / "edge.yaml").write_text(f"{LEAST}{meters}\n{tiers}")
    with pytest.raises(ConfigError) as error:
        load_edge(tmp_path / "edge.yaml", {})
    assert f"tiers.t.{place}: {problem}" in str(error.value)
    assert f"customers.a.{place}: {problem}" in str(error.value)


def test_unknown_route_of_a_meter_is_an_error(tmp_path) -> None:
    (tmp_path / "edge.yaml").write_text(LEAST + "meters: {requests: {count: requests, routes: [talk]}}")
    with pytest.raises(ConfigError, match=r"meters\.requests\.routes\.0: there is no route talk"):
        load_edge(tmp_path / "edge.yaml", {})


def test_a_limit_of_a_route_names_no_other(tmp_path) -> None:
    limit = "{rate: 1/s, routes: [chat]}"
    (tmp_path / "edge.yaml").write_text(LEAST.replace("scopes: [run]", f"scopes: [run], limits: [{limit}]"))
    with pytest.raises(ConfigError, match="is of limits of tiers and customers, leave it out: it is of its route"):
        load_edge(tmp_path / "edge.yaml", {})


def test_limits_with_different_routes_coexist(tmp_path) -> None:
    limits = "[{rate: 1/s}, {rate: 1/s, routes: [chat]}, {rate: 1/s, scopes: [run]}, {rate: 1/s, routes: ['/v1/*']}]"
    (tmp_path / "edge.yaml").write_text(f"{LEAST}tiers: {{t: {{limits: {limits}}}}}")
    assert len(load_edge(tmp_path / "edge.yaml", {}).tiers["t"].limits) == 4
    limits = "[{rate: 1/s, routes: [chat, '/v1/*']}, {rate: 2/s, routes: ['/v1/*', chat]}]"
    (tmp_path / "edge.yaml").write_text(f"{LEAST}tiers: {{t: {{limits: {limits}}}}}")
    with pytest.raises(ConfigError, match="has the window, algorithm, scope and mode of the one at"):
        load_edge(tmp_path / "edge.yaml", {})


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("none", b'"concurrency":"none"'),
        (5, b'"concurrency":5'),
        ({"max": 5, "routes": ["chat"]}, b'"concurrency":{"max":5,"routes":["chat"]}'),
    ],
)
def test_directory_writes_concurrency_as_older_edges_read_it(written: object, line: bytes) -> None:
    customer = Customer.model_validate({"tier": "t", "concurrency": written})
    document = render_line("acme", customer, ())
    assert line in document
    text = document.decode().partition('"customer":')[2].partition(',"keys"')[0]
    assert parse_customer(text, 0.0).concurrency == customer.concurrency
