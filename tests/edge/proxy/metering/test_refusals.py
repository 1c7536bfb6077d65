"""Requests that the edge does not forward: the client's answer, and the fate of its connection.

At the end of each test the stage checks that no request was forwarded.
"""

import pytest

from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.messages import ErrorsCounted
from edgeproxy.edge.proxy.metering import error_counts
from edgeproxy.edge.proxy.metering.error_counts import ErrorCounts
from edgeproxy.edge.proxy.metering.refusals import RefusalMeters
from tests.edge.proxy.asking import asks, is_limited, is_problem, request
from tests.support.transcript import EXPIRED, KEY, READER, UNLIMITED, Edge, chunks, get, head, ok, post

KEPT = {
    "401 no key": (get("/v1/x"), 401),
    "401 unknown key": (get("/v1/x", "Authorization: Bearer nobody"), 401),
    "401 unknown key in the other field": (get("/v1/x", "X-API-Key: nobody"), 401),
    "401 empty key": (get("/v1/x", "X-API-Key:"), 401),
    "401 empty bearer": (get("/v1/x", "Authorization: Bearer"), 401),
    "401 expired key": (get("/v1/x", f"X-API-Key: {EXPIRED}"), 401),
    "401 bad key on an open route": (get("/maybe/x", "X-API-Key: nobody"), 401),
    "401 expired key on an open route": (get("/maybe/x", f"X-API-Key: {EXPIRED}"), 401),
    "403 scope": (get("/read/x", f"X-API-Key: {UNLIMITED}"), 403),
    "404 no route": (get("/nowhere"), 404),
    "404 before a key is asked for": (get("/nowhere", "X-API-Key: nobody"), 404),
    "404 for what only begins like a route": (get("/v10"), 404),
    "405 method": (head("POST /get/x HTTP/1.1", "Host: h", "Content-Length: 0"), 405),
    "405 with a whole body": (head("POST /get/x HTTP/1.1", "Host: h", "Content-Length: 3") + b"abc", 405),
}


async def test_a_refused_request_leaves_its_connection_open(answering: Edge) -> None:
    """The connection stays open if the start of the next request is clear."""
    for n, (name, (sent, status)) in enumerate(KEPT.items()):
        client = await answering.client()
        for _ in range(2):
            answer = await client.asks(sent)
            is_problem(answer, status)
            assert "Connection" not in answer, name
        assert (await client.asks(get(f"/public/{n}"))).status == 200, name
        assert answering.upstream.requests.pop().first == f"GET /public/{n} HTTP/1.1", name
        assert not answering.upstream.requests, name


async def test_client_reads_its_refusal_while_sending_the_body(edge: Edge) -> None:
    """RFC 9112 section 9.6: closing over unread input would reset the connection, and the answer with it."""
    edge.config["limits"] = {"body": "1KiB"}
    client = await edge.client()
    await client.sends(head("POST /public/ HTTP/1.1", "Host: h", "Content-Length: 5000000"))
    await client.sends_while_taken(bytes(1 << 16), 5_000_000)
    assert (await client.gets_answer()).status == 413
    await client.gets_eof()


async def test_head_request_with_invalid_fields_is_refused_without_a_body(edge: Edge) -> None:
    """RFC 9110 section 9.3.2. Found by tests/fuzz."""
    for line, status in (
        ("Host: a b", 400),
        ("Content-Length: x", 400),
        ("Expect: tea", 417),
        ("X: " + "a" * 40_000, 431),
    ):
        client = await edge.client()
        answer = await client.asks(head("HEAD /public/ HTTP/1.1", "Host: h", line), to="HEAD")
        assert (answer.status, int(answer["Content-Length"]) > 0) == (status, True)
        await client.gets_eof()


async def test_head_and_field_bounds_follow_the_configuration(edge: Edge) -> None:
    edge.config["limits"] = {"head": "1KiB", "fields": 3}
    assert (await edge.refuses(get("/public/", "X-A: " + "x" * 1100))).status == 431
    assert (await edge.refuses(get("/public/", "X-A: 1", "X-B: 2", "X-C: 3"))).status == 431
    _, answer = await edge.passes(get("/public/", "X-A: 1", "X-B: 2"), ok())
    assert answer.status == 200


