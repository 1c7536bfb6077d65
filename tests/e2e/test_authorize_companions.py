"""nginx, Envoy, Traefik, Caddy and HAProxy that ask the edge for a decision, configured as in the docs.

Their services match prefixes of the raw path (Flask, Express). As behind an edge, a client cannot change the path of
the decision, act as another customer, or pass its key on to a service.
"""

import hmac
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from loadtest.testbed.customers import key_of, people
from loadtest.testbed.edge import Edge
from loadtest.testbed.http_client import Answer, Wire, ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import family
from tests.support.companions import EXPRESS, STATED, Companion, PrefixService, settle
from tests.support.switching_service import SWITCHED, SwitchingService

pytestmark = pytest.mark.nginx

SERVICES = ("flask", *(["express"] if EXPRESS else []))
KEY = key_of("acme")
SECRET = "a-secret-of-the-edge-and-of-its-services"
DENIED = "192.0.2.9"

ROUTES = [
    {"name": "v1", "path": "/v1/*", "upstream": "api"},
    {"name": "guarded", "host": "guarded.test", "path": "/open/*", "upstream": "api"},
    {"name": "open", "path": "/open/*", "upstream": "api", "auth": "none"},
    {"name": "maybe", "path": "/maybe/*", "upstream": "api", "auth": "optional"},
    {"name": "put", "path": "/put/*", "upstream": "api", "methods": ["PUT"]},
    {"name": "get", "path": "/get/*", "upstream": "api", "auth": "none", "methods": ["GET"]},
    {"name": "paid", "path": "/paid/*", "upstream": "api", "scopes": ["paid"]},
]

ATTACKS = [(proxy, service) for proxy in STATED for service in SERVICES]
each_front = pytest.mark.parametrize("front", ATTACKS, indirect=True, ids="-".join)
each_proxy = pytest.mark.parametrize("front", [(proxy, "flask") for proxy in STATED], indirect=True, ids=STATED)

each_switch = pytest.mark.parametrize("proxy", STATED)


class Statuses(NamedTuple):
    """The status that a client gets behind each proxy."""

    nginx: int
    envoy: int
    traefik: int
    caddy: int
    haproxy: int

    def at(self, proxy: str) -> int:
        """Return the status behind the proxy of this name."""
        return int(getattr(self, proxy))


REFUSED = Statuses(400, 400, 400, 400, 400)
ODDLY_SPELLED = Statuses(200, 400, 400, 200, 400)
"""nginx and Caddy drop fields with a separator other than the hyphen. Envoy refuses them. For the other two the edge
refuses them.
"""


@pytest.fixture(scope="module")
def listeners() -> Iterator[dict[str, int]]:
    """The ports of the edge's listeners for proxies, by their way to describe a request."""
    kinds = sorted(set(STATED.values()))
    with closing(Ports(len(kinds))) as ports:
        yield dict(zip(kinds, ports.numbers, strict=True))


@pytest.fixture(scope="module")
def services(folder: Path) -> Iterator[dict[str, int]]:
    with ExitStack() as stack:
        started = {kind: stack.enter_context(closing(PrefixService(kind, folder))) for kind in SERVICES}
        yield {kind: service.port for kind, service in started.items()}


@pytest.fixture(scope="module")
def edge(folder: Path, listeners: dict[str, int], services: dict[str, int]) -> Iterator[Edge]:
    settings = people(acme="free", owes="free", **{f"few-of-{proxy}": ["3/min"] for proxy in STATED})
    settings["customers"]["owes"]["paused"] = {"why": "unpaid", "status": 402}
    with closing(Edge(folder / "asked", services["flask"], routes=ROUTES, **settings)) as edge:
        asked = [{"address": f"{HOST}:{port}", "authorize": kind} for kind, port in listeners.items()]
        yield edge.start(
            listen=[f"{HOST}:{edge.port}", *asked],
            trusted_proxies=[HOST],
            auth={"cookie": "edge_key", "websocket_protocol": True, "query": "api_key"},
            stamp_secret=SECRET,
            networks={"deny": [DENIED]},
        )


