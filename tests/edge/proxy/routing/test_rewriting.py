"""Paths, fields, redirects and fixed answers, and attacks on them."""

import re
from typing import Any

import orjson
import pytest

from edgeproxy.config.edge.rewrites import VARIABLES, RequestFields, Rewrite
from edgeproxy.config.edge.routes import Route
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.exchange.rewrite_variables import FINDERS
from edgeproxy.edge.proxy.routing.rewriting import FieldEdit, Rewriter, compute_location
from loadtest.testbed.process import ROOT
from tests.support.transcript import KEY, UNLIMITED, Edge, chunks, get, head, ok, post


def rewritten(target: str, base: str = "", **rewrite: str) -> str:
    return Rewriter(Rewrite.model_validate(rewrite), base).rewrite_target(target.encode()).decode()


@pytest.mark.parametrize(
    ("target", "rewrite", "expected"),
    [
        ("/api/v1?a=/api", {"strip": "/api"}, "/v1?a=/api"),
        ("/api/", {"strip": "/api"}, "/"),
        ("/api", {"strip": "/api"}, "/"),
        ("/api", {"strip": "/api", "prefix": "/v2"}, "/v2"),
        ("/api/", {"strip": "/api", "prefix": "/v2"}, "/v2/"),
        ("/api?b", {"strip": "/api", "prefix": "/v2"}, "/v2?b"),
        ("/api//evil.example/x", {"strip": "/api"}, "/evil.example/x"),
        ("/api///", {"strip": "/api", "prefix": "/v2"}, "/v2/"),
        ("/a//b", {"prefix": "/v2"}, "/v2/a//b"),
        ("/a%2Fb", {"strip": "/", "prefix": "/"}, "/a%2Fb"),
    ],
)
def test_a_prefix_is_replaced(target: str, rewrite: dict[str, str], expected: str) -> None:
    assert rewritten(target, **rewrite) == expected


USERS = {"regex": "/users/([0-9]+)(?:/(?P<rest>.*))?", "replacement": "/{rest}/of/{1}{{}}"}


@pytest.mark.parametrize(
    ("target", "rewrite", "expected"),
    [
        ("/users/7/a%20b?c=/users/8", USERS, "/base/a%20b/of/7{}?c=/users/8"),
        ("/users/7//evil.example", USERS, "/base/evil.example/of/7{}"),
        ("/users/7", USERS, "/base/of/7{}"),
        ("/users/x", USERS, "/base/users/x"),
        ("/a/x/edit/edit", {"regex": "/a/(.*)/edit", "replacement": "/{1}"}, "/base/x/edit"),
    ],
)
def test_expression_replaces_the_path_that_it_matches(target: str, rewrite: dict[str, str], expected: str) -> None:
    assert rewritten(target, "/base", **rewrite) == expected


@pytest.mark.parametrize(
    ("path", "regex", "replacement", "status"),
    [
        ("/a./b", "/a(.*)", "/x/.{1}", 400),
        ("/a./b", "/a(.*)/b", "/x/b/{1}", 400),
        ("/a..%2Fb", "/a(.*)", "/{1}", 400),
        ("/a%2541", "/a(%)25(.*)", "/{1}{2}", 400),
        ("/a%20", "/a(.).*", "/{1}", 400),
        ("/" + "a" * (8 << 10), "/b", "/c", 414),
        ("/" + "a" * 1000, "/(.*)", "/" + "{1}" * 9, 414),
    ],
)
def test_path_that_cannot_be_rewritten_is_refused(path: str, regex: str, replacement: str, status: int) -> None:
    with pytest.raises(RejectedError) as refused:
        rewritten(path, regex=regex, replacement=replacement)
    assert refused.value.status == status


async def test_refused_rewrite_reaches_no_upstream(edge: Edge) -> None:
    """The rewrite of a fallback refuses before the first upstream is asked."""
    rewrite = {"regex": "/[xy](.*)", "replacement": "/b/.{1}"}
    edge.config["upstreams"]["spare"] = edge.config["upstreams"]["api"]
    own = {"path": "/xz", "upstream": "api", "auth": "none", "rewrite": rewrite}
    fallback = {"path": "/y.", "upstream": "api", "auth": "none", "fallback": {"upstream": "spare", "rewrite": rewrite}}
    with_routes(edge, own, fallback)
    received, _ = await edge.passes(get("/xz?b"), ok())
    assert received.first == "GET /b/.z?b HTTP/1.1"
    assert (await edge.refuses(get("/y."))).status == 400
    move = head("MOVE /ya HTTP/1.1", "Host: edge.test", "Destination: /other")
    with_routes(edge, fallback | {"path": "/ya"})
    await edge.reloads()
    assert (await edge.refuses(move)).status == 400


