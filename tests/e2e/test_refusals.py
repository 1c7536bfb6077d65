"""What the edge says no to, and how: problem+json that tells which request it was."""

from typing import Any

import pytest

from tests.support.ask import Answer, Wire, assert_problem, say
from tests.support.customers import UNLIMITED, key_line, key_of, people
from tests.support.edge import Edge, StartEdge
from tests.support.ports import HOST, Ports
from tests.support.upstream import Upstream

KEY = key_of(UNLIMITED).encode()


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Any:
    """An edge with routes to be missed, methods to be wrong and scopes to lack."""
    described = people(reader="free", writer="free", former="free")
    described["keys"] = [
        key_line(UNLIMITED),
        key_line("reader", scopes=["read"]),
        key_line("writer", scopes=["read", "write"]),
        key_line("former", expires="2020-01-01"),
    ]
    edge = Edge(
        tmp_path_factory.mktemp("gate") / "edge",
        upstream.port,
        routes=[
            {"name": "v1", "host": "api.test", "path": "/v1/*", "methods": ["GET", "POST"], "upstream": "api"},
            {"name": "write", "host": "api.test", "path": "/write", "upstream": "api", "scopes": ["read", "write"]},
            {"name": "wild", "host": "*.wild.test", "path": "/*", "upstream": "api"},
        ],
        limits={"head": "4KiB", "fields": 20, "body": "1MiB"},
        **described,
    )
    try:
        yield edge.start()
    finally:
        edge.close()


def ask(edge: Edge, path: str, customer: str | None = UNLIMITED, host: str = "api.test", **how: Any) -> Answer:
    return edge.ask(path, key=customer and key_of(customer), fields={"Host": host}, **how)


def test_a_route_is_found_by_host_path_and_method(gate: Edge) -> None:
    assert ask(gate, "/v1/a").status == 200
    assert ask(gate, "/v1/a", host="API.Test.:8080").status == 200
    assert ask(gate, "/any", host="a.b.wild.test").status == 200
    assert_problem(ask(gate, "/v2/a"), 404)
    assert_problem(ask(gate, "/v1"), 404)
    assert_problem(ask(gate, "/v1/a", host="other.test"), 404)
    assert_problem(ask(gate, "/any", host="wild.test"), 404)
    refused = ask(gate, "/v1/a", method="DELETE")
    assert_problem(refused, 405)
    assert {method.strip() for method in refused["allow"].split(",")} == {"GET", "POST"}


def test_nobody_is_asked_for_a_key_where_there_is_no_route(gate: Edge) -> None:
    assert_problem(ask(gate, "/nowhere", customer=None), 404)
    assert_problem(ask(gate, "/v1/a", customer=None, method="DELETE"), 405)


@pytest.mark.parametrize("customer", [None, "nobody", "former"])
def test_no_key_an_unknown_key_and_a_former_key_are_401(gate: Edge, customer: str | None) -> None:
    refused = ask(gate, "/v1/a", customer=customer)
    assert_problem(refused, 401)
    assert refused["www-authenticate"].startswith("Bearer")


def test_a_key_without_the_scopes_is_403(gate: Edge) -> None:
    assert_problem(ask(gate, "/write", customer="reader"), 403)
    assert ask(gate, "/write", customer="writer").status == 200
    assert ask(gate, "/v1/a", customer="reader").status == 200


def lines(*fields: bytes, first: bytes = b"GET /v1/a HTTP/1.1", host: bytes = b"Host: api.test") -> bytes:
    """The head of a request with a key and these lines more."""
    return b"\r\n".join((first, host, b"X-API-Key: " + KEY, *fields, b"", b""))