@pytest.fixture(scope="module")
def fronts(
    folder: Path, edge: Edge, listeners: dict[str, int], services: dict[str, int]
) -> Iterator[dict[tuple[str, str], Companion]]:
    """Start each proxy before each service, all at once."""
    with ExitStack() as stack:
        started = {}
        for proxy, service in ATTACKS:
            where = folder / "fronts" / f"{proxy}-{service}"
            companion = Companion(proxy, where, listeners[STATED[proxy]], services[service])
            started[proxy, service] = stack.enter_context(closing(companion))
        for companion in started.values():
            settle(companion, lambda port=companion.port: serves(port))
        yield started


@pytest.fixture
def front(fronts: dict[tuple[str, str], Companion], request: pytest.FixtureRequest) -> Companion:
    return fronts[request.param]


def serves(port: int) -> bool:
    try:
        return ask(port, "/open/x").status == 200 and ask(port, "/v1/x").status == 401
    except OSError:
        return False


def send(front: Companion, target: str, *fields: str, method: str = "GET", host: str = "front.test") -> Answer:
    """Send one request, byte for byte."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields]
    if not any(line.lower().startswith("connection:") for line in fields):
        lines.append("Connection: close")
    with Wire(front.port) as wire:
        wire.send("\r\n".join([*lines, "", ""]).encode())
        return wire.hear(method)


def served(answer: Answer) -> str | None:
    """Return the prefix that a service has served, or None."""
    return answer.json()["served"] if answer.status == 200 else None


@each_proxy
def test_the_proxy_keeps_forwarding_and_the_edge_keeps_count(edge: Edge, front: Companion) -> None:
    customer = f"few-of-{front.name}"
    key = {"X-API-Key": key_of(customer)}
    for method, body in (("GET", b""), ("POST", b"x" * 100_000), ("PUT", b"y")):
        answer = ask(front.port, "/v1/%C3%A4;a=b?echo=1&x=%2f../%2e", method=method, fields=key, body=body)
        assert answer.status == 200
        report = answer.json()
        assert (report["method"], report["length"]) == (method, len(body))
        assert report["target"] == "/v1/%C3%A4;a=b?echo=1&x=%2f../%2e"
        assert report["fields"]["x-customer-id"] == customer
        # Traefik cannot add fields of a positive decision to the client's answer.
        assert ("ratelimit" in answer) == (front.name != "traefik")
    with Wire(front.port) as wire:  # A body of unknown length, which the edge does not learn.
        head = "POST /open/x HTTP/1.1\r\nHost: front.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        wire.send(head.encode() + b"5\r\nhello\r\n" * 100 + b"0\r\n\r\n")
        unlimited = wire.hear()
    assert unlimited.json()["length"] == 500
    assert "ratelimit" not in unlimited
    assert "ratelimit-policy" not in unlimited
    limited = ask(front.port, "/v1/x", fields=key)
    assert limited.status == 429
    assert 1 <= int(limited["retry-after"]) <= 70
    assert ";r=0;" in limited["ratelimit"]
    assert "q=3;" in limited["ratelimit-policy"]
    assert edge.usage()[customer] == 3
    assert edge.limit(customer)["used"] == 3


REFUSALS = [
    ("/v1/x", "GET", "", 401, "www-authenticate"),
    ("/v1/x", "HEAD", "", 401, "www-authenticate"),
    ("/v1/x", "OPTIONS", "", 401, "www-authenticate"),
    ("/v1/x", "GET", "wrong", 401, "www-authenticate"),
    ("/v1/x", "GET", key_of("owes"), 402, "x-request-id"),
    ("/paid/x", "GET", KEY, 403, "x-request-id"),
    ("/nowhere", "GET", KEY, 404, "x-request-id"),
    ("/get/x", "POST", "", 405, "allow"),
    (f"/v1/x?api_key={KEY}", "GET", "", 400, "x-request-id"),
    (f"/open/x?api_key={KEY}", "GET", "", 400, "x-request-id"),
]


@each_proxy
def test_a_refusal_reaches_the_client_as_it_is(front: Companion) -> None:
    for target, method, key, status, field in REFUSALS:
        answer = send(front, target, *([f"X-API-Key: {key}"] if key else []), method=method)
        assert answer.status == status, (method, target, answer)
        assert field in answer, (method, target, answer)


ODD_TARGETS = {
    "/v1/../open/x": 200,
    "/v1/%2e%2e/open/x": 200,
    "/v1/.%2E/open/x": 200,
    "/v1/a/../../open/x": 200,
    "/v1/%2e/%2e%2e/open/x": 200,
    "/v1/..;/open/x": 400,
    "/v1/..;a=b/open/x": 400,
    "/v1/..%2fopen/x": 400,
    "/v1%2f..%2fopen/x": 400,
    "/v1/..%5copen/x": 400,
    "/v1/..\\open/x": 400,
    "/v1/..//open/x": 200,
    "//v1/../open/x": 200,
    "/%76%31/x": 401,
    "/v1/%78": 401,
    "/v1/x#/../../open/x": 400,
    "/v1/#/../../open/x": 400,
    "http://front.test/v1/../open/x": 200,
    "http://front.test/v1/%2e%2e/open/x": 200,
    "/open/../v1/x": 401,
    "/open/%2e%2e/v1/x": 401,
    "/open/..%2fv1/x": 400,
    "/open/..;/v1/x": 400,
    "/open/..\\v1/x": 400,
}
"""Each with the status behind Traefik, which normalizes most paths first and forwards the result."""
NORMAL_TARGETS = ["/open/x?/../../v1/x", "/open/x?a=http://a/../b%2e", "/open/a;b/c", "/open/a//b", "/open/a%2Fb"]


@each_front
def test_service_serves_the_decided_request(front: Companion) -> None:
    for target, at_traefik in ODD_TARGETS.items():
        answer = send(front, target)
        assert answer.status == (at_traefik if front.name == "traefik" else 400), (target, answer)
        if answer.status == 200:
            assert (served(answer), answer.json()["target"]) == ("open", "/open/x"), (target, answer)
        else:
            assert b'"served"' not in answer.body, (target, answer)


@each_front
def test_normalized_path_passes_unchanged(front: Companion) -> None:
    for target in NORMAL_TARGETS:
        answer = send(front, target)
        assert (answer.status, served(answer)) == (200, "open"), (target, answer)
        # Traefik makes one of several slashes, and the edge is asked about that.
        came = "/open/a/b" if (front.name, target) == ("traefik", "/open/a//b") else target
        assert answer.json()["target"] == came


CLAIMS = {
    "original": (REFUSED, "X-Original-Method: GET", "X-Original-URI: /open/x", "X-Original-URL: /open/x"),
    "forwarded": (
        Statuses(401, 400, 401, 401, 400),
        *("X-Forwarded-Method: GET", "X-Forwarded-Uri: /open/x", "X-Forwarded-URL: /open/x"),
    ),
    "named": (
        Statuses(401, 400, 401, 401, 400),
        *("X-Forwarded-Method: GET", "X-Forwarded-Uri: /open/x", "X-Original-Method: GET", "X-Original-URI: /open/x"),
        "Connection: close, X-Forwarded-Method, X-Forwarded-Uri, X-Forwarded-Host, X-Original-Method, X-Original-URI",
    ),
    "other spellings": (
        Statuses(401, 400, 400, 401, 400),
        *("X_Original_Method: GET", "X_Original_URI: /open/x", "X_Forwarded_Method: GET", "X_Forwarded_Uri: /open/x"),
    ),
    "twice": (
        Statuses(401, 400, 400, 400, 400),
        *("X-Forwarded-Method: GET", "X-Forwarded-Method: GET", "X-Forwarded-Uri: /open/x"),
        *("X-Forwarded-Uri: /open/x", "X-Original-URI: /open/x", "X-Original-URI: /open/x"),
    ),
    "of others": (
        REFUSED,
        *("X-Rewrite-URL: /open/x", "X-Envoy-Original-Path: /open/x", "X-HTTP-Method-Override: GET"),
        *("X-Replaced-Path: /open/x", "Forwarded: for=192.0.2.1;host=open.test"),
    ),
}
"""401 is the edge's answer to the request without its claims, which the proxy has overwritten or dropped."""


