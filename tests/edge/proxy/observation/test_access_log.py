"""The access log: one line for each request, with any outcome, and without keys and other secrets."""

import itertools
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from edgeproxy.edge.proxy.observation.access_log import PATH_CHARACTERS_MAX
from tests.support.transcript import EXPIRED, KEY, READER, UNLIMITED, Edge, chunks, get, head, ok, post
from tests.support.wire import Message

ALWAYS = {"time", "client", "bytes_in", "bytes_out", "seconds", "region"}
"""Fields of every line."""


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["access_log"] = str(log_of(edge))
    return edge


def log_of(edge: Edge) -> Path:
    return edge._folder / "access.log"


async def lines(edge: Edge, n: int) -> list[dict[str, Any]]:
    """Wait for `n` lines of the log and return them."""
    file = log_of(edge)
    await edge.until(lambda: file.exists() and file.read_bytes().count(b"\n") >= n, f"{n} lines")
    text = file.read_bytes()
    assert text.endswith(b"\n")
    assert text.isascii()
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", text)
    found = [orjson.loads(line) for line in text.splitlines()]
    assert len(found) == n, found
    for line in found:
        assert line.keys() >= ALWAYS
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert 0 <= line["seconds"] < 10
        assert line["region"] == "test"
    return found


async def line(edge: Edge, n: int = 1) -> dict[str, Any]:
    """Wait for `n` lines of the log and return the last one."""
    return (await lines(edge, n))[-1]


def answer_detail(answer: Message) -> str:
    detail: str = orjson.loads(answer.body)["detail"]
    return detail


def without_times(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in ("time", "seconds", "upstream_seconds")}


CHUNKED = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + chunks(b"hel", b"lo")


@pytest.mark.parametrize("answered", [ok(), CHUNKED], ids=["whole", "in pieces"])
async def test_a_line_describes_a_request_and_its_outcome(edge: Edge, answered: bytes) -> None:
    asked = head("POST /v1/%41?token=hush HTTP/1.1", "Host: Edge.test:80", f"X-API-Key: {KEY}", "Content-Length: 3")
    _, answer = await edge.passes(asked + b"abc", answered)
    found = await line(edge)
    assert without_times(found) == {
        "request_id": answer["X-Request-Id"],
        "client": "127.0.0.1",
        "method": "POST",
        "host": "Edge.test:80",
        "path": "/v1/A",
        "protocol": "HTTP/1.1",
        "status": 200,
        "route": "v1",
        "customer": "acme",
        "tier": "basic",
        "bytes_in": 3,
        "bytes_out": 5,
        "upstream": "api",
        "endpoint": f"127.0.0.1:{edge.upstream.port}",
        "retries": 0,
        "region": "test",
    }
    assert 0 < found["upstream_seconds"] <= found["seconds"]


@pytest.mark.parametrize("framing", ["Content-Length: 0", "Transfer-Encoding: chunked"], ids=["whole", "in pieces"])
@pytest.mark.parametrize(
    ("fields", "logged"),
    [
        (["x-request-ID:  req_7f"], "req_7f"),  # The edge replaces this field in the client's response.
        (['X-Request-Id: a"}\\,{"b'], 'a"}\\,{"b'),
        (["X-Request-Id: " + "a" * 300], "a" * 200 + "..."),
        (["X-Request-Id: one", "X-Request-Id: two"], None),
        (["X-Request-Id:"], None),
        ([], None),
    ],
)
async def test_the_upstreams_own_request_id_is_logged(
    edge: Edge, framing: str, fields: list[str], logged: str | None
) -> None:
    edge.config["upstreams"]["api"]["request_id_field"] = "X-Request-Id"
    ending = chunks() if "chunked" in framing else b""
    client, upstream = await edge.forwards()
    await upstream.sends(head("HTTP/1.1 200 OK", framing, *fields) + ending)
    answer = await client.gets_answer()
    found = await line(edge)
    assert found.get("upstream_request_id") == logged
    assert found["request_id"] == answer["X-Request-Id"] != logged


async def test_access_log_off_logs_nothing(edge: Edge) -> None:
    edge.config["access_log"] = "off"
    await edge.passes(get(), ok())
    assert edge.runtime.snapshot.access_log is None


