"""Web pages can read each refusal of the edge if the route's CORS allows it: every status, over HTTP/1.1 and HTTP/2."""

from collections.abc import Callable

import pytest

from edgeproxy.edge.http1.field_values import find_value
from edgeproxy.edge.http1.message import REASONS
from edgeproxy.edge.proxy.exchange.refused_head import RefusedHead, read_refused_head
from edgeproxy.edge.proxy.routing import cors
from tests.support.http2_wire import http2
from tests.support.transcript import KEY, UNLIMITED, Edge, digest, get, head, ok
from tests.support.wire import Message

PAGE = "https://app.example.com"
OTHER_PAGE = "https://other.example.com"
ALLOWED = "Access-Control-Allow-Origin"
ORIGIN = f"Origin: {PAGE}"
CHUNKED = "Transfer-Encoding: chunked"
PAUSED = {"unpaid": 402, "paused": 403}
ELSEWHERE = {
    421: "the admin listener",
    500: "a `respond` of the configuration",
    503: "test_a_page_sees_that_a_service_is_busy",
}
"""Statuses of the edge's other answers, and the source of each."""
KEY_LINE = f"X-API-Key: {UNLIMITED}"


@pytest.fixture
def edge(edge: Edge) -> Edge:
    """PAGE may call the routes below /app. OTHER_PAGE may call all other routes."""
    config = edge.config
    config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    config["cors"] = {"origins": [OTHER_PAGE]}
    config["limits"] = {"body": "1KiB", "header_timeout": "1s", "body_idle": "1s"}
    config["upstreams"]["nowhere"] = {"endpoints": ["http://127.0.0.1:1"]}
    config["upstreams"]["slow"] = {**config["upstreams"]["api"], "timeouts": {"response_head": "1s"}}
    config["tiers"]["basic"] = {"limits": [{"rate": "1/min"}]}
    config["upstreams"]["busy"] = {**config["upstreams"]["api"], "breaker": {"pending": 1}}
    config["flags"] = {"tried": {}}
    config["meters"] = {"all": {"count": "total_tokens"}}
    paged = {"cors": {"origins": [PAGE]}}
    refusing = {"format": "openai", "ask_for_usage": {"else": "refuse"}}
    config["routes"] += [
        {"path": "/app/*", "upstream": "api", **paged},
        {"path": "/app/open/*", "upstream": "api", "auth": "none", **paged},
        {"path": "/app/down/*", "upstream": "nowhere", "auth": "none", **paged},
        {"path": "/app/slow/*", "upstream": "slow", "auth": "none", **paged},
        {"path": "/app/posts", "upstream": "api", "auth": "none", "methods": ["POST"], **paged},
        {"path": "/app/costly/*", "upstream": "api", "cost": 2, **paged},
        {"path": "/app/staff/*", "upstream": "api", "scopes": ["staff"], **paged},
        {"path": "/app/tried/*", "upstream": "api", "flag": "tried", **paged},
        {"path": "/app/busy/*", "upstream": "busy", "auth": "none", **paged},
        {"path": "/app/gone", "respond": {"status": 410}, "auth": "none", **paged},
        {"path": "/app/model/*", "upstream": "api", "auth": "none", "response_usage": refusing, **paged},
    ]
    for name, status in PAUSED.items():
        config["customers"][name] = {"tier": "free", "paused": {"why": "so", "status": status}}
        config["keys"].append({"sha256": digest(name), "customer": name})
    return edge


def posts(*fields: str, path: str = "/app/open/x", method: str = "POST") -> bytes:
    return head(f"{method} {path} HTTP/1.1", "Host: edge.test", ORIGIN, *fields)


def gets(path: str, *fields: str) -> bytes:
    return get(path, ORIGIN, *fields)


REFUSED: dict[str, tuple[int, bytes]] = {
    "an escape that is none": (400, gets("/app/open/%zz")),
    "an escaped backslash": (400, gets("/app/open/a%5Cb")),
    "a fragment": (400, gets("/app/open/x?y#z")),
    "two keys": (400, gets("/app/x", KEY_LINE, KEY_LINE)),
    "no key": (401, gets("/app/x")),
    "a customer who has to pay": (402, gets("/app/x", "X-API-Key: unpaid")),
    "a customer who is paused": (403, gets("/app/x", "X-API-Key: paused")),
    "a flag that the customer has not": (404, gets("/app/tried/x", KEY_LINE)),
    "a path that is gone": (410, gets("/app/gone")),
    "a coding of a body that is read": (
        415,
        posts("Content-Length: 2", "Content-Encoding: gzip", path="/app/model/v1/chat/completions") + b"{}",
    ),
    "no scope": (403, gets("/app/staff/x", KEY_LINE)),
    "another method": (405, gets("/app/posts")),
    "a body that does not come": (408, posts("Content-Length: 5")),
    "a long body": (413, posts("Content-Length: 5000")),
    "a long request line": (414, gets("/app/open/x?" + "a" * (32 << 10))),
    "an expectation": (417, posts("Expect: tea", "Content-Length: 0")),
    "a limit": (429, gets("/app/costly/x", f"X-API-Key: {KEY}")),
    "many fields": (431, gets("/app/open/x", *(f"X-{n}: a" for n in range(110)))),
    "a long field": (431, gets("/app/open/x", "X-A: " + "a" * (32 << 10))),
    "a method in lower case": (501, posts("Content-Length: 0", method="post")),
    "a service that is away": (502, gets("/app/down/x")),
    "a service that does not answer": (504, gets("/app/slow/x")),
}

