"""What upstreams are told of a request, and what they can never be told by a client."""

import hashlib
import hmac
import re
import time
from typing import Any

import pytest

from tests.support.ask import Answer, Wire
from tests.support.customers import UNLIMITED, key_of
from tests.support.edge import Edge, StartEdge

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TRACE = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-0[01]")
FORGED = {
    "X-Customer-Id": "mallory",
    "X-Customer-Tier": "enterprise",
    "X-Edge-Region": "nowhere",
    "X-Edge-Signature": "t=1,v1=00",
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "forged.test",
    "X-Forwarded-Port": "443",
    "X-Real-IP": "203.0.113.7",
    "X-Request-Id": "forged",
    "Forwarded": "for=203.0.113.7",
}


def received(answer: Answer) -> dict[str, str]:
    """The fields that the scripted upstream got, each once, by lower-case name."""
    assert answer.status == 200, answer
    fields: list[list[str]] = answer.json()["fields"]
    names = [name.lower() for name, _ in fields]
    assert len(names) == len(set(names))
    return {name.lower(): value for name, value in fields}


def echo(edge: Edge, path: str = "/?echo=1", **fields: str) -> tuple[Answer, dict[str, str]]:
    """Ask with the key of the customer without limits; the answer, and what the upstream got."""
    named = {"Host": "api.test", **{name.replace("_", "-"): value for name, value in fields.items()}}
    answer = edge.ask(path, key=key_of(UNLIMITED), fields=named)
    return answer, received(answer)


def test_an_upstream_is_told_who_asks_and_where_it_came_in(edge: Edge) -> None:
    answer, got = echo(edge)
    assert got["x-customer-id"] == UNLIMITED
    assert got["x-customer-tier"] == "free"
    assert got["x-edge-region"] == "eu-test"
    assert got["x-forwarded-for"] == "127.0.0.1"
    assert got["x-forwarded-proto"] == "http"
    assert got["x-forwarded-host"] == got["host"] == "api.test"
    assert got["via"] == "1.1 edgeproxy"
    assert TRACE.fullmatch(got["traceparent"])
    assert UUID7.fullmatch(got["x-request-id"])
    assert answer["x-request-id"] == got["x-request-id"]


def test_request_ids_carry_the_time_and_are_never_the_same(edge: Edge) -> None:
    ids = [echo(edge)[0]["x-request-id"] for _ in range(50)]
    assert len(set(ids)) == 50
    for one in ids:
        assert abs(int(one.replace("-", "")[:12], 16) / 1000 - time.time()) < 60


def test_the_key_goes_no_further(edge: Edge) -> None:
    key = key_of(UNLIMITED)
    for fields in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}, {"authorization": f"bearer {key}"}):
        answer = edge.ask("/?echo=1", fields=fields)
        assert answer.status == 200
        assert key not in answer.body.decode()


def test_nothing_that_a_client_says_under_the_names_of_stamps_passes(edge: Edge) -> None:
    _, clean = echo(edge)
    for spelling in (str, str.lower, str.upper, lambda name: name.replace("-", "_")):
        key = {"X-API-Key": key_of(UNLIMITED), "Host": "api.test"}
        got = received(edge.ask("/?echo=1", fields={**key, **{spelling(name): FORGED[name] for name in FORGED}}))
        moving = ("x-request-id", "traceparent")
        assert {name: value for name, value in got.items() if name not in moving} == {
            name: value for name, value in clean.items() if name not in moving
        }
        assert got["x-request-id"] != "forged"


def test_connection_cannot_name_stamps_away(edge: Edge) -> None:
    _, got = echo(
        edge, Connection="X-Customer-Id, X-Forwarded-For, X-Request-Id, Via, Host, traceparent, X-Mine", X_Mine="1"
    )
    assert got["x-customer-id"] == UNLIMITED
    assert got["x-forwarded-for"] == "127.0.0.1"
    assert {"x-request-id", "via", "host", "traceparent"} <= got.keys()
    assert "x-mine" not in got
    assert "connection" not in got


def test_a_trace_is_continued_and_via_too(edge: Edge) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    _, got = echo(edge, traceparent=f"00-{trace}-b7ad6b7169203331-01", tracestate="congo=t61rcWkgMzE", Via="1.0 fred")
    continued = TRACE.fullmatch(got["traceparent"])
    assert continued is not None
    assert continued[1] == trace
    assert continued[2] != "b7ad6b7169203331"
    assert got["tracestate"] == "congo=t61rcWkgMzE"
    assert got["via"] == "1.0 fred, 1.1 edgeproxy"