SIZES = {
    "sized": (post(b"x" * 70_000), 70_000),
    "chunked": (head("POST /public/ HTTP/1.1", "Host: h", "Transfer-Encoding: chunked") + chunks(b"abc", b"de"), 5),
    "none": (get(), 0),
}
BODIES = {
    "sized": (ok(b"x" * 700_000), 700_000),
    "chunked": (CHUNKED, 5),
    "empty": (head("HTTP/1.1 204 No Content"), 0),
}


async def test_logged_bytes_count_bodies_without_framing(edge: Edge) -> None:
    for n, (into, out) in enumerate(itertools.product(SIZES.values(), BODIES.values()), 1):
        (asked, bytes_in), (answered, bytes_out) = into, out
        await edge.passes(asked, answered)
        found = await line(edge, n)
        assert (found["bytes_in"], found["bytes_out"]) == (bytes_in, bytes_out)


REFUSED = {
    # request, status, error, known fields
    "malformed": (b"nonsense\r\n\r\n", 400, "The request line is not a method", set()),
    "no host": (get("/public/").replace(b"Host: edge.test\r\n", b""), 400, "Host is missing", {"method", "path"}),
    "bad field": (get("/public/?q", "X-A : b"), 400, "A header field line is malformed", {"method", "path"}),
    "no key": (get("/v1/x"), 401, "An API key is needed here", {"method", "path", "host", "route"}),
    "unknown key": (get("/v1/x", "X-API-Key: nobody"), 401, "The API key is not known", {"route"}),
    "expired key": (get("/v1/x", f"X-API-Key: {EXPIRED}"), 401, "The API key has expired", {"route"}),
    "scope": (get("/read/x", f"X-API-Key: {KEY}"), 403, "The API key lacks the scope read", {"route", "customer"}),
    "no route": (get("/nowhere"), 404, "No route leads here", {"method", "path", "host"}),
    "method": (
        head("POST /get/x HTTP/1.1", "Host: h", "Content-Length: 0"),
        405,
        "The method is not allowed",
        {"path"},
    ),
    "long line": (b"GET /" + b"x" * 40_000, 414, "The request line is too long", set()),
    "long head": (get("/public/", *(f"X-{n}: {'x' * 4000}" for n in range(9))), 431, "The header fields", {"path"}),
    "coding": (get("/public/", "Transfer-Encoding: gzip"), 501, "The only transfer coding", {"path"}),
    "own method": (b"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", 501, "The method is not forwarded", set()),
    "version": (b"GET / HTTP/2.0\r\n\r\n", 505, "Only HTTP/1.1", set()),
}


async def test_a_paused_customer_is_logged(edge: Edge) -> None:
    edge.config["customers"]["acme"] = {"tier": "basic", "paused": {"why": "Unpaid"}}
    await edge.refuses(get("/v1/x", f"X-API-Key: {KEY}"))
    found = await line(edge)
    assert (found["status"], found["route"], found["customer"], found["tier"]) == (403, "v1", "acme", "basic")
    assert found["error"] == "Unpaid"


async def test_refusals_are_logged_with_their_known_fields(edge: Edge) -> None:
    for n, (asked, status, error, known) in enumerate(REFUSED.values(), 1):
        answer = await edge.refuses(asked)
        found = await line(edge, n)
        assert (found["status"], found["request_id"]) == (status, answer["X-Request-Id"])
        assert found["error"].startswith(error)
        assert found["bytes_out"] == len(answer.body)
        assert found["client"] == "127.0.0.1"
        assert found.keys() >= known
        assert found.keys().isdisjoint({"upstream", "endpoint", "retries", "aborted", "customer"} - known)
        if not known:
            assert found.keys().isdisjoint({"method", "path", "host", "route"})


async def test_a_429_is_logged_with_its_limit(edge: Edge) -> None:
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "1/min"}]}
    await edge.passes(get("/v1/x", f"X-API-Key: {KEY}"), ok())
    answer = await edge.refuses(get("/v1/x", f"X-API-Key: {KEY}"))
    _, found = await lines(edge, 2)
    assert (found["status"], found["error"], found["customer"]) == (429, "Over the limit basic", "acme")
    assert found["bytes_out"] == len(answer.body)


async def test_a_refused_connection_is_logged(edge: Edge) -> None:
    edge.config["limits"] = {"connections_per_ip": 1}
    await edge.client()
    other = await edge.client()
    answer = await other.gets_answer()
    found = await line(edge)
    assert (answer.status, found["status"], found["client"]) == (429, 429, "127.0.0.1")
    assert found["request_id"] == answer["X-Request-Id"]
    assert (found["error"], found["bytes_out"]) == (answer_detail(answer), len(answer.body))
    assert "path" not in found