OF_HTTP1: dict[str, tuple[int, bytes]] = {
    "a head that is malformed": (400, gets("/app/open/x", "X-A : b")),
    "a body that is malformed": (400, posts("Transfer-Encoding: chunked") + b"zz\r\n"),
    "a body without a length": (411, posts(CHUNKED, path="/app/model/v1/chat/completions") + b"0\r\n\r\n"),
    "a head that does not end": (408, gets("/app/open/x")[:-2] + b"X-A: "),
    "a coding that is unknown": (501, posts("Transfer-Encoding: gzip")),
    "another version": (505, gets("/app/open/x").replace(b"HTTP/1.1", b"HTTP/1.9")),
    "a target of another host": (400, gets("http://elsewhere.test/app/open/x")),
}
"""Faults that HTTP/2 does not have, or that are stream errors there."""

FORWARDED = ("a body that does not come", "a service that does not answer")
"""The refused requests that the edge has already sent to an upstream."""


def check(answer: Message, status: int) -> None:
    assert (answer.status, answer.all(ALLOWED)) == (status, [PAGE])
    assert "Retry-After" in answer["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("name", [*REFUSED, *OF_HTTP1])
async def test_a_page_sees_each_refusal_over_http1(edge: Edge, name: str) -> None:
    status, request = (REFUSED | OF_HTTP1)[name]
    client = await edge.client()
    await client.sends(request)
    if name in FORWARDED:
        await (await edge.upstream.accepts()).gets_head()
    check(await client.gets_answer(), status)


@pytest.mark.parametrize("name", REFUSED)
async def test_a_page_sees_each_refusal_over_http2(edge: Edge, name: str) -> None:
    status, request = REFUSED[name]
    client = await http2(edge)
    line, *lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    method, path, _ = line.split(" ")
    fields = [(field.lower(), value) for field, _, value in (line.partition(": ") for line in lines)]
    has_body = any(field == "content-length" and value != "0" for field, value in fields)
    fields = [field for field in fields if field[0] != "host"]
    number = await client.begins_request(method, path, *fields, ended=not has_body)
    if name in FORWARDED:
        await (await edge.upstream.accepts()).gets_head()
    check(await client.answer_of(number), status)


def test_each_status_of_the_edge_is_here() -> None:
    statuses = {status for status, _ in (REFUSED | OF_HTTP1).values()}
    assert sorted(statuses | ELSEWHERE.keys()) == sorted(status for status in REASONS if status >= 400)


async def test_a_page_sees_that_a_service_is_busy(edge: Edge) -> None:
    first, client, second = await edge.client(), await edge.client(), await http2(edge)
    await first.sends(gets("/app/busy/x"))
    upstream = await edge.upstream.accepts()
    await upstream.gets_head()
    await client.sends(gets("/app/busy/x"))
    check(await client.gets_answer(), 503)
    number = await second.begins_request("GET", "/app/busy/x", ("origin", PAGE))
    check(await second.answer_of(number), 503)
    await upstream.sends(ok())
    await first.gets_answer()


@pytest.mark.parametrize(
    ("request_head", "allowed"),
    [
        (get("/elsewhere", f"Origin: {OTHER_PAGE}"), [OTHER_PAGE]),
        (get("/app/open/%zz", f"Origin: {OTHER_PAGE}"), []),
        (get("/app/open/%zz"), []),
        (get("/app/open/%zz", ORIGIN, ORIGIN), []),
        (b"nonsense\r\nOrigin: https://other.example.com\r\n\r\n", [OTHER_PAGE]),
    ],
)
async def test_a_page_sees_no_refusal_of_a_route_that_it_may_not_call(
    edge: Edge, request_head: bytes, allowed: list[str]
) -> None:
    answer = await edge.refuses(request_head)
    assert answer.all(ALLOWED) == allowed
    assert answer["Vary"] == "Origin"


Read = Callable[[bytes], RefusedHead]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", (None, b"", b"", None)),
        (b"\x16\x03\x01", (None, b"\x16\x03\x01", b"", None)),
        (b"GET /a/%zz HTTP/1.1\r\nHost: H.test:80\r\nOrigin: o\r\n\r\n", (b"h.test", b"GET", b"/a/", b"o")),
        (b"GET /a/../b/%00/c HTTP/1.1\r\nHost: a, b\r\n\r\nOrigin: o\r\n", (None, b"GET", b"/b/", None)),
        (b"GET /../%zz HTTP/1.1\r\n\r\n", (None, b"GET", b"", None)),
        (b"GET http://A.test/b?c HTTP/1.1\r\nHost: x\r\n\r\n", (b"a.test", b"GET", b"/b", None)),
        (b"GET /a HTTP/1.1\r\nOrigin: https://app.example\r\nOrigin: https://app", (None, b"GET", b"/a", b"https://app.example")),
        (b"GET /a HTTP/1.1\r\nOrigin: https://app", (None, b"GET", b"/a", None)),
        (b"GET /" + b"a" * 100, (None, b"GET", b"/" + b"a" * 100, None)),
    ],
)  # fmt: skip
def test_refused_partial_head_still_yields_its_origin(
    data: bytes, expected: tuple[bytes | None, bytes, bytes, bytes | None]
) -> None:
    head_read = read_refused_head(data)
    assert (*head_read[:3], find_value(head_read.keep, cors.ORIGIN)) == expected
