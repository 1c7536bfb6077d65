"""The way back of rewritten paths: what answers say of places and cookies."""

from typing import Any

import pytest

from edgeproxy.config.edge.rewrites import Rewrite
from edgeproxy.edge.proxy.routing.reverse_mapping import ReverseMapping, create_reverse_mapping
from tests.support.transcript import KEY, Edge, chunks, get, head, ok, post

ASKED, OWN = b"edge.test", (b"10.0.0.5:80", b"shop.internal")
STRIPPED = ReverseMapping("/shop", "")
MOVED = ReverseMapping("/shop", "/in")
DEEPER = ReverseMapping("/shop", "/shop/v2")
ADDED = ReverseMapping("", "/in")


def mapped(mapping: ReverseMapping, line: str) -> str:
    lines = mapping.apply(f"HTTP/1.1 200 OK\r\n{line}\r\nX-A: /b\r\n".encode(), ASKED, OWN).decode()
    assert lines.startswith("HTTP/1.1 200 OK\r\n")
    assert lines.endswith("\r\nX-A: /b\r\n")
    return lines.split("\r\n")[1]


@pytest.mark.parametrize(
    ("mapping", "place", "expected"),
    [
        (STRIPPED, "/login?next=/#top", "/shop/login?next=/#top"),
        (STRIPPED, "/", "/shop/"),
        (STRIPPED, "/shopping", "/shop/shopping"),
        (STRIPPED, "/shop", "/shop"),
        (STRIPPED, "/shop/login", "/shop/login"),
        (STRIPPED, "http://edge.test/login", "http://edge.test/shop/login"),
        (STRIPPED, "HTTPS://Edge.Test:443?a", "HTTPS://Edge.Test:443/shop/?a"),
        (STRIPPED, "//edge.test/login", "//edge.test/shop/login"),
        (STRIPPED, "http://10.0.0.5/login", "/shop/login"),
        (STRIPPED, "https://shop.internal/shop/login", "/shop/login"),
        (STRIPPED, "http://shop.internal:80", "/shop/"),
        (MOVED, "/in/login", "/shop/login"),
        (MOVED, "/in", "/shop"),
        (MOVED, "/inner", "/inner"),
        (MOVED, "/shop/login", "/shop/login"),
        (MOVED, "http://10.0.0.5/login", "http://10.0.0.5/login"),
        (DEEPER, "/shop/v2/login", "/shop/login"),
        (DEEPER, "/shop/login", "/shop/login"),
        (ADDED, "/in/login", "/login"),
        (ADDED, "/in", "/"),
        (ADDED, "/login", "/login"),
    ],
)
def test_a_place_of_the_service_is_named_as_clients_ask_for_it(
    mapping: ReverseMapping, place: str, expected: str
) -> None:
    assert mapped(mapping, f"Location: {place}") == f"Location: {expected}"
    assert mapped(mapping, f"content-location:{place}").removeprefix("content-location:").strip() == expected


@pytest.mark.parametrize(
    "place",
    [
        *("", "login", "../login", "?page=2", "#top", "mailto:a@edge.test", "javascript://edge.test/%0aalert()"),
        *("https://evil.example/login", "//evil.example/in/x", "///evil.example/in/x", "http://edge.test:8080/in/x"),
        *("http://edge.test@evil.example/in/x", "http://evil.example?edge.test/in/x", "http:///in/x", "http:/in/x"),
        *("\\\\evil.example/in/x", "/\\evil.example/in", "/in/\\evil.example", "/in\t/evil.example"),
        *("/in/\t/evil.example", "http://10.0.0.5\\@evil.example/in/x", "/in/ /evil.example", "ftp://edge.test/in/x"),
    ],
)
@pytest.mark.parametrize("mapping", [STRIPPED, MOVED, ADDED])
def test_location_outside_the_mapping_stays_unchanged(mapping: ReverseMapping, place: str) -> None:
    """And so does what browsers may read in another way than the edge."""
    assert mapped(mapping, f"Location: {place}") == f"Location: {place}"


@pytest.mark.parametrize("place", ["/in//evil.example", "http://10.0.0.5/in//evil.example", "/in///evil.example"])
def test_mapped_location_names_no_host(place: str) -> None:
    assert mapped(ADDED, f"Location: {place}") == "Location: /evil.example"
    assert mapped(MOVED, f"Location: {place}").startswith("Location: /shop//")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5; url=/x", "5; url=/shop/x"),
        ("0;URL='http://10.0.0.5/x?a' ; more", "0;URL='/shop/x?a' ; more"),
        ('1.5, "/x"', '1.5, "/shop/x"'),
        ("5;/x", "5;/shop/x"),
        ("5; url=https://evil.example/", "5; url=https://evil.example/"),
        ("5", "5"),
        ("5; url='/x", "5; url='/shop/x"),
    ],
)
def test_a_page_is_refreshed_from_where_it_is(value: str, expected: str) -> None:
    assert mapped(STRIPPED, f"Refresh: {value}") == f"Refresh: {expected}"


