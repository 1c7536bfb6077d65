"""Limits as clients see them: admitted requests, refusals, and the RateLimit fields."""

import json

import pytest

from tests.edge.proxy.asking import asks, is_limited, left, limited
from tests.support.transcript import KEY, UNLIMITED, Edge, chunks, head, ok, post

CELL = 60 / 28
"""Seconds of one cell of a minute's window. A retry time may be this much too late."""


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.upstream.answers(lambda request: ok())
    return edge


async def test_the_limit_passes_and_a_429_names_the_policy_and_the_retry_time(edge: Edge) -> None:
    """draft-ietf-httpapi-ratelimit-headers-10 section 5.1, RFC 6585 section 4."""
    client = await edge.client()
    statuses = []
    for n in range(80):
        answer = await asks(client)
        statuses.append(answer.status)
        assert answer["RateLimit-Policy"] == '"basic";q=60;w=60'
        name, rest, seconds = left(answer)
        assert name == "basic"
        assert rest == max(0, 59 - n)
        assert 1 <= seconds <= 60 + CELL + 1
    assert statuses == [200] * 60 + [429] * 20
    assert len(edge.upstream.requests) == 60
    is_limited(answer, "basic")
    assert "Connection" not in answer
    assert 1 <= int(answer["Retry-After"]) <= 60 + CELL + 1
    assert edge.count("edge_rate_limited_total", "basic", "basic", "enforce") == 20
    assert edge.count("edge_requests_total", "v1", "basic", "429") == 20


async def test_cached_refusal_equals_a_new_one(edge: Edge) -> None:
    """The edge builds a refusal of GET from the previous one, but not one of HEAD. Only request ids may differ."""
    pages = ["https://one.test", "https://two.test"]
    edge.config |= {"region_fields": ["X-Edge-Region"], "cors": {"origins": pages}}
    limited(edge, {"rate": "2/min", "name": "minute"}, {"rate": "3/h", "name": "hour"})
    origins: list[list[str]] = [[], [f"Origin: {pages[0]}"], [f"Origin: {pages[1]}"], [], ["Content-Length: 5"], []]
    ids = []
    await edge.starts()
    for seconds, refusing in (
        (0, ("minute",)),
        (1.5, ("minute",)),
        (0.4, ("minute",)),
        (62, ("hour",)),
        (70, ("hour",)),
    ):
        edge.passes_time(seconds)
        while (await asks(await edge.client())).status == 200:
            pass
        for fields in origins:
            before, answer, after = [
                await asks(await edge.client(), "/v1/x", *fields, method=method) for method in ("HEAD", "GET", "HEAD")
            ]
            is_limited(answer, *refusing)
            ids += [each["X-Request-Id"] for each in (before, answer, after)]
            # At most one second boundary falls between the three answers, so one neighbour equals the middle one.
            said, *alone = [
                [field for field in each.fields if field[0] != "X-Request-Id"] for each in (answer, before, after)
            ]
            assert said in alone
    assert len(set(ids)) == len(ids)


async def test_refused_requests_count_only_at_the_guard(edge: Edge) -> None:
    edge.config["per_ip"] = {"rate": "75/min"}
    client = await edge.client()
    for _ in range(60):
        await asks(client)
    for _ in range(15):
        assert left(await asks(client))[0] == "basic"
    # The guard has counted all of them now.
    answer = await asks(client)
    assert answer.status == 429
    assert json.loads(answer.body)["violated-policies"] == ["per_ip"]
    # Refused requests did not count in the customer's limit, so they did not delay its reset.
    edge.passes_time(65)
    assert left(await asks(client))[:2] == ("basic", 59)


async def test_limits_of_a_customer_replace_its_tiers_limits(edge: Edge) -> None:
    edge.config["customers"]["acme"]["limits"] = [{"rate": "2/min", "name": "own"}]
    client = await edge.client()
    assert [left(await asks(client))[:2] for _ in range(2)] == [("own", 1), ("own", 0)]
    assert (await asks(client)).status == 429


async def test_a_customer_with_an_empty_list_has_no_limit(edge: Edge) -> None:
    edge.config["customers"]["acme"]["limits"] = []
    client = await edge.client()
    for _ in range(70):
        answer = await asks(client)
        assert answer.status == 200
        assert "RateLimit" not in answer


# ---- the guard per address


async def test_the_guard_counts_refused_requests(edge: Edge) -> None:
    edge.config["per_ip"] = {"rate": "6/min"}
    client = await edge.client()
    script = [("/nowhere", "", 404), ("/v1/x", "", 401), ("/v1/x", "nobody", 401), ("/read/x", UNLIMITED, 403)]
    for path, key, status in script:
        assert (await asks(client, path=path, key=key)).status == status
    assert (await client.asks(head("POST /get/x HTTP/1.1", "Host: h", "Content-Length: 0"))).status == 405
    assert (await asks(client, key=UNLIMITED)).status == 200
    for path, key in (("/nowhere", ""), ("/v1/x", ""), ("/v1/x", UNLIMITED)):
        answer = await asks(client, path=path, key=key)
        assert answer.status == 429
        assert json.loads(answer.body)["violated-policies"] == ["per_ip"]
        assert int(answer["Retry-After"]) >= 1
    assert edge.count("edge_requests_total", "-", "-", "429") == 3
    assert edge.count("edge_rate_limited_total", "-", "per_ip", "enforce") == 3


