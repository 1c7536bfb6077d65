"""Meters of gRPC messages: each of a call counts once, in its direction, before its last bytes are passed on."""

import pytest
from h2.errors import ErrorCodes
from h2.events import StreamEnded

from tests.support.http2_server import Http2Server
from tests.support.http2_wire import Http2Wire, http2
from tests.support.transcript import KEY, Edge, head

METERS = {
    "both": {"count": "grpc_messages"},
    "in": {"count": "grpc_messages_in"},
    "out": {"count": "grpc_messages_out"},
}
GRPC = ("content-type", "application/grpc")
KEYED = ("x-api-key", KEY)


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    edge.config["upstreams"]["api"]["protocol"] = "h2c"
    edge.config["meters"] = METERS
    return edge


def message(payload: bytes = b"hello", *, packed: bool = False) -> bytes:
    return bytes([packed]) + len(payload).to_bytes(4, "big") + payload


def counted(edge: Edge) -> dict[str, int]:
    return {meter: total for (_, meter, _), total in edge.usage().items()}


async def begins(edge: Edge, *fields: tuple[str, str]) -> tuple[Http2Wire, int, Http2Server]:
    """A client with a call under way, and the service's side of it."""
    client = await http2(edge)
    number = await client.begins_request("POST", "/v1/a.B/C", KEYED, *fields, ended=False)
    upstream = await Http2Server(await edge.upstream.accepts()).begins()
    await upstream.gets_head(1)
    return client, number, upstream


async def test_messages_count_in_both_directions_while_they_pass(edge: Edge) -> None:
    client, number, upstream = await begins(edge, GRPC)
    await client.sends_data(number, message() + message()[:7])
    await edge.settles()
    assert counted(edge) == {}  # Nobody has said yet that it is a call of gRPC.
    await upstream.sends_head(1, 200, GRPC)
    await client.head_of(number)
    assert counted(edge) == {"both": 1, "in": 1}
    await client.sends_data(number, message()[7:] + message(b"", packed=True))
    await edge.until(lambda: counted(edge) == {"both": 3, "in": 3})
    await upstream.sends_data(1, message(bytes(40_000)) + message()[:3])
    await edge.until(lambda: counted(edge) == {"both": 4, "in": 3, "out": 1})
    await upstream.sends_data(1, message()[3:] + message()[:9])
    await client.sends_data(number, b"", ended=True)
    await upstream.gets_body(1)
    await upstream.sends_trailers(1, ("grpc-status", "0"))
    await client.next_event(number, StreamEnded)
    # The last one was never whole.
    assert counted(edge) == {"both": 5, "in": 3, "out": 2}


async def test_trailers_only_answer_counts_the_callers_messages(edge: Edge) -> None:
    client, number, upstream = await begins(edge, ("content-type", "application/grpc+proto"))
    await client.sends_data(number, message() * 3, ended=True)
    await upstream.gets_body(1)
    await upstream.sends_head(1, 200, ("content-type", "application/grpc+proto"), ("grpc-status", "5"), ended=True)
    assert (await client.answer_of(number))["grpc-status"] == "5"
    assert counted(edge) == {"both": 3, "in": 3}


async def test_messages_of_a_sized_grpc_answer_count(edge: Edge) -> None:
    client, number, upstream = await begins(edge, GRPC, ("content-length", "10"))
    await client.sends_data(number, message(), ended=True)
    await upstream.gets_body(1)
    answer = message() * 2
    await upstream.sends_head(1, 200, GRPC, ("content-length", str(len(answer))))
    await upstream.sends_data(1, answer, ended=True)
    assert (await client.answer_of(number)).body == answer
    assert counted(edge) == {"both": 3, "in": 1, "out": 2}


async def test_a_call_that_is_sent_again_counts_once(edge: Edge) -> None:
    client, number, upstream = await begins(edge, GRPC, ("content-length", "20"))
    await client.sends_data(number, message() * 2, ended=True)
    await upstream.gets_body(1)
    await upstream.resets(1, ErrorCodes.REFUSED_STREAM)
    await upstream.gets_body(3)
    await upstream.sends_head(3, 200, GRPC)
    await upstream.sends_data(3, message())
    await upstream.sends_trailers(3, ("grpc-status", "0"))
    assert (await client.answer_of(number)).body == message()
    assert counted(edge) == {"both": 3, "in": 2, "out": 1}


@pytest.mark.parametrize(
    ("kind", "status"),
    [("application/json", 200), ("application/grpc-web+proto", 200), ("application/grpc", 503)],
)
async def test_messages_of_non_grpc_answers_do_not_count(edge: Edge, kind: str, status: int) -> None:
    """Whatever the caller says that it is."""
    client, number, upstream = await begins(edge, GRPC)
    await client.sends_data(number, message(), ended=True)
    await upstream.gets_body(1)
    await upstream.sends_head(1, status, ("content-type", kind))
    await upstream.sends_data(1, message(), ended=True)
    assert (await client.answer_of(number)).status == status
    assert counted(edge) == {}


@pytest.mark.parametrize("framing", ["Content-Length: 20", "Transfer-Encoding: chunked"])
async def test_a_caller_cannot_choose_not_to_be_counted(edge: Edge, framing: str) -> None:
    """By HTTP/1.1, or by another type of its request, for a service that looks at neither."""
    client = await edge.client()
    body = message() * 2 if "Length" in framing else b"14\r\n" + message() * 2 + b"\r\n0\r\n\r\n"
    await client.sends(head("POST /v1/a.B/C HTTP/1.1", "Host: edge.test", f"X-API-Key: {KEY}", framing), body)
    upstream = await Http2Server(await edge.upstream.accepts()).begins()
    await upstream.gets_request(1)
    await upstream.sends_head(1, 200, ("content-type", "Application/gRPC; x=y"))
    await upstream.sends_data(1, message())
    await upstream.sends_trailers(1, ("grpc-status", "0"))
    assert (await client.gets_answer()).trailers == [("grpc-status", "0")]
    assert counted(edge) == {"both": 3, "in": 2, "out": 1}


async def test_a_quota_of_messages_is_charged_as_they_pass(edge: Edge) -> None:
    quotas = [{"meter": "both", "per": "month", "included": 4, "cap": "hard"}]
    edge.config["tiers"]["basic"] = {"limits": [], "quotas": quotas}
    client, number, upstream = await begins(edge, GRPC)
    await client.sends_data(number, message() * 3)
    await upstream.sends_head(1, 200, GRPC)
    await client.head_of(number)
    await upstream.sends_data(1, message())
    await edge.until(lambda: counted(edge)["both"] == 4)
    refused = await client.begins_request("POST", "/v1/a.B/C", KEYED, GRPC)
    assert (await client.answer_of(refused))["grpc-status"] == "8"
    # The call under way goes on, and is counted.
    await client.sends_data(number, message(), ended=True)
    await upstream.gets_body(1)
    await upstream.sends_trailers(1, ("grpc-status", "0"))
    await client.next_event(number, StreamEnded)
    assert counted(edge)["both"] == 5
