"""Each row of the table of dialects counts its recorded answers through an edge, whole and cut at each byte."""

from collections import Counter
from typing import Any

import pytest

from edgeproxy.edge.body_usage.operations import find_results
from edgeproxy.edge.body_usage.statement import COUNTS
from tests.edge.body_usage.test_dialects import ANSWERS, get_body, read
from tests.support.http2_wire import Http2Wire, http2
from tests.support.transcript import KEY, Edge, chunks, head, ok

FORMATS = sorted({answer["format"] for answer in ANSWERS})
WAYS = ("whole", "cut")


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["meters"] = {count: {"count": count} for count in COUNTS}
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "100000/min"}]}
    return edge


def counted(edge: Edge) -> Counter[str]:
    assert edge._supervisor is not None
    return Counter({row[1]: row[3] for row in edge._supervisor.usage_totals() if row[0] == "acme" and row[3]})


def list_expected(answer: dict[str, Any]) -> Counter[str]:
    """Return the expected counts of an answer. For a file of batch results, add up the counts of its lines."""
    if find_results(answer["method"].encode(), answer["path"].encode()) is None:
        return Counter({count: number or 0 for count, number in answer["counts"].items()})
    counts = Counter[str]()
    for line in get_body(answer).splitlines():
        stated = read(answer, line)
        counts.update({count: stated.find_number(count) or 0 for count in answer["counts"]})
    return counts


def build_path(answer: dict[str, Any]) -> str:
    """Return the path of a request. A file of results gets another id, because the recorded batch has been counted."""
    return f"/v1{answer['path'].replace('/files/file-', '/files/file-of-another-')}"


def build_answer(answer: dict[str, Any], way: str) -> bytes:
    """The answer as its service sends it; cut: each byte is a chunk."""
    body, kind = get_body(answer), f"Content-Type: {answer['type']}"
    if way == "whole":
        return ok(body, kind)
    pieces = [body[at : at + 1] for at in range(len(body))]
    return head("HTTP/1.1 200 OK", kind, "Transfer-Encoding: chunked") + chunks(*pieces)


async def ask_over_http1(edge: Edge, answer: dict[str, Any]) -> bytes:
    client = await edge.client()
    lines = (f"{answer['method']} {build_path(answer)} HTTP/1.1", "Host: edge.test", f"X-API-Key: {KEY}")
    await client.sends(head(*lines, "Content-Length: 2") + b"{}")
    body = (await client.gets_answer(answer["method"])).body
    client.closes()
    return body


async def ask_over_http2(client: Http2Wire, answer: dict[str, Any]) -> bytes:
    number = await client.begins_request(
        answer["method"], build_path(answer), ("x-api-key", KEY), ("content-length", "2"), ended=False
    )
    await client.sends_data(number, b"{}", ended=True)
    return (await client.answer_of(number)).body


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2"])
async def test_each_row_counts_the_same_whole_and_cut_over_either_protocol(
    edge: Edge, name: str, protocol: str
) -> None:
    (route,) = (route for route in edge.config["routes"] if route["path"] == "/v1/*")
    route["response_usage"] = name
    if protocol == "HTTP/2":
        edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    sent = [b""]
    edge.upstream.answers(lambda _: sent[0])
    client = await http2(edge) if protocol == "HTTP/2" else None
    answers = [answer for answer in ANSWERS if answer["format"] == name and answer["type"] != "websocket"]
    assert answers
    for answer in answers:
        for way in WAYS:
            before = counted(edge) if edge._supervisor is not None else Counter()
            sent[0] = build_answer(answer, way)
            body = await (ask_over_http1(edge, answer) if client is None else ask_over_http2(client, answer))
            assert body == get_body(answer)
            # A stored answer counts once, however often it is returned.
            is_new = answer["method"] == "POST" or way == WAYS[0]
            expected = list_expected(answer) if is_new else Counter[str]()
            got = counted(edge) - before
            assert {count: got[count] for count in answer["counts"]} == {
                count: expected[count] for count in answer["counts"]
            }, (answer["provider"], answer["operation"], answer["type"], way)


STREAMED = ("event-stream", "ndjson", "amazon")


@pytest.mark.parametrize("name", FORMATS)
async def test_aborted_stream_is_billed_by_its_final_usage_in_each_dialect(edge: Edge, name: str) -> None:
    (route,) = (route for route in edge.config["routes"] if route["path"] == "/v1/*")
    route["response_usage"] = name
    answers = [
        answer for answer in ANSWERS if answer["format"] == name and any(kind in answer["type"] for kind in STREAMED)
    ]
    answers = [answer for answer in answers if answer["method"] == "POST"]
    assert answers
    for answer in answers:
        body = get_body(answer)
        before, after = body[: len(body) // 2], body[len(body) // 2 :]
        client = await edge.client()
        old = counted(edge)
        lines = (f"POST {build_path(answer)} HTTP/1.1", "Host: edge.test", f"X-API-Key: {KEY}", "Content-Length: 2")
        await client.sends(head(*lines) + b"{}")
        upstream = await edge.upstream.accepts()
        await upstream.gets_request()
        kind = f"Content-Type: {answer['type']}"
        await upstream.sends(head("HTTP/1.1 200 OK", kind, "Transfer-Encoding: chunked"))
        await upstream.sends(chunks(before)[: -len(chunks())])
        await client.gets_until(before[-8:])
        client.aborts()
        await edge.until(lambda: len(edge.runtime.connections.readers) == 1)
        await upstream.sends(chunks(after))
        await edge.until(lambda: not edge.runtime.connections.readers)
        upstream.closes()
        got, expected = counted(edge) - old, list_expected(answer)
        assert {count: got[count] for count in answer["counts"]} == {
            count: expected[count] for count in answer["counts"]
        }, (answer["provider"], answer["operation"], answer["type"])