async def test_requests_refused_by_the_guard_do_not_use_up_customer_limits(edge: Edge) -> None:
    edge.config["per_ip"] = {"rate": "3/min"}
    client, other = await edge.client(), await edge.client("127.0.0.2")
    for _ in range(10):
        await asks(client)
    assert left(await asks(other))[:2] == ("basic", 56)


async def test_ratelimit_shows_the_guard_if_no_other_policy_applied(edge: Edge) -> None:
    """A response has RateLimit fields if a rate policy applied to its request, admitted or not."""
    edge.config["per_ip"] = {"rate": "200/s"}
    client = await edge.client()
    assert left(await asks(client, key=UNLIMITED))[0] == "per_ip"
    assert left(await asks(client, path="/nowhere"))[0] == "per_ip"
    assert left(await asks(client))[0] == "basic"


# ---- the fields


@pytest.mark.parametrize(
    "answered",
    [
        ok(b"hello"),
        head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + chunks(b"hello"),
        head("HTTP/1.1 204 No Content"),
        head("HTTP/1.1 304 Not Modified"),
        head("HTTP/1.1 500 Oh", "Content-Length: 0"),
        ok(b"hello", "Connection: close"),
    ],
)
async def test_ratelimit_fields_replace_the_upstreams_on_every_kind_of_response(edge: Edge, answered: bytes) -> None:
    theirs = b'RateLimit: "theirs";r=1;t=1\r\nRateLimit-Policy: "theirs";q=1;w=1\r\nX-Other: 1\r\n\r\n'
    at = answered.index(b"\r\n\r\n")
    edge.upstream.answer = lambda request: answered[: at + 2] + theirs + answered[at + 4 :]
    client = await edge.client()
    answer = await asks(client)
    assert left(answer)[:2] == ("basic", 59)
    assert answer["X-Other"] == "1"
    # Without a policy of the edge, the client sees the upstream's fields.
    free = await asks(client, key=UNLIMITED)
    assert free["RateLimit"] == '"theirs";r=1;t=1'
    assert free["RateLimit-Policy"] == '"theirs";q=1;w=1'


async def test_legacy_rate_limit_fields_match_the_standard_fields(edge: Edge) -> None:
    edge.config["legacy_headers"] = True
    client = await edge.client()
    for expected in range(59, -1, -1):
        answer = await asks(client)
        assert answer["X-RateLimit-Limit"] == "60"
        assert answer["X-RateLimit-Remaining"] == str(expected) == str(left(answer)[1])
        assert 1 <= int(answer["X-RateLimit-Reset"]) <= 60 + CELL + 1
    refused = await asks(client)
    assert (refused.status, refused["X-RateLimit-Remaining"]) == (429, "0")


@pytest.mark.parametrize(
    "answered", [ok(b"hello"), head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + chunks(b"hello")]
)
async def test_legacy_fields_of_the_upstream_are_replaced(edge: Edge, answered: bytes) -> None:
    theirs = b"X-RateLimit-Limit: 7\r\nx-ratelimit-remaining:6\r\nX-Other: 1\r\nX-RATELIMIT-RESET: 5\r\n\r\n"
    at = answered.index(b"\r\n\r\n")
    edge.upstream.answer = lambda request: answered[: at + 2] + theirs + answered[at + 4 :]
    edge.config["legacy_headers"] = True
    client = await edge.client()
    answer = await asks(client)
    old = [(name, value) for name, value in answer.fields if name.lower().startswith("x-ratelimit-")]
    assert [name for name, _ in old] == ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"]
    assert (old[0][1], answer["X-Other"]) == ("60", "1")
    # Without a policy of the edge, the client sees the upstream's fields.
    assert (await asks(client, key=UNLIMITED))["x-ratelimit-remaining"] == "6"


async def test_a_502_has_ratelimit_fields(edge: Edge) -> None:
    await edge.upstream.rests()
    edge.upstream.refuses()
    client = await edge.client()
    answer = await asks(client)
    assert answer.status == 502
    assert left(answer)[:2] == ("basic", 59)


async def test_a_refusal_before_the_end_of_the_body_closes_the_connection(edge: Edge) -> None:
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "1/min"}]}
    client = await edge.client()
    await asks(client)
    answer = await client.asks(post(b"abc", "/v1/x", f"X-API-Key: {KEY}"))
    assert answer.status == 429
    assert "Connection" not in answer
    closed = await client.asks(post(b"abc", "/v1/x", f"X-API-Key: {KEY}")[:-1])
    assert (closed.status, closed["Connection"]) == (429, "close")
    await client.gets_eof()