def test_a_trace_that_is_none_is_begun_anew_without_its_state(edge: Edge) -> None:
    _, got = echo(edge, traceparent="00-00000000000000000000000000000000-b7ad6b7169203331-01", tracestate="a=b")
    begun = TRACE.fullmatch(got["traceparent"])
    assert begun is not None
    assert begun[1].strip("0")
    assert "tracestate" not in got


def test_a_trusted_proxy_says_for_whom_it_asks(start_edge: StartEdge) -> None:
    edge = start_edge(trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"])
    answer, got = echo(
        edge,
        X_Forwarded_For="198.51.100.1, 203.0.113.7, 10.1.2.3",
        X_Forwarded_Proto="https",
        X_Forwarded_Host="front.test",
        X_Request_Id="from-the-proxy",
        X_Customer_Id="mallory",
        X_Edge_Region="nowhere",
    )
    assert got["x-forwarded-for"] == "198.51.100.1, 203.0.113.7, 10.1.2.3, 127.0.0.1"
    assert got["x-forwarded-proto"] == "https"
    assert got["x-forwarded-host"] == "front.test"
    assert got["x-request-id"] == answer["x-request-id"] == "from-the-proxy"
    assert got["x-customer-id"] == UNLIMITED
    assert got["x-edge-region"] == "eu-test"


def test_stamps_are_signed_where_there_is_a_secret(start_edge: StartEdge) -> None:
    edge = start_edge(stamp_secret="s3cret-s3cret-s3cret")
    _, got = echo(edge)
    signed = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", got["x-edge-signature"])
    assert signed is not None
    assert abs(int(signed[1]) - time.time()) < 60
    text = ".".join((signed[1], got["x-request-id"], UNLIMITED, "free", "eu-test"))
    assert hmac.new(b"s3cret-s3cret-s3cret", text.encode(), hashlib.sha256).hexdigest() == signed[2]


def test_routes_without_identity_and_upstreams_that_want_the_key(start_edge: StartEdge, upstream: Any) -> None:
    endpoints = [f"http://127.0.0.1:{upstream.port}"]
    edge = start_edge(
        upstreams={"api": {"endpoints": endpoints}, "trusting": {"endpoints": endpoints, "forward_key": True}},
        routes=[
            {"path": "/open/*", "upstream": "api", "auth": "none"},
            {"path": "/either/*", "upstream": "api", "auth": "optional"},
            {"path": "/keys/*", "upstream": "trusting"},
        ],
    )
    key = key_of(UNLIMITED)
    opened = received(edge.ask("/open/?echo=1", key=key, fields={"Authorization": "Bearer whatever"}))
    assert "x-customer-id" not in opened
    assert (opened["x-api-key"], opened["authorization"]) == (key, "Bearer whatever")
    assert "x-customer-id" not in received(edge.ask("/either/?echo=1"))
    assert received(edge.ask("/either/?echo=1", key=key))["x-customer-id"] == UNLIMITED
    assert edge.ask("/either/?echo=1", key="unknown").status == 401
    assert received(edge.ask("/keys/?echo=1", key=key))["x-api-key"] == key


def test_bytes_beyond_ascii_pass_as_they_are(edge: Edge) -> None:
    with Wire(edge.port) as wire:
        name = "Grüße".encode()
        wire.send(b"GET /?echo=1 HTTP/1.1\r\nHost: api.test\r\nX-API-Key: %b\r\nX-Name: %b\r\n\r\n" % (
            key_of(UNLIMITED).encode(), name,
        ))  # fmt: skip
        assert received(wire.hear())["x-name"] == name.decode("latin-1")


@pytest.mark.parametrize("target", ["/a/./b/../c?echo=1&x=%2e./", "/a/%63?echo=1&x=%2e./", "/a/%2e/c?echo=1&x=%2e./"])
def test_what_is_forwarded_is_the_path_that_was_matched(target: str, edge: Edge) -> None:
    answer = edge.ask(target, key=key_of(UNLIMITED))
    assert answer.json()["target"] == "/a/c?echo=1&x=%2e./"