@each_front
def test_client_cannot_change_the_decided_request(front: Companion) -> None:
    for claim, (statuses, *fields) in CLAIMS.items():
        for method, target in (("PUT", "/put/x"), ("GET", "/v1/x")):
            answer = send(front, target, *fields, method=method)
            assert answer.status == statuses.at(front.name), (claim, target, answer)
            assert b'"served"' not in answer.body, (claim, target, answer)


STATED_BY_OTHERS = Statuses(200, 400, 400, 400, 200)
FORWARDED = Statuses(200, 400, 200, 200, 400)
OVERWRITTEN = Statuses(200, 200, 200, 200, 200)
OVERRIDES = {
    **dict.fromkeys(("X-Original-URL", "X-Rewrite-URL", "X-Override-URL", "X-HTTP-Method-Override"), REFUSED),
    **dict.fromkeys(("X-HTTP-Method", "X-Method-Override", "Script-Name", "X-Middleware-Subrequest"), REFUSED),
    **dict.fromkeys(("X_Rewrite_URL", "X.HTTP_Method-Override", "Path_Info"), ODDLY_SPELLED),
    **dict.fromkeys(("X_Original_URI", "X.Forwarded-Uri"), ODDLY_SPELLED),
    **dict.fromkeys(("X-Original-URI", "X-Original-Method"), STATED_BY_OTHERS),
    # Traefik drops these with underscores as well.
    **dict.fromkeys(("X-Forwarded-Uri", "X-Forwarded-Method", "X_Forwarded_Uri", "X_Forwarded_Prefix"), FORWARDED),
    **dict.fromkeys(("X-Forwarded-Path", "X-Forwarded-Prefix"), OVERWRITTEN),
}