def test_field_edits_apply_to_every_spelling_of_a_name() -> None:
    edit = FieldEdit(RequestFields(set={"X-Internal": "edge"}, remove=("X-Debug",)))
    assert edit(b"Host: h\r\nX_Internal: forged\r\nx.debug: 1\r\n") == b"Host: h\r\nX-Internal: edge\r\n"


def test_the_path_of_the_endpoint_stands_first() -> None:
    assert rewritten("/api/x", "/base", strip="/api", prefix="/v2") == "/base/v2/x"
    assert rewritten("/x?y", "/base") == "/base/x?y"


STRIPPED = {"strip": "/shop", "prefix": "/in"}
BY_PATTERN = {"regex": "/u/([^/]+)/(.*)", "replacement": "/{2}/of/{1}"}


@pytest.mark.parametrize(
    ("rewrite", "destination", "expected"),
    [
        (STRIPPED, "/shop/b?c", "/in/b?c"),
        (STRIPPED, "https://edge.test/shop/b%20c", "https://edge.test/in/b%20c"),
        (STRIPPED, "https://edge.test/shop", "https://edge.test/in"),
        (STRIPPED, "https://shop/shop//evil.example", "https://shop/in/evil.example"),
        (STRIPPED, "/shop/a/../b", "/in/b"),
        ({"request": {"set": {"X-A": "b"}}}, "b/../c", "b/../c"),
        ({"strip": "/"}, "/a", "/a"),
        ({"prefix": "/in"}, "/a", "/in/a"),
        (BY_PATTERN, "https://edge.test/u/7/%c3%a9", "https://edge.test/%C3%A9/of/7"),
    ],
)
def test_destination_is_rewritten_like_the_path(rewrite: dict[str, Any], destination: str, expected: str) -> None:
    rewriter = Rewriter(Rewrite.model_validate(rewrite), "")
    came = f"Host: h\r\nDESTINATION: {destination}\r\nX: /shop/b\r\n".encode()
    assert rewriter.rewrite_destination(came).decode() == f"Host: h\r\nDESTINATION: {expected}\r\nX: /shop/b\r\n"


@pytest.mark.parametrize(
    ("rewrite", "destination"),
    [
        (STRIPPED, "/shopping/b"),
        (STRIPPED, "/other/b"),
        (STRIPPED, "/shop/../other"),
        (STRIPPED, "/shop/%2e%2e/other"),
        (STRIPPED, "//shop/b"),
        (STRIPPED, ""),
        (STRIPPED, "../other"),
        (STRIPPED, "http://edge.test"),
        (STRIPPED, "http:/other"),
        (STRIPPED, "dav://edge.test/other"),
        (STRIPPED, "/shop/a /../../other"),
        (STRIPPED, "/shop/a#/../../other"),
        (STRIPPED, "http://edge.test\\..\\other/shop/b"),
        (BY_PATTERN, "/users/7"),
        (BY_PATTERN, "/u/7/" + "x" * 9000),
    ],
)
def test_destination_that_is_not_on_the_route_is_refused(rewrite: dict[str, str], destination: str) -> None:
    """Left as it is, it would name another file at the upstream than a request with this path."""
    with pytest.raises(RejectedError) as refusal:
        Rewriter(Rewrite.model_validate(rewrite), "").rewrite_destination(f"Destination: {destination}\r\n".encode())
    assert refusal.value.status in (400, 414)


