"""Meters of bytes in both directions, costs, and amounts reported by upstreams. Sums are exact."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.edge.proxy.asking import asked, asks, is_limited, request
from tests.edge.proxy.tunnels import SWITCH, UPGRADE, ends, tunnel
from tests.support.transcript import KEY, Edge, chunks, get, head, ok, post

WITH_KEY = f"X-API-Key: {KEY}"
BYTES = {"in": {"count": "bytes_in"}, "out": {"count": "bytes_out"}}
TOKENS = {"count": "response_header", "header": "X-Usage-Tokens"}
LATE_TOKENS = {"count": "response_trailer", "header": "X-Usage-Tokens"}
CHUNKED = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["meters"] = BYTES
    return edge


def counted(edge: Edge, route: str = "v1", customer: str = "acme") -> dict[str, int]:
    """Return the counts of each meter. All counts must belong to this customer and this route."""
    usage = edge.usage()
    assert all((who, where) == (customer, route) for who, _, where in usage), usage
    return {meter: total for (_, meter, _), total in usage.items()}


def with_key(method: str = "GET", minor: int = 1) -> bytes:
    return head(f"{method} /v1/x HTTP/1.{minor}", "Host: edge.test", WITH_KEY)


# ---- bytes to the client

ANSWERS: dict[str, tuple[list[bytes], list[int]]] = {
    "whole": ([ok(b"x" * 321)], [321]),
    "whole and long": ([ok(b"x" * 40_000)], [40_000]),
    "empty": ([ok(b"")], [0]),
    "sized, in pieces": ([head("HTTP/1.1 200 OK", "Content-Length: 9") + b"abc", b"de", b"fghi"], [3, 5, 9]),
    "chunked": ([CHUNKED + chunks(b"abc", b"d" * 300)], [303]),
    "chunked, in pieces": ([CHUNKED, b"3;x=y\r\nab", b"c\r", b"\n0\r\n", b"X-Sum: 1\r\n\r\n"], [0, 2, 3, 3]),
    "hints before": ([head("HTTP/1.1 103 Early Hints", "Link: </a>"), ok(b"abc")], [0, 3]),
    "an error of the client's": ([head("HTTP/1.1 404 No", "Content-Length: 2") + b"no"], [2]),
    "no content": ([head("HTTP/1.1 204 No Content")], [0]),
    "not modified": ([head("HTTP/1.1 304 Not Modified", "Content-Length: 999")], [0]),
}
"""The pieces that the upstream sends, and the counted bytes at each write to the client."""


@pytest.mark.parametrize("name", ANSWERS)
async def test_the_content_of_answers_is_counted_before_it_is_written(edge: Edge, name: str) -> None:
    """Only content counts. The test reads the counts in the shared table at each write."""
    pieces, counts = ANSWERS[name]
    client, upstream = await asked(edge)
    (held,) = edge.runtime.connections.clients
    write, writelines, seen = held.write, held.writelines, []

    def looks_then(writes: Callable[[Any], None], data: Any) -> None:
        seen.append(counted(edge).get("out", 0))
        writes(data)

    held.write, held.writelines = partial(looks_then, write), partial(looks_then, writelines)
    for piece in pieces:
        await upstream.sends(piece)
        await edge.settles()
    answer = await client.gets_answer()
    if answer.status == 103:
        answer = await client.gets_answer()
    assert seen == counts
    assert len(answer.body) == counts[-1]
    assert counted(edge) == ({"out": counts[-1]} if counts[-1] else {})


async def test_an_answer_that_ends_with_its_connection_is_counted(edge: Edge) -> None:
    client, upstream = await asked(edge)
    await upstream.sends(head("HTTP/1.0 200 OK"), b"abc")
    await upstream.sends(b"defgh")
    upstream.closes()
    assert (await client.gets_answer()).body == b"abcdefgh"
    assert counted(edge) == {"out": 8}


# ---- bytes from the client


@pytest.mark.parametrize("answered", [ok(b"x"), CHUNKED + chunks(b"x")], ids=["whole", "pieces"])
@pytest.mark.parametrize(
    ("pieces", "size"),
    [
        ([post(b"x" * 321, "/v1/x", WITH_KEY)], 321),
        ([post(b"", "/v1/x", WITH_KEY)], 0),
        ([head("POST /v1/x HTTP/1.1", "Host: h", WITH_KEY, "Content-Length: 9"), b"abcd", b"efghi"], 9),
        ([head("POST /v1/x HTTP/1.1", "Host: h", WITH_KEY, "Transfer-Encoding: chunked") + chunks(b"ab", b"cde")], 5),
        (
            [
                head("POST /v1/x HTTP/1.1", "Host: h", WITH_KEY, "Transfer-Encoding: chunked") + b"5;x\r\nab",
                b"cde\r\n1",
                b"\r\nf\r\n0\r\nX-Sum: 1\r\n\r\n",
            ],
            6,
        ),
    ],
)
async def test_the_content_of_requests_is_counted(edge: Edge, pieces: list[bytes], size: int, answered: bytes) -> None:
    client = await edge.client()
    for piece in pieces:
        await client.sends(piece)
        await edge.settles()
    upstream = await edge.upstream.accepts()
    assert len((await upstream.gets_request()).body) == size
    assert counted(edge) == {}, "bytes are not counted before the response"
    await upstream.tells(client, answered)
    assert counted(edge) == {"out": 1, **({"in": size} if size else {})}


async def test_body_bytes_after_an_early_response_are_counted_as_they_pass(edge: Edge) -> None:
    edge.config["meters"] = {**BYTES, "all": {"count": "bytes_in", "when": "admitted"}}
    client = await edge.client()
    await client.sends(head("POST /v1/x HTTP/1.1", "Host: h", WITH_KEY, "Content-Length: 100") + b"abc")
    upstream = await edge.upstream.accepts()
    await upstream.gets_until(b"abc")
    assert counted(edge) == {"all": 3}
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Length: 10"), b"01234")
    await client.gets_until(b"01234")
    assert counted(edge) == {"all": 3, "in": 3, "out": 5}
    await client.reaches(upstream, b"defg")
    assert counted(edge) == {"all": 7, "in": 7, "out": 5}
    await upstream.reaches(client, b"56789")
    client.closes()
    await upstream.gets_cut()
    assert counted(edge) == {"all": 7, "in": 7, "out": 10}


@pytest.mark.parametrize("chunked", [False, True])
async def test_every_piece_is_counted_before_the_upstream_gets_it(edge: Edge, chunked: bool) -> None:
    """This holds for meters with `when: admitted`. Others count with the response."""
    edge.config["meters"] = {"in": {"count": "bytes_in", "when": "admitted"}}
    framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 8"
    client, upstream = await edge.opens(head("POST /v1/x HTTP/1.1", "Host: h", WITH_KEY, framing))
    (held,) = edge.runtime.connections.clients
    assert held.exchange is not None
    server = held.exchange.server
    assert server is not None
    write, seen = server.write, []

    def looks_then_writes(data: bytes) -> Any:
        seen.append(counted(edge).get("in", 0))
        return write(data)

    server.write = looks_then_writes
    for piece in (b"abc", b"de", b"fgh"):
        await client.sends(chunks(piece)[:-5] if chunked else piece)
        await upstream.gets_until(piece)
        if chunked:
            await upstream.gets(b"\r\n")
    assert seen == [3, 5, 8]
    upstream.closes()
    client.aborts()
    await edge.settles()
    assert counted(edge) == {"in": 8}


async def test_a_request_retried_at_another_upstream_counts_once(edge: Edge) -> None:
    edge.config["meters"] = {**BYTES, "all": {"count": "bytes_in", "when": "admitted"}}
    client, stale = await asked(edge)
    await stale.tells(client, ok(b""))
    await client.sends(head("PUT /v1/x HTTP/1.1", "Host: h", WITH_KEY, "Content-Length: 7") + b"abcdefg")
    await stale.gets_request()
    stale.closes()
    another = await edge.upstream.accepts()
    assert (await another.gets_request()).body == b"abcdefg"
    await another.tells(client, ok(b""))
    assert counted(edge) == {"in": 7, "all": 7}


async def test_a_too_large_body_counts_its_forwarded_part(edge: Edge) -> None:
    edge.config["meters"] = {**BYTES, "all": {"count": "bytes_in", "when": "admitted"}}
    edge.config["limits"] = {"body": "10B"}
    client = await edge.client()
    await client.sends(
        head("POST /v1/x HTTP/1.1", "Host: h", WITH_KEY, "Transfer-Encoding: chunked") + b"4\r\nabcd\r\n"
    )
    upstream = await edge.upstream.accepts()
    await upstream.gets_until(b"abcd\r\n")
    assert (await client.asks(b"8\r\nabcdefgh\r\n")).status == 413
    await upstream.gets_cut()
    assert counted(edge) == {"all": 4}


# ---- the setting `when`

ALL_OF = {
    "requests": {"count": "requests"},
    "cost": {"count": "cost"},
    "in": {"count": "bytes_in"},
    "out": {"count": "bytes_out"},
    "head": TOKENS,
    "tail": {"count": "response_trailer", "header": "X-Late"},
}
AMOUNTS = {"requests": 1, "cost": 7, "in": 3, "out": 5, "head": 11, "tail": 13}


@pytest.mark.parametrize(
    ("status", "whens"),
    [
        (200, {"answered", "success", "admitted"}),
        (302, {"answered", "success", "admitted"}),
        (404, {"answered", "admitted"}),
        (500, {"admitted"}),
        (599, {"admitted"}),
    ],
)
@pytest.mark.parametrize("framing", ["Content-Length: 5", "Transfer-Encoding: chunked"])
async def test_meter_counts_requests_selected_by_when(edge: Edge, status: int, whens: set[str], framing: str) -> None:
    edge.config["meters"] = {
        f"{name}-{when}": {**meter, "when": when}
        for name, meter in ALL_OF.items()
        for when in ("answered", "success", "admitted")
    }
    edge.config["routes"][0]["cost"] = 7
    chunked = "chunked" in framing
    answered = head(f"HTTP/1.1 {status} X", framing, "X-Usage-Tokens: 11")
    answered += chunks(b"hello", trailers=("X-Late: 13",)) if chunked else b"hello"
    _, got = await edge.passes(post(b"abc", "/v1/x", WITH_KEY), answered)
    assert "X-Usage-Tokens" not in got, "the field is hidden with every status"
    assert got.trailers == []
    names = AMOUNTS if chunked else {name: n for name, n in AMOUNTS.items() if name != "tail"}
    assert counted(edge) == {f"{name}-{when}": n for name, n in names.items() for when in whens}


async def test_refusals_of_the_edge_count_only_admitted_bytes(edge: Edge) -> None:
    edge.config["meters"] = {
        f"{name}-{when}": {**meter, "when": when} for name, meter in ALL_OF.items() for when in ("answered", "admitted")
    }
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "1/min"}]}
    client, upstream = await asked(edge, post(b"abc", "/v1/x", WITH_KEY))
    await upstream.gets(b"abc")
    upstream.closes()
    assert (await client.gets_answer()).status == 502
    let_through = {"requests-admitted": 1, "cost-admitted": 1, "in-admitted": 3}
    assert counted(edge) == let_through
    for refused in (post(b"abc", "/v1/x", WITH_KEY), post(b"abc", "/v1/x"), post(b"abc", "/nowhere", WITH_KEY)):
        await edge.refuses(refused)
    assert counted(edge) == let_through


# ---- tunnels


async def test_the_bytes_of_a_tunnel_are_counted_both_ways(edge: Edge) -> None:
    client, upstream = await edge.opens(get("/v1/ws", *UPGRADE, WITH_KEY) + b"early")
    await upstream.sends(SWITCH + b"hello")
    assert (await client.gets_head()).status == 101
    await client.gets(b"hello")
    await upstream.gets(b"early")
    assert counted(edge) == {"in": 5, "out": 5}
    for n in (1, 10, 1000):
        await client.reaches(upstream, b"u" * n)
        await upstream.reaches(client, b"d" * 2 * n)
    assert counted(edge) == {"in": 1016, "out": 2027}
    await ends(client, upstream)


@pytest.mark.parametrize(("when", "counts"), [("answered", 1), ("success", 0), ("admitted", 1)])
async def test_a_tunnel_counts_as_answered_and_not_as_success(edge: Edge, when: str, counts: int) -> None:
    edge.config["meters"] = {name: {**meter, "when": when} for name, meter in BYTES.items()}
    client, upstream = await tunnel(edge, "/v1/ws", WITH_KEY)
    await client.reaches(upstream, b"abc")
    await upstream.reaches(client, b"defgh")
    assert counted(edge) == ({"in": 3, "out": 5} if counts else {})
    await ends(client, upstream)


async def test_the_edges_own_websocket_frames_are_not_counted(edge: Edge) -> None:
    """At a drain, the edge sends close frames between two frames of the peers. These frames are not billed."""
    client, upstream = await tunnel(edge, "/v1/ws", WITH_KEY)
    await client.reaches(upstream, b"\x81\x85mask1")
    await upstream.reaches(client, b"\x81\x05abc")
    assert counted(edge) == {"in": 7, "out": 5}
    (held,) = edge.runtime.connections.clients
    held.close_tunnel()
    await client.sends(b"2345" + b"\x81\x81mask!")
    assert len(await upstream.gets_bytes(4 + 8)) == 12
    await upstream.sends(b"de" + b"\x81\x01x")
    assert len(await client.gets_bytes(2 + 4)) == 6
    assert counted(edge) == {"in": 11, "out": 7}
    client.aborts()
    await upstream.gets_cut()


# ---- reported amounts


async def test_a_reported_amount_is_counted_and_its_field_hidden(edge: Edge) -> None:
    edge.config["meters"] = {"tokens": TOKENS}
    edge.upstream.answers(lambda request: ok(b"", "x-usage-tokens:  0321 ", "X-Usage-Tokens-Left: 5", "X-Else: y"))
    client = await edge.client()
    for _ in range(2):
        answer = await asks(client)
        assert "X-Usage-Tokens" not in answer
        assert (answer["X-Usage-Tokens-Left"], answer["X-Else"]) == ("5", "y")
    assert counted(edge) == {"tokens": 642}


@pytest.mark.parametrize("last", ["X-Else: y", ""])
@pytest.mark.parametrize("answered", ["Content-Length: 0", "Transfer-Encoding: chunked"])
async def test_pass_forwards_the_reporting_field(edge: Edge, answered: str, last: str) -> None:
    edge.config["meters"] = {"tokens": {**TOKENS, "pass": True}, "also": {**TOKENS, "header": "x-usage-tokens"}}
    lines = ["X-Usage-Tokens: 5", answered, *([last] if last else [])]
    body = chunks(trailers=("X-Usage-Tokens: 6",)) if "chunked" in answered else b""
    _, answer = await edge.passes(with_key(), head("HTTP/1.1 200 OK", *lines) + body)
    assert answer["X-Usage-Tokens"] == "5"
    assert counted(edge) == {"tokens": 5, "also": 5}


LARGEST = 10**12


async def test_a_whole_number_is_read(edge: Edge) -> None:
    edge.config["meters"] = {"tokens": TOKENS}
    total = 0
    for value in ("0", "00", "7", "0" * 40 + "9", str(LARGEST), " 12 ", "\t3"):
        await edge.passes(with_key(), ok(b"", f"X-Usage-Tokens:{value}"))
        total += int(value)
        assert counted(edge).get("tokens", 0) == total, value
    assert edge.metrics("edge_usage_unreadable_total") == {}


UNREADABLE = [
    *([value] for value in ("", "-1", "+1", "1.5", "1e3", "12 tokens", "0x10", "1_000", "٣", "5, 7", "9" * 5000)),
    [str(LARGEST + 1)],
    ["5", "5"],
    ["5", ""],
]


async def test_an_invalid_amount_is_not_counted_and_reported_as_unreadable(edge: Edge) -> None:
    edge.config["meters"] = {"tokens": TOKENS, "out": BYTES["out"]}
    for n, values in enumerate(UNREADABLE, 1):
        lines = [f"X-Usage-Tokens: {value}".encode().decode("latin-1") for value in values]
        _, answer = await edge.passes(with_key(), ok(b"hello", *lines))
        assert "X-Usage-Tokens" not in answer, values
        assert counted(edge) == {"out": 5 * n}, values
        assert edge.metrics("edge_usage_unreadable_total") == {("tokens",): [n]}, values


async def test_a_missing_field_is_no_report(edge: Edge) -> None:
    edge.config["meters"] = {"tokens": TOKENS, "late": LATE_TOKENS}
    await edge.passes(with_key(), ok(b"", "X-Usage: 1"))
    await edge.passes(with_key(), CHUNKED + chunks(b"a", trailers=("X-Sum: 1",)))
    assert counted(edge) == {}
    assert edge.metrics("edge_usage_unreadable_total") == {}


def cuts(whole: bytes) -> Iterator[list[bytes]]:
    """Yield the data in one piece, in two pieces cut at every point, and byte by byte."""
    yield [whole]
    yield from ([whole[:at], whole[at:]] for at in range(1, len(whole)))
    yield [whole[at : at + 1] for at in range(len(whole))]


async def test_reporting_trailers_are_counted_and_hidden_with_any_read_boundaries(edge: Edge) -> None:
    edge.config["meters"] = {"late": LATE_TOKENS, "out": BYTES["out"]}
    edge.config["tiers"]["basic"] = {"limits": []}
    whole = chunks(b"abc", trailers=("X-Sum: 1", "x-USAGE-tokens: 21", "X-More: 2"))
    client, upstream = await asked(edge)
    for before, pieces in enumerate(cuts(whole)):
        if before:
            await client.sends(request())
            await upstream.gets_head()
        await upstream.sends(CHUNKED)
        for piece in pieces:
            await upstream.sends(piece)
            await edge.settles()
        answer = await client.gets_answer()
        assert answer.trailers == [("X-Sum", "1"), ("X-More", "2")]
        assert counted(edge) == {"late": 21 * (before + 1), "out": 3 * (before + 1)}


async def test_pass_forwards_the_reporting_trailer(edge: Edge) -> None:
    edge.config["meters"] = {"late": {**LATE_TOKENS, "pass": True}}
    _, answer = await edge.passes(with_key(), CHUNKED + chunks(b"a", trailers=("X-Usage-Tokens: 21",)))
    assert answer.trailers == [("X-Usage-Tokens", "21")]
    assert counted(edge) == {"late": 21}


async def test_an_invalid_trailer_is_reported_as_unreadable(edge: Edge) -> None:
    edge.config["meters"] = {"late": LATE_TOKENS}
    _, answer = await edge.passes(with_key(), CHUNKED + chunks(b"a", trailers=("X-Usage-Tokens: many",)))
    assert answer.trailers == []
    assert edge.metrics("edge_usage_unreadable_total") == {("late",): [1]}


async def test_trailers_of_a_cut_off_response_are_not_counted(edge: Edge) -> None:
    edge.config["meters"] = {"late": LATE_TOKENS, "out": BYTES["out"]}
    client, upstream = await asked(edge)
    await upstream.sends(CHUNKED, b"3\r\nabc\r\n0\r\nX-Usage-Tokens: 21\r\n")
    await client.gets_until(b"abc\r\n")
    upstream.closes()
    await client.gets_cut()
    assert counted(edge) == {"out": 3}


async def test_head_and_trailer_fields_of_one_name_count_separately(edge: Edge) -> None:
    edge.config["meters"] = {"tokens": TOKENS, "late": LATE_TOKENS}
    answered = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "X-Usage-Tokens: 4")
    _, answer = await edge.passes(with_key(), answered + chunks(b"a", trailers=("X-Usage-Tokens: 21",)))
    assert (answer.all("X-Usage-Tokens"), answer.trailers) == ([], [])
    assert counted(edge) == {"tokens": 4, "late": 21}


@pytest.mark.parametrize("passes", [False, True])
async def test_fields_of_early_hints_are_hidden_and_not_counted(edge: Edge, passes: bool) -> None:
    edge.config["meters"] = {"tokens": {**TOKENS, "pass": passes}}
    client, upstream = await asked(edge)
    await upstream.sends(head("HTTP/1.1 103 Early Hints", "X-Usage-Tokens: 4", "Link: </a>"))
    hints = await client.gets_head()
    assert (hints["Link"], "X-Usage-Tokens" in hints) == ("</a>", passes)
    await upstream.tells(client, ok(b"", "X-Usage-Tokens: 5"))
    assert counted(edge) == {"tokens": 5}


# ---- quotas


def quota(edge: Edge, meter: dict[str, Any], included: int, cap: str = "hard") -> None:
    edge.config["meters"] = {"m": meter}
    quotas = [{"meter": "m", "per": "month", "included": included, "cap": cap}]
    edge.config["tiers"]["basic"] = {"limits": [], "quotas": quotas}


@pytest.mark.parametrize(
    ("meter", "answered"),
    [
        (BYTES["out"], ok(b"x" * 60)),
        (BYTES["out"], CHUNKED + chunks(b"x" * 50, b"x" * 10)),
        (BYTES["in"], ok()),
        (BYTES["in"] | {"when": "admitted"}, ok()),
        (TOKENS, ok(b"", "X-Usage-Tokens: 60")),
        (LATE_TOKENS, CHUNKED + chunks(trailers=("X-Usage-Tokens: 60",))),
    ],
)
@pytest.mark.parametrize("cap", ["hard", "soft"])
async def test_a_request_passes_while_its_quota_has_a_remainder(
    edge: Edge, meter: dict[str, Any], answered: bytes, cap: str
) -> None:
    quota(edge, meter, 100, cap)
    edge.upstream.answers(lambda request: answered)
    client = await edge.client()
    sent = post(b"y" * 60, "/v1/x", WITH_KEY)
    for used in (60, 120):
        answer = await client.asks(sent)
        assert (answer.status, answer.all("X-Quota")) == (200, [])
        assert edge.used() == {"m-month": used}
    answer = await client.asks(sent)
    if cap == "hard":
        is_limited(answer, "m-month")
        assert edge.used() == {"m-month": 120}
    else:
        assert (answer.status, answer["X-Quota"]) == (200, '"m-month";over')
        assert edge.used() == {"m-month": 180}
    assert sum(edge.usage().values()) == edge.used()["m-month"]


async def test_a_quota_is_charged_piece_by_piece(edge: Edge) -> None:
    quota(edge, BYTES["out"], 100)
    client, upstream = await asked(edge)
    assert edge.used() == {"m-month": 0}
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Length: 105"), b"01234")
    await client.gets_until(b"01234")
    assert edge.used() == {"m-month": 5}
    await upstream.reaches(client, b"x" * 95)
    is_limited(await edge.refuses(request()), "m-month")
    await upstream.reaches(client, b"x" * 5)
    assert edge.used() == {"m-month": 105}


async def test_a_quota_of_costs_refuses_a_request_beyond_its_remainder(edge: Edge) -> None:
    quota(edge, {"count": "cost"}, 25)
    edge.config["routes"] += [{"name": "dear", "path": "/dear/*", "upstream": "api", "cost": 10}]
    edge.upstream.answers(lambda request: ok() if request.first != "GET /dear/fault HTTP/1.1" else ok()[:9] + b"500 X")
    client = await edge.client()
    for used in (10, 20):
        assert (await asks(client, "/dear/x")).status == 200
        assert edge.used() == {"m-month": used}
    is_limited(await asks(client, "/dear/x"), "m-month")
    assert edge.used() == {"m-month": 20}
    for used in range(21, 26):
        assert (await asks(client, "/v1/x")).status == 200
        assert edge.used() == {"m-month": used}
    is_limited(await asks(client, "/v1/x"), "m-month")
    assert edge.usage() == {("acme", "m", "dear"): 20, ("acme", "m", "v1"): 5}