async def test_a_request_refused_by_a_breaker_names_its_upstream(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["breaker"] = {"pending": 1}
    client, other = await edge.client(), await edge.client()
    upstream = await edge.brings(client, get())
    assert (await other.asks(get())).status == 503
    found = await line(edge)
    assert (found["status"], found["upstream"], found["error"]) == (503, "api", "connection_limit_reached")
    assert found.keys().isdisjoint({"endpoint", "retries", "upstream_seconds"})
    await upstream.tells(client, ok())


async def test_a_cut_off_response_is_logged_once(edge: Edge) -> None:
    client, upstream = await edge.forwards()
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Length: 100"), b"begun")
    await client.gets_head()
    upstream.closes()
    await client.gets_cut()
    await edge.settles()
    found = await line(edge)
    assert (found["status"], found["error"], found["bytes_out"]) == (200, "http_response_incomplete", 5)
    assert "aborted" not in found


async def test_retries_are_counted(edge: Edge) -> None:
    client, upstream = await edge.serves()
    await client.sends(get())
    await upstream.gets_request()
    upstream.aborts()  # A failure of a kept connection does not count as a retry.
    fresh = await edge.upstream.takes()
    fresh.aborts()
    other = await edge.upstream.takes()
    await other.tells(client, ok())
    assert [found["retries"] for found in await lines(edge, 2)] == [0, 1]


async def test_a_client_that_leaves_is_logged_as_aborted(edge: Edge) -> None:
    client, upstream = await edge.forwards()
    client.aborts()
    await upstream.gets_cut()
    found = await line(edge)
    assert found["aborted"] is True
    assert found.keys().isdisjoint({"status", "error", "upstream_seconds"})
    assert found["upstream"] == "api"


async def test_a_connection_cut_by_the_edge_is_not_logged_as_aborted(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["timeouts"] = {"idle": "50ms"}
    client, upstream = await edge.forwards()
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Length: 100"), b"begun")
    await client.gets_head()
    await client.gets_reset()
    found = await line(edge)
    assert "The edge ended the connection" in found["error"]
    assert "aborted" not in found


@pytest.mark.parametrize("first", ["client", "upstream"])
async def test_access_log_writes_one_line_at_the_end_of_a_tunnel(edge: Edge, first: str) -> None:
    client, upstream = await edge.forwards(get("/public/socket", "Connection: upgrade", "Upgrade: websocket"))
    await upstream.sends(head("HTTP/1.1 101 Switching", "Connection: upgrade", "Upgrade: websocket"), b"hi")
    await client.gets_head()
    await client.gets(b"hi")
    await client.reaches(upstream, b"frames")
    await upstream.reaches(client, b"more")
    one, other = (client, upstream) if first == "client" else (upstream, client)
    one.sends_eof()
    await other.gets_eof()
    assert not log_of(edge).exists()
    other.sends_eof()
    await one.gets_eof()
    found = await line(edge)
    assert (found["status"], found["bytes_in"], found["bytes_out"]) == (101, 6, 6)
    assert found.keys().isdisjoint({"aborted", "error"})


async def test_the_host_named_by_a_trusted_proxy_is_logged(edge: Edge) -> None:
    edge.config["trusted_proxies"] = ["127.0.0.0/8"]
    await edge.passes(get("/public/", "X-Forwarded-Host: shop.example", "Via: 1.1 X-Forwarded-Host: evil"), ok())
    assert (await line(edge))["host"] == "shop.example"


INJECTED = [
    b'GET /public/"},{"status":200 HTTP/1.1\r\nHost: h\r\n\r\n',
    b"GET /public/\x1b[31m HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /public/\xff\xfe HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /public/%0d%0a%22%00 HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /public/%0d%0a%22%1b HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /public/\xc2\x85\xe2\x80\xa8 HTTP/1.1\r\nHost: h\r\n\r\n",
    b'GET /nowhere HTTP/1.1\r\nHost: h\r\nX-A: "}\r\n\r\n',
    b'GET /nowhere HTTP/1.1\r\nHost: h"}\r\n\r\n',
    b'{"status":200}\r\n\r\n',
]


async def test_client_data_cannot_break_a_line(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok())
    for asked in INJECTED:
        client = await edge.client()
        await client.asks(asked)
        client.closes()
    found = await lines(edge, len(INJECTED))
    assert found[4]["path"] == "/public/%0D%0A%22%1B"


async def test_a_request_id_with_quotes_cannot_break_a_line(edge: Edge) -> None:
    edge.config["trusted_proxies"] = ["127.0.0.0/8"]
    await edge.passes(get("/public/", 'X-Request-Id: a"}\\,{"b'), ok())
    assert (await line(edge))["request_id"] == 'a"}\\,{"b'


async def test_a_long_path_is_truncated(edge: Edge) -> None:
    """The limit keeps a line within the size of an atomic write to a pipe."""
    await edge.passes(get("/public/" + "x" * 8000), ok())
    file = log_of(edge)
    await edge.until(lambda: file.exists() and file.read_bytes())
    body = orjson.loads(file.read_bytes())
    assert body["path"] == "/public/" + "x" * (PATH_CHARACTERS_MAX - 8) + "..."
    assert len(file.read_bytes()) < 4096


async def test_the_sample_is_drawn_per_request_and_logged(edge: Edge) -> None:
    edge.config["access_log"] = {"file": str(log_of(edge)), "sample": "25%"}
    edge.upstream.answers(lambda request: ok())
    client = await edge.client()
    drawn = iter([0.9, 0.2499, 0.25, 0.0])
    access = edge.runtime.snapshot.access_log
    assert access is not None
    access._chance = drawn.__next__
    for n in range(4):
        await client.asks(get(f"/public/{n}"))
    found = await lines(edge, 2)
    assert [(line["path"], line["sample"]) for line in found] == [("/public/1", 0.25), ("/public/3", 0.25)]


async def test_mask_addresses_logs_networks_for_every_outcome(edge: Edge) -> None:
    edge.config["access_log"] = {"file": str(log_of(edge)), "mask_addresses": True}
    edge.config["trusted_proxies"] = ["127.0.0.1/32"]
    edge.config["limits"] = {"connections_per_ip": 1}
    edge.upstream.answers(lambda request: ok())
    proxy = await edge.client()
    for asked in (
        get("/public/", "X-Forwarded-For: 203.0.113.77"),
        get("/public/", "X-Forwarded-For: 2001:db8:7:8::9"),
        get("/nowhere", "X-Forwarded-For: 203.0.113.78", 'X-Request-Id: "'),
    ):
        await proxy.asks(asked)
    for refused in (b"GET / HTTP/1.1\r\n\r\n", b"nothing\r\n\r\n"):
        client = await edge.client("127.0.0.5")
        await client.asks(refused)
        client.closes()
        await edge.until(lambda: edge.count("edge_connections", "client") == 1)
    client = await edge.client("127.0.0.9")
    await client.asks(get("/nowhere"))
    await (await edge.client("127.0.0.9")).asks(get())
    clients = [line["client"] for line in await lines(edge, 7)]
    assert clients == ["203.0.113.0/24", "2001:db8:7::/48", "203.0.113.0/24", *["127.0.0.0/24"] * 4]
    assert not re.search(rb"113\.7|7:8|127\.0\.0\.[59]", log_of(edge).read_bytes())


async def test_unwritable_lines_are_counted_and_reported_once(edge: Edge, capfd: pytest.CaptureFixture[str]) -> None:
    edge.config["access_log"] = "/dev/full"
    edge.upstream.answers(lambda request: ok())
    client = await edge.client()
    for n in range(1, 4):
        await client.asks(get())
        await edge.until(lambda n=n: edge.count("edge_access_log_dropped_total") == n)
    text = "".join(capfd.readouterr())
    assert text.count("access log lines dropped") == 1
    assert "No space left on device" in text


async def test_no_key_appears_in_the_log(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok())
    for key in (KEY, UNLIMITED, READER, EXPIRED, "key-of-nobody"):
        for asked in (
            get("/v1/x", f"Authorization: Bearer {key}"),
            get("/v1/x", f"X-API-Key: {key}"),
            get(f"/public/x?api_key={key}", f"Cookie: {key}"),
            get("/v1/x", f"X-API-Key : {key}"),
            head(f"X-API-Key: {key}", "Host: h"),
            head(f"{key} / HTTP/1.1", "Host: h"),
            head(f"GET http://user:{key}@h/ HTTP/1.1", "Host: h"),
        ):
            client = await edge.client()
            await client.asks(asked)
            client.closes()
    await lines(edge, 35)
    assert b"key-" not in log_of(edge).read_bytes()