async def test_a_body_longer_than_allowed_is_413_before_it_is_read(edge: Edge) -> None:
    edge.config["limits"] = {"body": "10B"}
    is_problem(await edge.refuses(post(bytes(11))), 413)
    _, answer = await edge.passes(post(bytes(10)), ok())
    assert answer.status == 200


async def test_a_chunked_body_that_grows_too_long_is_413_and_never_complete(edge: Edge) -> None:
    edge.config["limits"] = {"body": "10B"}
    client, upstream = await edge.opens(
        head("POST /public/ HTTP/1.1", "Host: h", "Transfer-Encoding: chunked"), b"a\r\n0123456789\r\n"
    )
    await upstream.gets(b"a\r\n0123456789\r\n")
    answer = await client.asks(b"1\r\nx\r\n0\r\n\r\n")
    is_problem(answer, 413)
    assert answer["Connection"] == "close"
    assert await upstream.gets_cut() == b""


async def test_unauthorized_answer_has_a_www_authenticate_challenge(edge: Edge) -> None:
    """RFC 9110 section 11.6.1, RFC 6750 section 3. Routes that are asked in turn keep their own challenges."""
    edge.config["auth"] = {"basic": True}
    edge.config["routes"].append({"name": "page", "path": "/page", "upstream": "api", "challenge": "basic"})
    for _ in range(2):
        none = await edge.refuses(get("/v1/x"))
        assert none["WWW-Authenticate"] == 'Bearer realm="edgeproxy"'
        for key in ("nobody", EXPIRED):
            bad = await edge.refuses(get("/v1/x", f"Authorization: Bearer {key}"))
            assert bad["WWW-Authenticate"] == 'Bearer realm="edgeproxy", error="invalid_token"'
            page = await edge.refuses(get("/page", f"Authorization: Bearer {key}"))
            assert page["WWW-Authenticate"] == 'Basic realm="edgeproxy", charset="UTF-8"'


async def test_method_not_allowed_answer_lists_the_allowed_methods(edge: Edge) -> None:
    answer = await edge.refuses(head("DELETE /get/x HTTP/1.1", "Host: h"))
    assert answer["Allow"] == "GET, HEAD"


async def test_no_error_of_the_edge_is_billed_or_forgotten(edge: Edge) -> None:
    edge.config["meters"] = {"all": {"count": "requests", "when": "admitted"}, "requests": {"count": "requests"}}
    for refused in (get("/v1/x"), get("/nowhere"), get("/read/x", f"X-API-Key: {UNLIMITED}"), b"nonsense\r\n\r\n"):
        await edge.refuses(refused)
    assert edge.usage() == {}
    assert edge.count("edge_requests_total", "v1", "-", "401") == 1
    assert edge.count("edge_requests_total", "-", "-", "404") == 1
    assert edge.count("edge_requests_total", "-", "-", "400") == 1
    assert sum(sum(words) for words in edge.metrics("edge_requests_total").values()) == 4


async def test_refusals_for_their_key_are_counted_by_reason(edge: Edge) -> None:
    for fields in ((), ("X-API-Key: nobody",), ("X-API-Key: nobody",), (f"X-API-Key: {EXPIRED}",)):
        await edge.refuses(get("/v1/x", *fields))
    await edge.refuses(get("/read/x", f"X-API-Key: {KEY}"))
    counted = {labels[0]: words[0] for labels, words in edge.metrics("edge_auth_failures_total").items()}
    assert counted == {"missing": 1, "unknown": 2, "expired": 1, "scope": 1}


# ---- counts by limit and by the edge's knowledge of other counts


