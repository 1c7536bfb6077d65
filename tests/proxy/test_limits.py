"""Limits as clients see them: who passes, what a refusal says, and what the RateLimit fields say of it."""

import json
import re

import pytest

from tests.support.transcript import KEY, UNLIMITED, Edge, chunks, digest, get, head, ok, post
from tests.support.wire import Message, Wire

LEFT = re.compile(r'"([A-Za-z0-9_-]+)";r=(\d+);t=(\d+)')
CELL = 60 / 28
"""Seconds of one cell of a minute's window: as much later than possible a retry may be told."""


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.upstream.answers(lambda request: ok())
    return edge


async def asks(client: Wire, *fields: str, path: str = "/v1/x", key: str = KEY) -> Message:
    await client.sends(get(path, *([f"X-API-Key: {key}"] if key else []), *fields))
    return await client.gets_answer()


def left(answer: Message) -> tuple[str, int, int]:
    """(policy, left, seconds) of the RateLimit field."""
    match = LEFT.fullmatch(answer["RateLimit"])
    assert match is not None, answer["RateLimit"]
    return match[1], int(match[2]), int(match[3])


async def test_exactly_as_many_pass_as_the_limit_says(edge: Edge) -> None:
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


async def test_a_429_says_which_limit_and_when_to_come_back(edge: Edge) -> None:
    """draft-ietf-httpapi-ratelimit-headers-10 section 5.1, RFC 6585 section 4."""
    client = await edge.client()
    for _ in range(60):
        await asks(client)
    answer = await asks(client)
    assert answer.status == 429
    assert "Connection" not in answer
    said = json.loads(answer.body)
    assert said["violated-policies"] == ["basic"]
    assert said["type"].endswith("#quota-exceeded")
    assert said["instance"] == answer["X-Request-Id"]
    assert said["status"] == 429
    assert 1 <= int(answer["Retry-After"]) <= 60 + CELL + 1
    assert edge.count("edge_rate_limited_total", "basic", "basic", "enforce") == 1
    assert edge.count("edge_requests_total", "v1", "basic", "429") == 1


async def test_whoever_comes_back_when_told_to_passes_and_not_much_earlier(edge: Edge) -> None:
    client = await edge.client()
    for _ in range(60):
        await asks(client)
    wait = int((await asks(client))["Retry-After"])
    edge.passes_time(wait - CELL - 1.1)
    assert (await asks(client)).status == 429
    edge.passes_time(CELL + 1.1)
    assert (await asks(client)).status == 200


async def test_after_the_window_everything_is_as_at_first(edge: Edge) -> None:
    client = await edge.client()
    for _ in range(60):
        await asks(client)
    edge.passes_time(65)
    statuses = [(await asks(client)).status for _ in range(61)]
    assert statuses == [200] * 60 + [429]


async def test_refused_requests_are_charged_nowhere_but_at_the_guard(edge: Edge) -> None:
    edge.config["per_ip"] = {"rate": "75/min"}
    client = await edge.client()
    for _ in range(60):
        await asks(client)
    for _ in range(15):
        assert left(await asks(client))[0] == "basic"
    # By now the guard has counted them all.
    answer = await asks(client)
    assert answer.status == 429
    assert json.loads(answer.body)["violated-policies"] == ["per_ip"]
    # The customer's own limit is not a request further than at first: what was refused did not prolong it.
    edge.passes_time(65)
    assert left(await asks(client))[:2] == ("basic", 59)


async def test_two_limits_are_both_charged_or_neither(edge: Edge) -> None:
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "3/10s"}, {"name": "day", "rate": "5/day"}]}
    client = await edge.client()
    for _ in range(3):
        assert (await asks(client)).status == 200
    for _ in range(4):
        answer = await asks(client)
        assert json.loads(answer.body)["violated-policies"] == ["basic"]
    edge.passes_time(12)
    # The refusals of the short limit cost nothing of the long one.
    first, second, third = [await asks(client) for _ in range(3)]
    assert [first.status, second.status, third.status] == [200, 200, 429]
    assert left(first)[:2] == ("day", 1)
    assert json.loads(third.body)["violated-policies"] == ["day"]
    assert int(third["Retry-After"]) > 3600 * 12


async def test_where_two_limits_refuse_the_longer_wait_is_told(edge: Edge) -> None:
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "3/10s"}, {"name": "hour", "rate": "3/h"}]}
    client = await edge.client()
    for _ in range(3):
        await asks(client)
    answer = await asks(client)
    assert json.loads(answer.body)["violated-policies"] == ["basic", "hour"]
    wait = int(answer["Retry-After"])
    assert wait > 3000
    edge.passes_time(wait)
    assert (await asks(client)).status == 200