@pytest.mark.parametrize("rewrite", [STRIPPED, BY_PATTERN])
async def test_move_reaches_its_destination_or_is_refused(edge: Edge, rewrite: dict[str, str]) -> None:
    source, target = ("/shop/a", "/shop/b") if rewrite is STRIPPED else ("/u/7/in/a", "/u/7/in/b")
    expected = "/in/b" if rewrite is STRIPPED else "/in/b/of/7"
    with_routes(edge, {"path": f"{source[:-1]}*", "upstream": "api", "auth": "none", "rewrite": rewrite})
    begin = f"MOVE {source} HTTP/1.1", "Host: edge.test"
    received, answer = await edge.passes(head(*begin, f"Destination: http://edge.test{target}"), ok())
    assert (received["Destination"], answer.status) == (f"http://edge.test{expected}", 200)
    refused = await edge.refuses(head(*begin, "Destination: http://edge.test/other"))
    assert (refused.status, "Destination" in orjson.loads(refused.body)["detail"]) == (400, True)


def test_stripped_path_is_stated_once() -> None:
    """A trusted proxy in front may have stated its own, and a server behind may take it in another spelling."""
    came = b"Host: h\r\nx_forwarded.prefix: /a\r\nX-Forwarded-Prefix: /b\r\n"
    for strip, expected in (("/shop", b"Host: h\r\nX-Forwarded-Prefix: /shop\r\n"), ("/", came)):
        assert Rewriter(Rewrite.model_validate({"strip": strip}), "").rewrite_fields(came, str.encode) == expected
    own = Rewrite.model_validate({"strip": "/shop", "request": {"set": {"x-forwarded-prefix": "/v1{request.path}"}}})
    assert (
        Rewriter(own, "").rewrite_fields(came, lambda _: b"/shop/a") == b"Host: h\r\nx-forwarded-prefix: /v1/shop/a\r\n"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a{{b}}{header.x}", "X: a{b}<header.x>\r\n"),
        ("{{{client.address}}}", "X: {<client.address>}\r\n"),
        ("{request.path}{request.path}", "X: <request.path><request.path>\r\n"),
        ("{customer.id}", ""),
        ("{header.long}{header.long}", ""),
    ],
)
def test_variables_stand_in_braces(value: str, expected: str) -> None:
    values = {"customer.id": b" ", "header.long": b"x" * 5000}
    rewrite = Rewrite.model_validate({"request": {"set": {"X": value}}})
    lines = Rewriter(rewrite, "").rewrite_fields(b"x: client\r\n", lambda name: values.get(name, f"<{name}>".encode()))
    assert lines.decode() == expected


def test_every_variable_has_a_value_and_a_row_in_the_docs() -> None:
    assert VARIABLES.keys() == FINDERS.keys()
    page = (ROOT / "docs/edge/rewrites.md").read_text()
    rows = dict(re.findall(r"^\| `\{([a-z.]+)\}` \| (.+) \|$", page, re.MULTILINE))
    assert rows == dict(VARIABLES)


async def test_upstream_gets_the_values_of_variables(edge: Edge) -> None:
    values = {f"Y-{name.replace('.', '-')}": f"{{{name}}}" for name in VARIABLES} | {"X-Real-IP": "{client.address}"}
    rewrite = {
        "strip": "/shop",
        "request": {"set": {**values, "X-Copy": "{header.x-many}", "X-Key": "{header.x-api-key}"}},
    }
    with_routes(edge, {"name": "shop", "path": "/shop/*", "upstream": "api", "rewrite": rewrite})
    many = ("X-Many: 1", "X-Many: 2", "X-Real-IP: 1.2.3.4", "X-Customer-Id: forged")
    received, _ = await edge.passes(get("/shop/a?b", f"X-API-Key: {KEY}", *many), ok())
    assert received["X-Real-IP"] == received["Y-client-address"] == "127.0.0.1"
    assert received["Y-request-host"] == received["X-Forwarded-Host"]
    assert (received["Y-request-method"], received["Y-request-path"]) == ("GET", "/shop/a")
    assert (received["Y-request-id"], received["Y-request-scheme"]) == (received["X-Request-Id"], "http")
    assert (received["Y-customer-id"], received["Y-customer-tier"]) == ("acme", received["X-Customer-Tier"])
    assert (received["Y-route-name"], received["X-Copy"]) == ("shop", "1, 2")
    assert "X-Key" not in received
    assert received["X-Forwarded-Prefix"] == "/shop"


def led(path: str, to: str, target: str, host: str = "edge.test") -> str:
    route = Route.model_validate({"path": path, "redirect": to})
    assert route.redirect is not None
    first, lines = f"GET {target} HTTP/1.1\r\n".encode(), f"Host: {host}\r\nX-Forwarded-Host: {host}\r\n".encode()
    return compute_location(route.redirect, route.prefix, first, lines).decode()