@each_front
def test_client_cannot_override_the_decision_at_the_service(front: Companion) -> None:
    for name, statuses in OVERRIDES.items():
        answer = send(front, "/open/x", f"{name}: /v1/override")
        assert answer.status == statuses.at(front.name), (name, answer)
        assert answer.status == 400 or (served(answer), b"override" in answer.body) == ("open", False), (name, answer)


ODD_METHODS = [
    *(("put", target, Statuses(400, 400, 501, 501, 501)) for target in ("/put/x", "/get/x")),
    *(("Put", target, Statuses(400, 400, 501, 501, 501)) for target in ("/put/x", "/get/x")),
    *(("pUT", target, Statuses(400, 400, 501, 501, 501)) for target in ("/put/x", "/get/x")),
    *(("G T", target, REFUSED) for target in ("/put/x", "/get/x")),
    *(("TRACE", target, Statuses(405, 503, 501, 501, 501)) for target in ("/put/x", "/get/x")),
    *(("CONNECT", target, Statuses(405, 400, 501, 501, 400)) for target in ("/put/x", "/get/x")),
    # Envoy and HAProxy take the tab for the space that ends the method.
    ("PUT\t", "/put/x", Statuses(400, 401, 400, 400, 401)),
    ("PUT\t", "/get/x", Statuses(400, 405, 400, 400, 405)),
]


@each_proxy
def test_odd_method_does_not_bypass_the_routes(front: Companion) -> None:
    for method, target, statuses in ODD_METHODS:
        answer = send(front, target, method=method)
        assert answer.status == statuses.at(front.name), (method, target, answer)
        assert b'"served"' not in answer.body, (method, target, answer)


