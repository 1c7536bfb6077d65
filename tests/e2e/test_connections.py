"""Many connections at once, requests one behind another, old clients, and clients that close their side."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.ask import Wire
from tests.support.customers import UNLIMITED, key_of
from tests.support.edge import Edge, StartEdge
from tests.support.load import Load, Plan
from tests.support.upstream import Upstream, content

FIELDS = b"Host: api.test\r\nX-API-Key: %b\r\n" % key_of(UNLIMITED).encode()


def get(target: str, *, version: str = "1.1", more: str = "") -> bytes:
    """A GET with the key of the customer without limits."""
    return f"GET {target} HTTP/{version}\r\n".encode() + FIELDS + more.encode() + b"\r\n"


def test_many_clients_keep_their_connections_and_each_gets_its_own_answers(edge: Edge) -> None:
    with ExitStack() as ends:
        wires = [ends.enter_context(Wire(edge.port)) for _ in range(300)]
        for round_ in range(3):
            for number, wire in enumerate(wires):
                wire.send(get(f"/{round_}/{number}?echo=1"))
            for number, wire in enumerate(wires):
                assert wire.hear().json()["target"] == f"/{round_}/{number}?echo=1"


def test_a_heavy_load_loses_nothing_and_is_counted_exactly(start_edge: StartEdge, tmp_path: Path) -> None:
    upstream = Upstream(tmp_path / "upstream")
    edge = start_edge(port=upstream.port)
    paths = ["/", "/?wait=3", "POST /?echo=1", "/?size=30000", "/?status=404", "/?status=503", "/?status=204"]
    plan = Plan(edge.port, [UNLIMITED], paths, connections=150, requests=3000)
    loads = [Load(tmp_path / "load", f"{number}", plan) for number in range(2)]
    accounts = [load.account(60) for load in loads]
    answered = sum(account.answered(UNLIMITED) for account in accounts)
    failed = sum(account.answered(UNLIMITED, 503) for account in accounts)
    assert failed > 0
    assert answered + failed >= 6000
    for account in accounts:
        assert not account.lost
        assert (account.wrong, account.refused, account.reset, account.closed) == (0, 0, 0, 0)
    seen = upstream.seen()
    assert answered == edge.usage()[UNLIMITED] == seen["billable"][UNLIMITED]
    assert answered + failed == seen["received"][UNLIMITED]
    assert not seen["odd"]
    assert not seen["twice"]
    upstream.stop()


def test_pipelined_requests_are_answered_in_order(edge: Edge) -> None:
    with Wire(edge.port) as wire:
        targets = [f"/{number}?echo=1&wait={(7 - number) * 3}" for number in range(8)]
        wire.send(b"".join(get(target) for target in targets))
        assert [wire.hear().json()["target"] for _ in targets] == targets


def test_pipelined_bodies_are_not_taken_for_requests(edge: Edge) -> None:
    inner = get("/never")
    with Wire(edge.port) as wire:
        sized = b"POST /a?echo=1 HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (FIELDS, len(inner), inner)
        chunked = b"POST /b?echo=1 HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
            FIELDS, len(inner), inner,
        )  # fmt: skip
        wire.send(sized + chunked + get("/c?echo=1"))
        told = [wire.hear().json() for _ in range(3)]
    assert [one["target"] for one in told] == ["/a?echo=1", "/b?echo=1", "/c?echo=1"]
    assert [one["length"] for one in told] == [len(inner), len(inner), 0]


def test_a_head_that_comes_byte_by_byte_is_read(edge: Edge) -> None:
    with Wire(edge.port) as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in get("/?echo=1"):
            wire.send(bytes((byte,)))
        assert wire.hear().status == 200


def test_an_old_client_gets_a_body_without_chunks_and_the_end_of_the_connection(edge: Edge) -> None:
    with Wire(edge.port) as wire:
        wire.send(get("/?size=100000&chunked=1", version="1.0"))
        answer = wire.hear()
        assert "transfer-encoding" not in answer
        assert answer.body == content(100_000)
        assert wire.rest() == b""
    with Wire(edge.port) as wire:
        wire.send(b"GET /?echo=1 HTTP/1.0\r\nX-API-Key: %b\r\n\r\n" % key_of(UNLIMITED).encode())  # no Host
        assert wire.hear().status == 200


@pytest.mark.parametrize("path", ["/?size=10", "/?size=200000&wait=50", "/?size=200000&chunked=1&wait=50"])
def test_a_client_that_has_closed_its_side_still_gets_its_answer(path: str, edge: Edge) -> None:
    with Wire(edge.port) as wire:
        wire.send(get(path))
        wire.socket.shutdown(socket.SHUT_WR)
        answer = wire.hear()
        assert (answer.status, len(answer.body)) == (200, int(path.partition("size=")[2].partition("&")[0]))
        assert wire.rest() == b""


def test_connection_close_is_honoured(edge: Edge) -> None:
    with Wire(edge.port) as wire:
        wire.send(get("/", more="Connection: close\r\n"))
        assert wire.hear()["connection"] == "close"
        assert wire.rest() == b""


def test_head_has_the_length_and_no_body(edge: Edge) -> None:
    with Wire(edge.port) as wire:
        for query in ("size=1000", "status=204", "status=304"):
            wire.send(get(f"/?{query}").replace(b"GET", b"HEAD"))
            answer = wire.hear("HEAD")
            assert answer.all("content-length") == (["1000"] if query == "size=1000" else [])
        wire.send(get("/?size=3"))
        assert len(wire.hear().body) == 3