class Tally:
    """Something that is counted."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, n: int = 1) -> None:
        """Count."""
        self.total += n


def test_refusals_count_by_limit_and_certainty_and_a_busy_table_refuses_none() -> None:
    made: dict[str, Tally] = {}
    busy = True

    def counter(split: str) -> tuple[Tally, ...]:
        if busy:
            raise RejectedError(503, "busy")
        return (made.setdefault(split, Tally()),)

    refusals = RefusalMeters(counter)
    refusals.record_refusal("basic", certain=True)
    assert not made
    busy = False
    for limit, certain in (("basic", True), ("basic", True), ("basic", False), ("two words", True)):
        refusals.record_refusal(limit, certain=certain)
    assert {split: tally.total for split, tally in made.items()} == {
        '{"certain":"yes","limit":"basic"}': 2,
        '{"certain":"no","limit":"basic"}': 1,
        '{"certain":"yes","limit":"~other"}': 1,
    }


async def test_refusals_meter_counts_refused_requests_only(edge: Edge) -> None:
    edge.config["meters"] = {"requests": {"count": "requests"}, "refused": {"count": "refusals"}}
    for _ in range(60):
        await edge.passes(request(), ok())
    for _ in range(4):
        is_limited(await edge.refuses(request()), "basic")
    assert edge._supervisor is not None
    assert sorted(row for row in edge._supervisor.usage_totals() if row[3]) == [
        ("acme", "refused", "v1", 4, '{"certain":"yes","limit":"basic"}'),
        ("acme", "requests", "v1", 60),
    ]


# ---- customers' errors


async def started(edge: Edge) -> None:
    """Serve, with a supervisor that takes nothing meanwhile."""
    await edge.starts()
    edge.runtime.metrics.errors.offer = lambda _: False


def taken(edge: Edge) -> dict[tuple[str, str, int, str], int]:
    """Return the counts that the worker sends to its supervisor."""
    message = edge.runtime.metrics.errors.take()
    return {} if message is None else {tuple(names): requests for *names, requests in message.errors}


async def test_errors_are_counted_by_customer_and_answer_and_nothing_else_is(edge: Edge) -> None:
    await started(edge)
    failed = head("HTTP/1.1 503 Service Unavailable", "Content-Length: 0")
    piecewise = head("HTTP/1.1 500 Internal Server Error", "Transfer-Encoding: chunked")
    for answer in (failed, failed, ok(), head("HTTP/1.1 404 Not Found", "Content-Length: 0")):
        await edge.passes(request(), answer)
    await edge.passes(request(), piecewise + chunks(b"sorry"))
    await edge.passes(get("/public/x"), failed)
    client = await edge.client()
    assert (await asks(client, "/read/x", key=UNLIMITED)).status == 403
    assert (await asks(client, key="nobody")).status == 401
    assert taken(edge) == {
        ("acme", "v1", 503, "upstream"): 2,
        ("acme", "v1", 500, "upstream"): 1,
        ("free", "read", 403, "edge"): 1,
    }
    assert taken(edge) == {}


async def test_error_counts_include_a_down_upstream_and_exclude_limits(edge: Edge) -> None:
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "1/min"}]}
    edge.upstream.refuses()
    await started(edge)
    client = await edge.client()
    assert [(await asks(client)).status, (await asks(client)).status] == [502, 429]
    assert taken(edge) == {("acme", "v1", 502, "edge"): 1}


async def test_refusal_of_a_known_customer_counts_for_that_customer(edge: Edge) -> None:
    edge.config["customers"]["free"]["paused"] = {"why": "unpaid", "status": 402}
    await started(edge)
    client = await edge.client()
    assert (await asks(client, key=READER)).status == 402
    assert taken(edge) == {("free", "v1", 402, "edge"): 1}


def test_untaken_error_counts_wait_and_surplus_groups_count_unnamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(error_counts, "GROUPS_MAX", 2)
    errors, given = ErrorCounts(), []

    def offer(message: ErrorsCounted) -> bool:
        given.append(message)
        return len(given) > 1

    errors.offer = offer
    errors.flush()
    assert not given, "an idle worker says nothing"
    for customer in ("one", "two", "three", "two", "-"):
        errors.count_own(customer, "v1", 502)
    for counter in errors.list_counters("four", "v1", 500):
        counter.add(3)
    for _ in range(3):
        errors.flush()
    told = ErrorsCounted([("one", "v1", 502, "edge", 1), ("two", "v1", 502, "edge", 2)], 4)
    assert given == [told, told], "once more where it was not taken, and then no more"
