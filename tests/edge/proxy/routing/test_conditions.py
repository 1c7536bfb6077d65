"""Routes by header, query and wildcard segments: compared with a naive matcher, and on connections of a real worker."""

import re
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.config.edge.routes import Route
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.exchange.refused_head import read_refused_head
from edgeproxy.edge.proxy.routing.conditions import Conditions
from edgeproxy.edge.proxy.routing.router import Router
from tests.support.http2_wire import http2
from tests.support.transcript import Edge, get, head, ok


class Leads(NamedTuple):
    """A route as the router sees it, and its conditions as written."""

    host: bytes | None
    path: bytes
    methods: frozenset[bytes] | None
    headers: dict[str, tuple[str, ...]]
    query: dict[str, tuple[str, ...]]
    is_flagged: bool = False

    @property
    def conditions(self) -> Conditions | None:
        return Conditions(self.headers, self.query) or None


HOSTS = (b"api.test", b"*.test", None)
VALUES = st.sampled_from([("1",), ("2", "3"), ("*",), ("",), ("1, 2",)])
SEGMENTS = st.sampled_from([b"a", b"b", b"*"])
PATHS = st.lists(SEGMENTS, min_size=1, max_size=3).map(lambda parts: b"/" + b"/".join(parts))
ROUTES = st.builds(
    Leads,
    st.sampled_from(HOSTS),
    PATHS,
    st.sampled_from([None, None, frozenset({b"GET"}), frozenset({b"POST", b"GET"})]),
    st.dictionaries(st.sampled_from(["X-A", "x-b"]), VALUES, max_size=2),
    st.dictionaries(st.sampled_from(["q", "é "]), VALUES, max_size=1),
    is_flagged=st.just(False),
)
REQUEST_VALUES = st.lists(st.sampled_from(["1", "2", "3", ""]), max_size=2)


def find_naively(routes: list[Leads], path: bytes, method: bytes, fields: dict[str, list[str]], q: list[str]) -> Any:
    """Return the route of a request to api.test; the status if there is none."""

    def meets(route: Leads) -> bool:
        by_field = all(
            fields[name.lower()] and ("*" in values or ", ".join(fields[name.lower()]) in values)
            for name, values in route.headers.items()
        )
        by_query = all(
            name == "q" and q and ("*" in values or (len(q) == 1 and q[0] in values))
            for name, values in route.query.items()
        )
        return bool(by_field and by_query)

    def leads(pattern: bytes) -> bool:
        written = re.escape(pattern.removesuffix(b"/*")).replace(rb"\*", rb"[^/]+")
        return re.fullmatch(written + (rb"(/.*)?" if pattern.endswith(b"/*") else b""), path) is not None

    def specificity(pattern: bytes) -> list[int]:
        parts = pattern.split(b"/")[1:]
        return [(2 if at + 1 == len(parts) else 1) if part == b"*" else 0 for at, part in enumerate(parts)]

    met = [route for route in routes if meets(route)]
    for number, host in enumerate(HOSTS):
        matching = [route for route in met if route.host == host and leads(route.path)]
        patterns = sorted({route.path for route in matching}, key=specificity)
        if not patterns:
            continue
        is_name = patterns[0].endswith(b"/*") and leads(patterns[0][:-2])
        wider = [route.path for route in met if route.host in HOSTS[number + 1 :]]
        if len(patterns) == 1 and is_name and path in wider:
            continue
        group = [route for route in matching if route.path == patterns[0]]
        takers = [route for route in group if route.methods and method in route.methods]
        takers = takers or [route for route in group if route.methods is None]
        return min(takers, key=lambda taker: (-len(taker.headers), -len(taker.query))) if takers else 405
    return 404


@settings(max_examples=8 * settings().max_examples)
@given(
    st.lists(ROUTES, min_size=1, max_size=8),
    st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=4),
    st.sampled_from([b"GET", b"PUT"]),
    REQUEST_VALUES,
    REQUEST_VALUES,
    REQUEST_VALUES,
)
def test_router_finds_the_route_of_a_naive_matcher(
    routes: list[Leads], segments: list[str], method: bytes, a: list[str], b: list[str], q: list[str]
) -> None:
    path = f"/{'/'.join(segments)}".encode()
    lines = [*(f"x-A: {value}" for value in a), *(f"X-B: {value}" for value in b)]
    query = "&".join(f"q={value}" for value in q)
    request = read_refused_head(head(f"{method.decode()} {path.decode()}?{query} HTTP/1.1", *lines))
    try:
        result: Any = Router(routes).find_site(b"api.test").match(path, method, request)
    except RejectedError as error:
        result = error.status
    expected = find_naively(routes, path, method, {"x-a": a, "x-b": b}, q)
    assert result is expected or result == expected