@pytest.mark.parametrize(
    ("path", "to", "target", "expected"),
    [
        ("/old/*", "https://b.example/new/*", "/old/a/b?c=d", "https://b.example/new/a/b?c=d"),
        ("/old/*", "https://b.example", "/old/a?c", "https://b.example?c"),
        ("/old/*", "/*", "/old//evil.example/x", "/evil.example/x"),
        ("/old/*", "/*", "/old///evil.example", "/evil.example"),
        ("/old/*", "https://b.example/*", "/old/@evil.example", "https://b.example/@evil.example"),
        ("/old/*", "https://b.example/*", "/old/.evil.example", "https://b.example/.evil.example"),
        ("/old", "/new?x=y", "/old?x=z", "/new?x=y"),
        ("/old/*", "/new/*", "/old?x=z", "/new/?x=z"),
        ("/*", "https", "/a?b=c", "https://edge.test/a?b=c"),
        ("/*", "https", "//evil.example/a", "https://edge.test//evil.example/a"),
    ],
)
def test_redirect_leads_to_its_configured_target(path: str, to: str, target: str, expected: str) -> None:
    assert led(path, to, target) == expected


def test_a_port_without_tls_is_not_that_of_tls() -> None:
    assert led("/*", "https", "/", "Edge.test.:8080") == "https://edge.test/"


def with_routes(edge: Edge, *routes: dict[str, Any]) -> None:
    edge.config["routes"] = [*routes, *edge.config["routes"]]