@each_proxy
def test_the_host_that_is_decided_on_is_the_one_that_is_served(front: Companion) -> None:
    claims = {
        "X-Forwarded-Host": Statuses(401, 401, 401, 401, 401),
        "X-Host": REFUSED,
        "X_Forwarded_Host": Statuses(401, 400, 401, 401, 400),
    }
    for target, (name, statuses) in product(("/open/x", "http://guarded.test/open/x"), claims.items()):
        answer = send(front, target, f"{name}: front.test", host="guarded.test")
        assert answer.status == statuses.at(front.name), (target, name, answer)
    assert send(front, "/open/x", "X-Forwarded-Host: guarded.test").json()["fields"]["host"] == "front.test"
    # The target's host counts, and HAProxy takes no other beside it.
    assert send(front, "http://guarded.test/open/x").status == (400 if front.name == "haproxy" else 401)
    # Services that take X-Forwarded-Host for a list see the first host of it, or the last.
    for host in ("guarded.test,front.test", "front.test,guarded.test", "front.test, guarded.test", "guarded.test;x"):
        answer = send(front, "/open/x", host=host)
        assert (answer.status, b'"served"' in answer.body) == (400, False), (host, answer)


@each_proxy
def test_a_clients_word_on_its_address_does_not_count(front: Companion) -> None:
    for named in ((), ("Connection: close, X-Forwarded-For",)):
        answer = send(front, "/open/x", f"X-Forwarded-For: {DENIED}", f"X-Real-IP: {DENIED}", *named)
        # Envoy refuses to remove it. No proxy trusts the client's value.
        assert answer.status == (400 if named and front.name == "envoy" else 200), answer


FORGED = [f"{name}: victim" for name in ("X-Customer-Id", "X-Customer-Tier", "X-Edge-Region", "X-Edge-Signature")]
SPELLINGS = ("X_Customer_Id", "X-Customer_Id", "x_customer-id", "X.Customer.Id", "X!Edge_Signature", "X_Edge_Region")
FORGERIES = {
    "plain": FORGED,
    "lower": [line.lower() for line in FORGED],
    "twice": [*FORGED, *FORGED],
    "empty first": [*(line.partition(":")[0] + ":" for line in FORGED), *FORGED],
    "named": [*FORGED, "Connection: close, " + ", ".join(line.partition(":")[0] for line in FORGED)],
    "named apart": [*FORGED, "Connection: close", "Connection: x-customer-id,x-edge-signature , x-request-id"],
    **{spelling: [f"{spelling}: victim"] for spelling in SPELLINGS},
}


ASKED_FOR: list[tuple[str, str | None, str | None, str | None]] = [
    ("/open/x", None, None, None),
    ("/open/x", KEY, None, None),
    ("/maybe/x", None, None, None),
    ("/maybe/x", KEY, "acme", "free"),
    ("/v1/x", KEY, "acme", "free"),
]
"""Targets and keys, and the customer and tier that the service must receive."""


@each_front
def test_no_stamp_is_a_clients(front: Companion) -> None:
    for forgery, (target, key, customer, tier) in product(FORGERIES, ASKED_FOR):
        answer = send(front, target, *FORGERIES[forgery], *([f"X-API-Key: {key}"] if key else []))
        assert answer.status == (ODDLY_SPELLED.at(front.name) if forgery in SPELLINGS else 200), (forgery, answer)
        if answer.status == 400:
            continue
        assert b"victim" not in answer.body, (forgery, target, answer)
        fields = {name: value for name, value in answer.json()["fields"].items() if value}
        assert (fields.get("x-customer-id"), fields.get("x-customer-tier")) == (customer, tier)
        assert fields["x-edge-region"] == "eu-test"
        unix, signed = (part.partition("=")[2] for part in fields["x-edge-signature"].split(","))
        content = f"{unix}.{fields['x-request-id']}.{customer or '-'}.{tier or '-'}.eu-test"
        assert hmac.new(SECRET.encode(), content.encode(), "sha256").hexdigest() == signed