def test_routes_put_first_precede_wildcard_segments_and_end() -> None:
    every, orders, first = (Leads(None, path, None, {}, {}) for path in (b"/*", b"/users/*/orders", b"/users/1/orders"))
    router = Router([every, orders])
    request = read_refused_head(head("GET / HTTP/1.1"))

    def find(path: bytes) -> Leads:
        return router.find_site(b"api.test").match(path, b"GET", request)

    router.put_first([first])
    assert find(first.path) is first
    assert find(b"/users/2/orders") is orders
    router.put_first([])
    assert find(first.path) is orders


@pytest.mark.parametrize(
    ("value", "query", "meets"),
    [
        ("a b&", "?a=a%20b%26", True),
        ("a b&", "?a=a+b%26&c", True),
        ("1", "?%61=1", True),
        ("1", "?a=1&a=1", False),
        ("1", "?a=1&%61=2", False),
        ("*", "?a=1&a=2", True),
        ("", "?a", True),
        ("", "?a=", True),
        ("*", "?a", True),
        ("", "?&", False),
        ("", "", False),
        ("1", "?b=?a=1", False),
        ("é", "?a=%C3%A9", True),
        ("%31", "?a=1", False),
    ],
)
def test_parameter_is_compared_in_its_decoded_form(value: str, query: str, meets: bool) -> None:
    settings = Route.model_validate({"path": "/", "query": {"a": value}})
    request = read_refused_head(head(f"GET /{query} HTTP/1.1"))
    assert Conditions(settings.headers, settings.query).matches(request) is meets


ASKS = ("Origin: https://app.example.com", "Access-Control-Request-Method: GET")
ANNOUNCES = "Access-Control-Request-Headers: a, X-Version"


@pytest.mark.parametrize(
    ("method", "fields", "meets"),
    [
        ("OPTIONS", (*ASKS, ANNOUNCES), True),
        ("OPTIONS", (*ASKS, "Access-Control-Request-Headers: a"), False),
        ("OPTIONS", (ASKS[0], ANNOUNCES), False),
        ("OPTIONS", (ASKS[1], ANNOUNCES), False),
        ("GET", (*ASKS, ANNOUNCES), False),
        ("OPTIONS", (*ASKS, ANNOUNCES, "X-Version: 1"), False),
    ],
)
def test_preflight_meets_the_fields_that_it_announces(method: str, fields: tuple[str, ...], meets: bool) -> None:
    request = read_refused_head(head(f"{method} / HTTP/1.1", *fields))
    assert Conditions({"X-Version": ("2",)}, {}).matches(request) is meets


def with_routes(edge: Edge, *routes: dict[str, Any]) -> None:
    edge.config["routes"] = [*routes, *edge.config["routes"]]


BY_CONDITION = (
    {"name": "plain", "path": "/v/*", "auth": "none", "upstream": "api"},
    {"name": "beta", "path": "/v/*", "auth": "none", "upstream": "api", "headers": {"X-Version": ["beta", "next"]}},
    {"name": "german", "path": "/v/*", "auth": "none", "upstream": "api", "query": {"lang": "de"}},
    {"name": "segment", "path": "/v/*/orders", "auth": "none", "upstream": "api"},
)
REQUESTS = (
    ("/v/a", (), "plain"),
    ("/v/a", ("x-version: beta",), "beta"),
    ("/v/a", ("X-VERSION:  next ",), "beta"),
    ("/v/a", ("X-Version: beta", "X-Version: beta"), "plain"),
    ("/v/a", ("X-Version: beta", "Connection: X-Version"), "plain"),
    ("/v/a?lang=de", (), "german"),
    ("/v/a?lang=de", ("X-Version: beta",), "beta"),
    ("/v/a?lang=de&lang=en", (), "plain"),
    ("/v/a/orders", (), "segment"),
    ("/v/x/../b/%6frders", (), "segment"),
    ("/v//orders", (), "plain"),
    ("/v/a/b/orders", (), "plain"),
)