@pytest.mark.parametrize(
    ("mapping", "value", "expected"),
    [
        (STRIPPED, "a=/; Path=/; HttpOnly", "a=/; Path=/shop; HttpOnly"),
        (STRIPPED, "a=b;PATH = /admin/;Secure", "a=b;PATH =/shop/admin/;Secure"),
        (STRIPPED, "a=b; path=/shop/x", "a=b; path=/shop/x"),
        (STRIPPED, "a=b; path=/x; path=/y", "a=b; path=/shop/x; path=/shop/y"),
        (MOVED, "a=b; path=/in", "a=b; path=/shop"),
        (MOVED, "a=b; path=/", "a=b; path=/shop"),
        (MOVED, "a=b; path=/in/x", "a=b; path=/shop/x"),
        (ReverseMapping("/shop", "/a/b"), "a=b; path=/a/", "a=b; path=/shop"),
        *(
            (mapping, value, value)
            for mapping, value in (
                (STRIPPED, "a=b"),
                (STRIPPED, "path=/; Secure"),
                (STRIPPED, "a=b; Path"),
                (STRIPPED, "a=b; Path=x"),
                (STRIPPED, "__Host-a=b; Secure; Path=/"),
                (MOVED, "a=b; path=/other"),
                (ADDED, "a=b; path=/in"),
                (ReverseMapping("/shop", "", cookies=False), "a=b; path=/"),
            )
        ),
    ],
)
def test_cookie_path_is_mapped_to_the_public_path(mapping: ReverseMapping, value: str, expected: str) -> None:
    assert mapped(mapping, f"Set-Cookie: {value}") == f"Set-Cookie: {expected}"


def test_disabled_reverse_mapping_changes_nothing() -> None:
    cookies_alone = create_reverse_mapping(Rewrite(strip="/shop", locations=False), "/in")
    assert cookies_alone is not None
    assert mapped(cookies_alone, "Location: /in/x") == "Location: /in/x"
    assert mapped(cookies_alone, "Set-Cookie: a=b; Path=/in/x") == "Set-Cookie: a=b; Path=/shop/x"
    assert create_reverse_mapping(Rewrite(strip="/shop", locations=False, cookies=False), "") is None
    assert create_reverse_mapping(Rewrite(), "") is None
    assert create_reverse_mapping(Rewrite(), "/in") is not None


def with_shop(edge: Edge, **more: Any) -> None:
    shop = {"name": "shop", "path": "/shop/*", "upstream": "api", "auth": "none", "rewrite": {"strip": "/shop"}}
    edge.config["routes"] = [{**shop, **more}, *edge.config["routes"]]


PLACES = ("Location: /login", "Set-Cookie: a=b; Path=/", "Set-Cookie: c=d; Path=/e")
ANSWERS = {
    "whole": ok(b"hello", *PLACES),
    "in chunks": head("HTTP/1.1 302 Found", *PLACES, "Transfer-Encoding: chunked") + chunks(b"hello"),
    "not modified": head("HTTP/1.1 304 Not Modified", *PLACES),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("finished", [False, True])
async def test_a_client_gets_places_that_it_can_ask_for(edge: Edge, name: str, finished: bool) -> None:
    """This also holds for remembered heads, and for another route's answer with an equal head."""
    with_shop(edge, **({"cors": {"origins": ["https://a.example"]}} if finished else {}))
    edge.config["security_headers"] = True
    edge.upstream.answers(lambda request: ANSWERS[name])
    client = await edge.client()
    for _ in range(3):
        answer = await client.asks(get("/shop/x"))
        assert answer["Location"] == "/shop/login"
        assert answer.all("Set-Cookie") == ["a=b; Path=/shop", "c=d; Path=/shop/e"]
        assert len(answer.all("X-Content-Type-Options")) == (name != "not modified")
        other = await client.asks(get("/public/x"))
        assert (other["Location"], other.all("Set-Cookie")) == ("/login", ["a=b; Path=/", "c=d; Path=/e"])


@pytest.mark.parametrize(
    ("asked_as", "named", "expected"),
    [
        ("pass", "edge.test", "http://edge.test/shop/login"),
        ("pass", "ENDPOINT", "/shop/login"),
        ("upstream", "ENDPOINT", "/shop/login"),
        ("shop.internal", "shop.internal", "/shop/login"),
        ("pass", "shop.internal", "http://shop.internal/login"),
    ],
)
async def test_location_with_the_upstream_host_is_rewritten(
    edge: Edge, asked_as: str, named: str, expected: str
) -> None:
    with_shop(edge)
    edge.config["upstreams"]["api"]["host"] = asked_as
    named = named.replace("ENDPOINT", f"127.0.0.1:{edge.upstream.port}")
    for request in (get("/shop/x"), post(b"buy", "/shop/x")):
        _, answer = await edge.passes(request, ok(b"", f"Location: http://{named}/login"))
        assert answer["Location"] == expected


@pytest.mark.parametrize("path", ["/shop/x", "/public/x"])
async def test_a_client_that_names_no_host_is_not_sent_to_one_that_is_made_up(edge: Edge, path: str) -> None:
    with_shop(edge)
    for sent, expected in (
        ("http://localhost/login", "/shop/login" if path == "/shop/x" else "/login"),
        ("http://localhost//evil.example", "/shop//evil.example" if path == "/shop/x" else "/evil.example"),
        ("http://evil.example/login", "http://evil.example/login"),
    ):
        client = await edge.client()
        await client.sends(head(f"GET {path} HTTP/1.0"))
        upstream = await edge.upstream.accepts()
        assert (await upstream.gets_request())["Host"] == "localhost"
        answer = await upstream.tells(client, ok(b"", f"Location: {sent}", "Connection: close"))
        assert answer["Location"] == expected
        await client.gets_eof()


async def test_a_client_that_asks_for_localhost_stays_there(edge: Edge) -> None:
    with_shop(edge)
    edge.upstream.answers(lambda request: ok(b"", "Location: http://localhost/login"))
    for version, path, expected in (
        ("1.0", "/public/x", "http://localhost/login"),
        ("1.0", "/shop/x", "http://localhost/shop/login"),
        ("1.1", "/public/x", "http://localhost/login"),
    ):
        client = await edge.client()
        answer = await client.asks(head(f"GET {path} HTTP/{version}", "Host: localhost", f"X-API-Key: {KEY}"))
        assert answer["Location"] == expected
        client.closes()