HEADS: dict[str, tuple[int, bytes]] = {
    "two lengths": (400, lines(b"Content-Length: 3", b"Content-Length: 4") + b"abcd"),
    "length and chunked": (400, lines(b"Content-Length: 3", b"Transfer-Encoding: chunked") + b"0\r\n\r\n"),
    "a length with a sign": (400, lines(b"Content-Length: +3") + b"abc"),
    "a length of other digits": (400, lines("Content-Length: ３".encode()) + b"abc"),
    "a coding that is unknown": (501, lines(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"),
    "chunked twice": (400, lines(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + b"0\r\n\r\n"),
    "a space before the colon": (400, lines(b"Transfer-Encoding : chunked") + b"0\r\n\r\n"),
    "a folded line": (400, lines(b"X-A: 1", b" 2")),
    "a bare line feed": (400, lines(b"X-A: 1\nX-B: 2")),
    "a carriage return": (400, lines(b"X-A: 1\rX-B: 2")),
    "a NUL": (400, lines(b"X-A: 1\x002")),
    "no host": (400, lines(host=b"X-No: host")),
    "two hosts": (400, lines(b"Host: other.test")),
    "a host that is none": (400, lines(host=b"Host: a b")),
    "an escaped slash": (400, lines(first=b"GET /v1/a%2Fb HTTP/1.1")),
    "an escaped NUL": (400, lines(first=b"GET /v1/a%00b HTTP/1.1")),
    "an escape that is none": (400, lines(first=b"GET /v1/a%zzb HTTP/1.1")),
    "above the root": (400, lines(first=b"GET /v1/../../a HTTP/1.1")),
    "a space in the target": (400, lines(first=b"GET /v1/a b HTTP/1.1")),
    "a version to come": (505, lines(first=b"GET /v1/a HTTP/1.2")),
    "a version that was": (505, lines(first=b"GET /v1/a HTTP/2.0")),
    "no version": (400, lines(first=b"GET /v1/a")),
    "a method that nobody knows": (501, lines(first=b"BREW /v1/a HTTP/1.1")),
    "HTTP/1.0 in chunks": (400, lines(b"Transfer-Encoding: chunked", first=b"POST /v1/a HTTP/1.0") + b"0\r\n\r\n"),
    "an expectation": (417, lines(b"Expect: miracles")),
    "a long line": (414, lines(first=b"GET /v1/%b HTTP/1.1" % (b"a" * 9000))),
    "a large head": (431, lines(b"X-Large: " + b"a" * 5000)),
    "many fields": (431, lines(*(b"X-%d: 1" % number for number in range(30)))),
    "a large body": (413, lines(b"Content-Length: 1048577", first=b"POST /v1/a HTTP/1.1")),
    "a chunk that is none": (400, lines(b"Transfer-Encoding: chunked", first=b"POST /v1/a HTTP/1.1") + b"zz\r\n"),
}


@pytest.mark.parametrize(("status", "data"), HEADS.values(), ids=HEADS.keys())
def test_a_request_that_is_malformed_or_too_much_is_refused_and_the_connection_closed(
    gate: Edge, status: int, data: bytes
) -> None:
    with Wire(gate.port) as wire:
        wire.send(data)
        answer = wire.hear()
        if answer.status == 100:
            answer = wire.hear()
        assert_problem(answer, status)
        assert answer["connection"] == "close"
        assert wire.rest() == b""


def test_a_large_body_without_a_length_is_refused_on_the_way(gate: Edge) -> None:
    piece = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    with Wire(gate.port) as wire:
        wire.send(lines(b"Transfer-Encoding: chunked", first=b"POST /v1/a HTTP/1.1") + 17 * piece)
        assert_problem(wire.hear(), 413)


def test_nothing_of_a_refused_request_reaches_the_upstream(gate: Edge, upstream: Upstream) -> None:
    before = upstream.seen()["received"]
    for name, (status, data) in HEADS.items():
        if name != "a chunk that is none":  # which came when the head had gone on
            assert say(gate.port, data).status == status
    assert upstream.seen()["received"] == before


def test_a_refused_request_with_a_whole_body_does_not_end_the_connection(gate: Edge) -> None:
    with Wire(gate.port) as wire:
        wire.send(b"POST /v2 HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\n\r\nhello")
        assert_problem(wire.hear(), 404)
        wire.send(b"GET /v1/a HTTP/1.1\r\nHost: api.test\r\n\r\n" + lines())
        assert_problem(wire.hear(), 401)
        assert wire.hear().status == 200


def test_head_is_answered_without_a_body(gate: Edge) -> None:
    with Wire(gate.port) as wire:
        wire.send(b"HEAD /v2 HTTP/1.1\r\nHost: api.test\r\n\r\n")
        answer = wire.hear("HEAD")
        assert (answer.status, answer.body) == (404, b"")
        assert int(answer["content-length"]) > 0
        wire.send(lines())
        assert wire.hear().status == 200


def test_an_upstream_that_is_not_there_is_502_and_says_so(start_edge: StartEdge) -> None:
    ports = Ports(1)
    edge = start_edge(port=ports.numbers[0])
    answer = edge.ask(key=key_of(UNLIMITED))
    assert_problem(answer, 502)
    assert answer["proxy-status"] == "edgeproxy; error=connection_refused"
    assert edge.usage().get(UNLIMITED, 0) == 0
    ports.close()


def test_an_upstream_that_is_slow_is_504(start_edge: StartEdge, upstream: Upstream) -> None:
    timeouts = {"response_head": "300ms"}
    api = {"endpoints": [f"http://{HOST}:{upstream.port}"], "timeouts": timeouts}
    edge = start_edge(upstreams={"api": api})
    answer = edge.ask("/?wait=5000", key=key_of(UNLIMITED))
    assert_problem(answer, 504)
    assert answer["proxy-status"] == "edgeproxy; error=http_response_timeout"
    assert edge.ask(key=key_of(UNLIMITED)).status == 200
    assert edge.usage() == {UNLIMITED: 1}