CREDENTIALS = {
    "field": [f"X-API-Key: {KEY}"],
    "bearer": [f"Authorization: Bearer {KEY}"],
    "both": [f"X-API-Key: {KEY}", f"Authorization: Bearer {KEY}"],
    "cookie": [f"Cookie: a=b; edge_key={KEY}; c=d"],
    "cookie alone": [f"Cookie: edge_key={KEY}"],
    "subprotocol": [f"Sec-WebSocket-Protocol: chat, api-key.{KEY}"],
    "all": [f"X-API-Key: {KEY}", f"Authorization: Bearer {KEY}", f"Cookie: edge_key={KEY}",
            f"Sec-WebSocket-Protocol: api-key.{KEY}"],
}  # fmt: skip
MISSPELLED = ("X_API_Key", "x-api_key", "X.API.Key", "Sec_WebSocket-Protocol", "X_Request_Id")


@each_front
def test_no_key_goes_on_to_the_service(front: Companion) -> None:
    for way, lines in CREDENTIALS.items():
        for target in ("/v1/x", "/maybe/x", "/open/x"):
            answer = send(front, target, *lines)
            assert answer.status == 200, (way, target, answer)
            assert KEY.encode() not in answer.body, (way, target)
            fields = answer.json()["fields"]
            if way == "cookie":
                assert fields["cookie"] == "a=b; c=d"
            if way == "subprotocol":
                assert fields["sec-websocket-protocol"] == "chat"
    for name in MISSPELLED:
        answer = send(front, "/v1/x", f"X-API-Key: {KEY}", f"{name}: api-key.{KEY}")
        assert answer.status == ODDLY_SPELLED.at(front.name), (name, answer)
        assert KEY.encode() not in answer.body, (name, answer)


@each_front
def test_other_credentials_reach_the_service(front: Companion) -> None:
    own = ["Authorization: Basic dTpw", f"Cookie: a=b; c={'d' * 7000}", "Sec-WebSocket-Protocol: chat", "X-Own: x"]
    for target, key in (("/v1/x", KEY), ("/maybe/x", None), ("/open/x", None)):
        fields = send(front, target, *own, *([f"X-API-Key: {key}"] if key else [])).json()["fields"]
        assert {line.lower() for line in own} <= {f"{name}: {value}".lower() for name, value in fields.items()}


HANDSHAKE_KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="


@each_proxy
def test_an_upgrade_is_no_way_past(front: Companion) -> None:
    upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    handshake = [*upgrade, HANDSHAKE_KEY]
    assert send(front, "/v1/x", *handshake).status == 401
    # Traefik forwards /open/x, and Flask has no WebSockets there: 400 too.
    assert send(front, "/v1/../open/x", *handshake).status == 400


@pytest.fixture(scope="module")
def switches(folder: Path, listeners: dict[str, int], fronts: object) -> Iterator[dict[str, Companion]]:
    """Start each proxy before a service that accepts a switch to any protocol."""
    with ExitStack() as stack:
        service = stack.enter_context(closing(SwitchingService()))
        started = {}
        for proxy, kind in STATED.items():
            companion = Companion(proxy, folder / "switches" / proxy, listeners[kind], service.port)
            started[proxy] = stack.enter_context(closing(companion))
        for companion in started.values():
            settle(companion, lambda port=companion.port: serves(port))
        yield started