async def test_of_several_limits_the_one_closest_to_refusal_is_shown(edge: Edge) -> None:
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "100/min"}, {"name": "few", "rate": "10/h"}]}
    client = await edge.client()
    answer = await asks(client)
    assert left(answer)[:2] == ("few", 9)
    assert answer["RateLimit-Policy"] == '"few";q=10;w=3600'


async def test_all_keys_of_a_customer_share_its_limit(edge: Edge) -> None:
    edge.config["keys"].append({"sha256": digest("second key"), "customer": "acme"})
    client = await edge.client()
    assert left(await asks(client))[1] == 59
    assert left(await asks(client, key="second key"))[1] == 58


async def test_customers_do_not_share_a_limit(edge: Edge) -> None:
    edge.config["customers"]["other"] = {"tier": "basic"}
    edge.config["keys"].append({"sha256": digest("key of other"), "customer": "other"})
    client = await edge.client()
    for _ in range(60):
        await asks(client)
    assert (await asks(client)).status == 429
    assert (await asks(client, key="key of other")).status == 200


async def test_a_customers_own_limits_take_the_place_of_the_tiers(edge: Edge) -> None:
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


async def test_a_customers_limit_holds_on_all_its_routes_together(edge: Edge) -> None:
    client = await edge.client()
    assert left(await asks(client))[1] == 59
    assert left(await asks(client, path="/maybe/x"))[1] == 58


async def test_requests_without_a_key_count_by_address_under_the_anonymous_tier(edge: Edge) -> None:
    edge.config["tiers"]["anonymous"] = {"limits": [{"rate": "2/min"}]}
    one, again, elsewhere = await edge.client(), await edge.client(), await edge.client("127.0.0.2")
    assert left(await asks(one, path="/public/x", key=""))[:2] == ("anonymous", 1)
    assert left(await asks(again, path="/maybe/x", key=""))[:2] == ("anonymous", 0)
    refused = await asks(again, path="/public/x", key="")
    assert refused.status == 429
    assert edge.count("edge_rate_limited_total", "anonymous", "anonymous", "enforce") == 1
    assert (await asks(elsewhere, path="/public/x", key="")).status == 200
    # A key is a customer's, and the address is not asked; but not where nobody looks at keys.
    assert (await asks(one, path="/maybe/x")).status == 200
    assert (await asks(one, path="/public/x")).status == 429


# ---- the guard per address


async def test_the_guard_counts_what_is_refused_too(edge: Edge) -> None:
    edge.config["per_ip"] = {"rate": "6/min"}
    client = await edge.client()
    script = [("/nowhere", "", 404), ("/v1/x", "", 401), ("/v1/x", "nobody", 401), ("/read/x", UNLIMITED, 403)]
    for path, key, status in script:
        assert (await asks(client, path=path, key=key)).status == status
    await client.sends(head("POST /get/x HTTP/1.1", "Host: h", "Content-Length: 0"))
    assert (await client.gets_answer()).status == 405
    assert (await asks(client, key=UNLIMITED)).status == 200
    for path, key in (("/nowhere", ""), ("/v1/x", ""), ("/v1/x", UNLIMITED)):
        answer = await asks(client, path=path, key=key)
        assert answer.status == 429
        assert json.loads(answer.body)["violated-policies"] == ["per_ip"]
        assert int(answer["Retry-After"]) >= 1
    assert edge.count("edge_requests_total", "-", "-", "429") == 3
    assert edge.count("edge_rate_limited_total", "-", "per_ip", "enforce") == 3


async def test_the_guard_is_each_addresses_own(edge: Edge) -> None:
    edge.config["per_ip"] = {"rate": "2/min"}
    one, same, other = await edge.client(), await edge.client(), await edge.client("127.0.0.2")
    assert (await asks(one, key=UNLIMITED)).status == 200
    assert (await asks(same, key=UNLIMITED)).status == 200
    assert (await asks(one, key=UNLIMITED)).status == 429
    assert (await asks(other, key=UNLIMITED)).status == 200


async def test_a_flood_at_the_guard_uses_up_nothing_of_the_customers(edge: Edge) -> None:
    edge.config["per_ip"] = {"rate": "3/min"}
    client, other = await edge.client(), await edge.client("127.0.0.2")
    for _ in range(10):
        await asks(client)
    assert left(await asks(other))[:2] == ("basic", 56)