async def test_route_rewrites_the_request_for_the_upstream(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["endpoints"] = [f"{edge.upstream.url}/base"]
    request = {"set": {"X-Own": "edge", "Authorization": "Bearer of-the-upstream"}, "remove": ["Cookie", "Via"]}
    rewrite = {"strip": "/shop", "request": request}
    with_routes(edge, {"name": "shop", "path": "/shop/*", "upstream": "api", "rewrite": rewrite})
    fields = (f"X-API-Key: {KEY}", "x-own: client", "COOKIE: a=b", "Via: 1.1 other", "X-Kept: yes")
    for body in (b"", b"content"):
        received, _ = await edge.passes(post(body, "/shop/a%20b?c=d", *fields), ok())
        assert received.first == "POST /base/a%20b?c=d HTTP/1.1"
        assert received.all("X-Own") == ["edge"]
        assert received.all("Authorization") == ["Bearer of-the-upstream"]
        assert "Cookie" not in received
        assert "Via" not in received
        assert received["X-Kept"] == "yes"
        assert received["X-Customer-Id"] == "acme"
        assert received.body == body
    received, _ = await edge.passes(get("/public/x"), ok())
    assert received.first == "GET /base/public/x HTTP/1.1"
    assert "Via" in received


async def test_bare_prefix_path_gets_the_treatment_of_its_route(edge: Edge) -> None:
    """The prefix itself has the key, limits, rewriting and route of the paths below it."""
    shop = {"name": "shop", "path": "/shop/*", "upstream": "api", "limits": [{"rate": "3/min", "name": "shop"}]}
    with_routes(edge, {**shop, "rewrite": {"strip": "/shop", "prefix": "/in"}})
    assert (await edge.refuses(get("/shop"))).status == 401
    for path, asked in (("/shop", "/in"), ("/shop/", "/in/"), ("/shop?a=/shop", "/in?a=/shop")):
        received, _ = await edge.passes(post(b"buy", path, f"X-API-Key: {UNLIMITED}"), ok())
        assert received.first == f"POST {asked} HTTP/1.1"
    assert (await edge.refuses(get("/shop", f"X-API-Key: {UNLIMITED}"))).status == 429
    assert edge.count("edge_requests_total", "shop", "free", "200") == 3
    assert (await edge.refuses(get("/shopx", f"X-API-Key: {UNLIMITED}"))).status == 404


ANSWERS = {
    "whole": ok(b"hello", "Server: a", "Cache-Control: public", "via: 1.1 b", "X-Frame-Options: DENY"),
    "in chunks": head("HTTP/1.1 200 OK", "Server: a", "Via: 1.1 b", "Transfer-Encoding: chunked") + chunks(b"hello"),
    "not modified": head("HTTP/1.1 304 Not Modified", "Server: a", "Via: 1.1 b"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_route_rewrites_the_answer_for_the_client(edge: Edge, name: str) -> None:
    edge.config["security_headers"] = True
    fields = {"set": {"Cache-Control": "no-store", "X-Frame-Options": "SAMEORIGIN"}, "remove": ["Server", "Via"]}
    with_routes(edge, {"path": "/own/*", "upstream": "api", "auth": "none", "rewrite": {"response": fields}})
    edge.upstream.answers(lambda request: ANSWERS[name])
    client = await edge.client()
    for _ in range(3):
        answer = await client.asks(get("/own/x"))
        assert answer.all("Cache-Control") == ["no-store"]
        assert answer.all("X-Frame-Options") == ["SAMEORIGIN"]
        assert "Server" not in answer
        assert "Via" not in answer
        assert answer.body == (b"" if name == "not modified" else b"hello")


async def test_redirect_and_fixed_answer_use_no_upstream(edge: Edge) -> None:
    moved = {"path": "/old/*", "redirect": "https://b.example/new/*"}
    fixed = {"path": "/gone", "respond": {"status": 410, "body": "gone", "type": "text/html"}}
    with_routes(edge, moved, fixed, {"path": "/nothing", "respond": {"status": 204}})
    client = await edge.client()
    for method in ("GET", "HEAD"):
        await client.sends(head(f"{method} /old/a?b HTTP/1.1", "Host: h"), head(f"{method} /gone HTTP/1.1", "Host: h"))
        answer = await client.gets_answer(method)
        assert (answer.status, answer["Location"], answer.body) == (308, "https://b.example/new/a?b", b"")
        assert "Content-Type" not in answer
        answer = await client.gets_answer(method)
        assert (answer.status, answer["Content-Type"], answer["Content-Length"]) == (410, "text/html", "4")
        assert answer.body == (b"gone" if method == "GET" else b"")
    assert (await client.asks(get("/nothing"))).status == 204
    assert (await client.asks(post(b"x" * 10, "/old/x"), to="POST")).status == 308
    assert edge.usage() == {}
    assert edge.count("edge_requests_total", "/gone", "-", "410") == 2


async def test_https_redirect_applies_only_without_tls(edge: Edge) -> None:
    edge.config["trusted_proxies"] = ["127.0.0.0/8"]
    with_routes(edge, {"name": "safe", "path": "/safe/*", "upstream": "api", "redirect": "https"})
    answer = await edge.refuses(get("/safe/x?y", f"X-API-Key: {UNLIMITED}"))
    assert (answer.status, answer["Location"]) == (308, "https://edge.test/safe/x?y")
    _, answer = await edge.passes(get("/safe/x", f"X-API-Key: {UNLIMITED}", "X-Forwarded-Proto: https"), ok())
    assert answer.status == 200
    assert (await edge.refuses(get("/safe/x", "X-Forwarded-Proto: https"))).status == 401


async def test_https_redirect_without_a_host_answers_400(edge: Edge) -> None:
    """Neither to the name that the upstream is given, nor to the edge's own address."""
    edge.config["trusted_proxies"] = ["127.0.0.2"]
    with_routes(edge, {"path": "/safe/*", "upstream": "api", "redirect": "https"})
    for fields in ((), ("X-Forwarded-Host: evil.example",)):
        answer = await edge.refuses(head("GET /safe/x HTTP/1.0", *fields))
        assert (answer.status, answer.all("Location")) == (400, [])
    client = await edge.client("127.0.0.2")
    await client.sends(head("GET /safe/x HTTP/1.0", "X-Forwarded-Host: Edge.test, inner"))
    assert (await client.gets_answer())["Location"] == "https://edge.test/safe/x"
    await client.gets_eof()


@pytest.mark.parametrize(
    ("target", "status"),
    [("/old/%0d%0aSet-Cookie:a=b", 308), ("/old/a?%0d%0aX:b", 308), ("/old/%5c%5cevil.example", 400)],
)
async def test_no_path_splits_an_answer(edge: Edge, target: str, status: int) -> None:
    with_routes(edge, {"path": "/old/*", "redirect": "/new/*"})
    answer = await edge.refuses(get(target))
    assert answer.status == status
    assert "Set-Cookie" not in answer
    assert answer.status == 400 or answer["Location"].startswith("/new/")