PLAIN = Statuses(200, 200, 200, 200, 200)
FORBIDDEN = PLAIN._replace(envoy=403)
PROTOCOLS = {
    "h2c": (PLAIN, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    "another": (FORBIDDEN, "Connection: upgrade", "Upgrade: foo"),
    "after WebSockets": (FORBIDDEN, "Connection: upgrade", "Upgrade: websocket, h2c"),
    "before WebSockets": (FORBIDDEN, "Connection: upgrade", "Upgrade: h2c, websocket"),
    "in a field of its own": (
        Statuses(101, 403, 101, 101, 200),
        *("Connection: upgrade", "Upgrade: websocket", "Upgrade: h2c"),
    ),
    "first of two fields": (FORBIDDEN._replace(caddy=101), "Connection: upgrade", "Upgrade: h2c", "Upgrade: websocket"),
    "named twice": (PLAIN, "Connection: upgrade, upgrade", "Connection: upgrade", "Upgrade: h2c"),
    "with a version": (FORBIDDEN, "Connection: upgrade", "Upgrade: websocket/13"),
}
"""Each with its status; 101 if the service gets a request for WebSocket only."""


def open_tunnel(front: Companion, *fields: str) -> tuple[bytes, bytes]:
    """Request another protocol. Returns the head of the answer, and the service's answer in that protocol."""
    with socket.create_connection((HOST, front.port), timeout=20) as client:
        head = "\r\n".join(["GET /open/x HTTP/1.1", "Host: front.test", *fields, "", ""])
        client.sendall(head.encode())
        answer = client.recv(65536)
        if b" 101 " not in answer.partition(b"\r\n")[0]:
            return answer, b""
        client.sendall(b"GET /v1/x HTTP/1.1\r\nHost: front.test\r\n\r\n")
        return answer, client.recv(65536)


@each_switch
def test_no_protocol_but_websockets_is_a_tunnel_past_the_edge(switches: dict[str, Companion], proxy: str) -> None:
    for protocol, (statuses, *fields) in PROTOCOLS.items():
        head, tunnelled = open_tunnel(switches[proxy], *fields, HANDSHAKE_KEY)
        status = statuses.at(proxy)
        assert head.startswith(b"HTTP/1.1 %d " % status), (protocol, head)
        switched = (b"\r\nupgrade: websocket\r\n" in head.lower(), SWITCHED in tunnelled)
        assert switched == (status == 101, status == 101), (protocol, head)
    handshake = ["Connection: Upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Version: 13"]
    head, tunnelled = open_tunnel(switches[proxy], *handshake, HANDSHAKE_KEY)
    assert SWITCHED in tunnelled, head


@each_proxy
def test_only_the_proxy_reaches_the_endpoint(front: Companion) -> None:
    fields = ["X-Original-Method: GET", "X-Original-URI: /open/x", f"X-API-Key: {KEY}"]
    # nginx and HAProxy overwrite the claims, and KEY may ask for the service's own paths; none leads to the endpoint.
    for target, overwritten in (("/_edge", 404), ("/v1/authorize", 200), ("/v1/authorize/open/x", 200)):
        answer = send(front, target, *fields)
        assert answer.status == (overwritten if STATED[front.name] == "original" else 400), (target, answer)
        assert served(answer) == ("v1" if answer.status == 200 else None), (target, answer)


NOT_THERE = Statuses(503, 503, 500, 502, 503)
SILENT = NOT_THERE._replace(caddy=504)


def test_no_request_passes_without_an_answer_of_the_edge(edge: Edge, fronts: dict[tuple[str, str], Companion]) -> None:
    asking = {proxy: companion for (proxy, service), companion in fronts.items() if service == "flask"}

    def ask_all(*proxies: str) -> dict[str, int]:
        """Return each proxy's status for a request with a valid key."""
        with ThreadPoolExecutor() as pool:
            answers = pool.map(lambda proxy: send(asking[proxy], "/open/x", f"X-API-Key: {KEY}"), proxies)
            return {proxy: answer.status for proxy, answer in zip(proxies, answers, strict=True)}

    stopped = family(edge.family_name)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        slow = [proxy for proxy in asking if proxy != "traefik"]  # It waits for 30 seconds.
        assert ask_all(*slow) == {proxy: SILENT.at(proxy) for proxy in slow}
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    edge.end()
    try:
        assert ask_all(*asking) == {proxy: NOT_THERE.at(proxy) for proxy in asking}
    finally:
        edge.start()
    for companion in asking.values():
        settle(companion, lambda port=companion.port: serves(port))