async def test_the_guard_is_shown_where_nothing_else_applied(edge: Edge) -> None:
    """RateLimit fields are on every answer to which a rate policy applied, allowed or not."""
    edge.config["per_ip"] = {"rate": "200/s"}
    client = await edge.client()
    assert left(await asks(client, key=UNLIMITED))[0] == "per_ip"
    assert left(await asks(client, path="/nowhere"))[0] == "per_ip"
    assert left(await asks(client))[0] == "basic"


async def test_where_the_table_is_full_a_share_of_the_limit_is_held_all_the_same(edge: Edge) -> None:
    edge.config["tables"]["addresses"] = 1
    edge.config["trusted_proxies"] = ["127.0.0.1"]
    edge.config["per_ip"] = {"rate": "2/min"}
    client = await edge.client()
    statuses = []
    for n in range(300):
        answer = await asks(client, f"X-Forwarded-For: 192.0.{n // 100}.{n % 100}", path="/nowhere")
        statuses.append(answer.status)
    assert set(statuses) == {404}
    assert edge.count("edge_table_full_total", "addresses") > 0
    for _ in range(2):
        answer = await asks(client, "X-Forwarded-For: 192.0.2.99", path="/nowhere")
    assert answer.status == 429


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
async def test_every_kind_of_answer_has_the_fields_and_not_the_upstreams(edge: Edge, answered: bytes) -> None:
    theirs = b'RateLimit: "theirs";r=1;t=1\r\nRateLimit-Policy: "theirs";q=1;w=1\r\nX-Other: 1\r\n\r\n'
    at = answered.index(b"\r\n\r\n")
    edge.upstream.answer = lambda request: answered[: at + 2] + theirs + answered[at + 4 :]
    client = await edge.client()
    answer = await asks(client)
    assert left(answer)[:2] == ("basic", 59)
    assert answer["X-Other"] == "1"
    # Where the edge has no policy, theirs are for the client to see.
    free = await asks(client, key=UNLIMITED)
    assert free["RateLimit"] == '"theirs";r=1;t=1'
    assert free["RateLimit-Policy"] == '"theirs";q=1;w=1'


async def test_legacy_fields_stand_beside_the_others(edge: Edge) -> None:
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
async def test_legacy_fields_of_the_upstream_give_way(edge: Edge, answered: bytes) -> None:
    theirs = b"X-RateLimit-Limit: 7\r\nx-ratelimit-remaining:6\r\nX-Other: 1\r\nX-RATELIMIT-RESET: 5\r\n\r\n"
    at = answered.index(b"\r\n\r\n")
    edge.upstream.answer = lambda request: answered[: at + 2] + theirs + answered[at + 4 :]
    edge.config["legacy_headers"] = True
    client = await edge.client()
    answer = await asks(client)
    old = [(name, value) for name, value in answer.fields if name.lower().startswith("x-ratelimit-")]
    assert [name for name, _ in old] == ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"]
    assert (old[0][1], answer["X-Other"]) == ("60", "1")
    # Where the edge has no policy, theirs are for the client to see.
    assert (await asks(client, key=UNLIMITED))["x-ratelimit-remaining"] == "6"


async def test_without_a_policy_there_are_no_fields(edge: Edge) -> None:
    client = await edge.client()
    answer = await asks(client, key=UNLIMITED)
    assert not [name for name, _ in answer.fields if "ratelimit" in name.lower()]


async def test_an_upstreams_fault_has_the_fields_too(edge: Edge) -> None:
    await edge.upstream.rests()
    edge.upstream.refuses()
    client = await edge.client()
    answer = await asks(client)
    assert answer.status == 502
    assert left(answer)[:2] == ("basic", 59)


async def test_a_refusal_with_its_body_still_to_come_ends_the_connection(edge: Edge) -> None:
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "1/min"}]}
    client = await edge.client()
    await asks(client)
    await client.sends(post(b"abc", "/v1/x", f"X-API-Key: {KEY}"))
    kept = await client.gets_answer()
    assert kept.status == 429
    assert "Connection" not in kept
    await client.sends(post(b"abc", "/v1/x", f"X-API-Key: {KEY}")[:-1])
    closed = await client.gets_answer()
    assert (closed.status, closed["Connection"]) == (429, "close")
    await client.gets_eof()


async def test_pipelined_requests_are_held_to_the_limit_one_by_one(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(get("/v1/x", f"X-API-Key: {KEY}") * 100)
    statuses = [(await client.gets_answer()).status for _ in range(100)]
    assert statuses == [200] * 60 + [429] * 40