async def test_each_request_of_a_connection_is_routed_by_its_fields_and_query(edge: Edge) -> None:
    """The edge caches heads, blocks of fields, and blocks without the lines that change: each is seen often here."""
    named = [{**one, "rewrite": {"request": {"set": {"X-Route": "{route.name}"}}}} for one in BY_CONDITION]
    with_routes(edge, *named)
    edge.upstream.answers(lambda request: ok(request["X-Route"].encode()))
    client = await edge.client()
    for turn in range(8):
        for target, fields, expected in REQUESTS:
            for changing in ((), (f"X-Turn: {turn}",)):
                answer = await client.asks(get(target, *fields, *changing))
                assert (answer.status, answer.body.decode()) == (200, expected), (target, fields, changing)


@pytest.mark.parametrize("version", ["1", "2"])
async def test_upgrade_request_is_routed_by_its_field_and_query(edge: Edge, version: str) -> None:
    """The head of an upgrade is read by the reader of unusual requests."""
    public = {"auth": "none", "upstream": "api"}
    by_field = {"name": "two", "path": "/ws", **public, "headers": {"X-Version": "2"}, "query": {"a": version}}
    with_routes(edge, {"name": "one", "path": "/ws", **public}, by_field)
    edge.upstream.answers(lambda request: ok())
    client = await edge.client()
    switching = ("Connection: Upgrade", "Upgrade: websocket", "X-Version: 2")
    assert (await client.asks(get("/ws?a=1", *switching))).status == 200
    assert edge.count("edge_requests_total", "two" if version == "1" else "one", "-", "200") == 1


async def test_each_http2_stream_is_routed_by_its_fields(edge: Edge) -> None:
    named = [{**one, "rewrite": {"request": {"set": {"X-Route": "{route.name}"}}}} for one in BY_CONDITION]
    with_routes(edge, *named)
    edge.upstream.answers(lambda request: ok(request["X-Route"].encode()))
    client = await http2(edge)
    for _ in range(4):
        for target, fields, expected in REQUESTS:
            if any(field.startswith("Connection") for field in fields):
                continue  # HTTP/2 has no such field.
            pairs = [(name.lower(), value.strip()) for name, value in (field.split(":") for field in fields)]
            assert (await client.asks(target, *pairs)).body.decode() == expected, (target, fields)


async def test_options_with_a_body_is_no_preflight_and_must_have_the_field(edge: Edge) -> None:
    by_field = {"name": "open", "path": "/o/*", "auth": "none", "upstream": "api", "headers": {"X-Version": "2"}}
    with_routes(edge, {"path": "/o/*", "upstream": "api"}, by_field)
    edge.upstream.answers(lambda request: ok())
    announced = ("OPTIONS /o/a HTTP/1.1", "Host: h", *ASKS, "Access-Control-Request-Headers: x-version")
    for more, status, body in (
        ("X-A: b", 200, b""),
        ("Content-Length: 1", 401, b"a"),
        ("Transfer-Encoding: chunked", 401, b"1\r\na\r\n0\r\n\r\n"),
        ("Connection: Upgrade\r\nUpgrade: websocket", 401, b""),
    ):
        client = await edge.client()
        assert (await client.asks(head(*announced, more) + body)).status == status, more


async def test_escaped_slash_that_leads_to_a_route_of_wildcards_is_refused(edge: Edge) -> None:
    with_routes(edge, *BY_CONDITION)
    edge.upstream.answers(lambda request: ok())
    client = await edge.client()
    assert (await client.asks(get("/v/a%2Fb"))).status == 200
    assert (await client.asks(get("/v/a%2Forders"))).status == 400


async def test_redirect_puts_the_rest_behind_wildcards_into_its_target(edge: Edge) -> None:
    with_routes(edge, {"path": "/u/*/old/*", "redirect": "/new/*"})
    client = await edge.client()
    for target, place in (("/u/long/old/a/b?c", "/new/a/b?c"), ("/u/x/old", "/new/"), ("/u/x/old//y", "/new/y")):
        assert (await client.asks(get(target)))["Location"] == place
