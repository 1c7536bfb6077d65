"""Clients and services that take their time: cut at their deadlines, while nobody else notices."""

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.ask import Wire, assert_problem
from tests.support.customers import UNLIMITED, key_of
from tests.support.edge import Edge, StartEdge, total
from tests.support.ports import HOST
from tests.support.upstream import Upstream
from tests.support.waiting import until, wait_until

DEADLINE = 1.0
"""Seconds of every deadline of the edge here."""
LATE = 2.5
"""Seconds more until it is noticed: the edge looks twice a second, and the machine may be busy."""
CLIENTS = 12
FIELDS = f"Host: a\r\nX-API-Key: {key_of(UNLIMITED)}\r\n"


@pytest.fixture
def edge(start_edge: StartEdge, upstream: Upstream) -> Edge:
    """An edge with little patience."""
    seconds = f"{DEADLINE:g}s"
    timeouts = {"response_head": seconds, "idle": seconds}
    return start_edge(
        limits={"header_timeout": seconds, "body_idle": seconds, "keepalive_idle": seconds},
        upstreams={"api": {"endpoints": [f"http://{HOST}:{upstream.port}"], "timeouts": timeouts}},
    )


@pytest.fixture
def others(edge: Edge) -> Iterator[None]:
    """Others are served throughout the test, each within a second; and in the end no connection is left over."""
    yield
    begun = time.monotonic()
    for _ in range(20):
        assert edge.ask(key=key_of(UNLIMITED)).status == 200
    assert time.monotonic() - begun < 20 * 0.5
    until(lambda: connections(edge) == 0, "no client is left", seconds=5)


def wires(edge: Edge, ends: ExitStack, count: int = CLIENTS) -> list[Wire]:
    """So many clients."""
    return [ends.enter_context(Wire(edge.port)) for _ in range(count)]


def dribble(edge: Edge, several: list[Wire], data: bytes) -> float:
    """Send `data` byte by byte to all, ten bytes a second, until each is spoken to; the seconds that it took.

    Somebody else asks after each byte, and must be answered at once.
    """
    begun = time.monotonic()
    waiting = {wire.socket: wire for wire in several}
    for at in range(len(data)):
        if not waiting:
            break
        for raw in waiting:
            raw.sendall(data[at : at + 1])
        asked = time.monotonic()
        assert edge.ask(key=key_of(UNLIMITED)).status == 200
        assert time.monotonic() - asked < 1
        for raw in select.select(list(waiting), [], [], 0.1)[0]:
            del waiting[raw]
    assert not waiting, "some were never cut"
    return time.monotonic() - begun


@pytest.mark.usefixtures("others")
def test_heads_that_dribble_are_408_at_the_deadline_of_the_whole_head(edge: Edge) -> None:
    head = f"GET / HTTP/1.1\r\n{FIELDS}X-Long: {'x' * 100}\r\n\r\n".encode()
    with ExitStack() as ends:
        several = wires(edge, ends)
        assert DEADLINE * 0.9 < dribble(edge, several, head) < DEADLINE + LATE
        for wire in several:
            assert_problem(wire.hear(), 408)
            assert wire.rest() == b""


@pytest.mark.usefixtures("others")
def test_who_sends_nothing_is_cut_without_a_word(edge: Edge) -> None:
    with ExitStack() as ends:
        several = wires(edge, ends)
        kept = wires(edge, ends)
        for wire in kept:
            wire.send(f"GET / HTTP/1.1\r\n{FIELDS}\r\n".encode())
            assert wire.hear().status == 200
        begun = time.monotonic()
        for wire in (*several, *kept):
            assert wire.rest() == b""
        assert time.monotonic() - begun < DEADLINE + LATE


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("framing", ["Content-Length: 1000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n3e8\r\n"])
def test_bodies_that_stall_are_408(framing: str, edge: Edge, upstream: Upstream) -> None:
    with ExitStack() as ends:
        several = wires(edge, ends)
        begun = time.monotonic()
        for wire in several:
            wire.send(f"POST /never HTTP/1.1\r\n{FIELDS}{framing}some bytes".encode())
        for wire in several:
            assert_problem(wire.hear(), 408)
            assert wire.rest() == b""
        assert DEADLINE * 0.9 < time.monotonic() - begun < DEADLINE + LATE
    assert "/never" not in upstream.seen()["paths"]


@pytest.mark.usefixtures("others")
def test_bodies_that_dribble_but_go_on_are_not_cut(edge: Edge) -> None:
    with Wire(edge.port) as wire:
        wire.send(f"POST /?echo=1 HTTP/1.1\r\n{FIELDS}Content-Length: 20\r\n\r\n".encode())
        for _ in range(19):
            wire.send(b"x")
            assert not select.select([wire.socket], [], [], DEADLINE / 8)[0]
        wire.send(b"x")
        assert wire.hear().json()["length"] == 20


@pytest.mark.usefixtures("others")
def test_readers_that_stall_are_cut(edge: Edge) -> None:
    size = 30 << 20  # more than all buffers on the way hold
    with ExitStack() as ends:
        several = wires(edge, ends, 4)
        for wire in several:
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            wire.send(f"GET /?size={size} HTTP/1.1\r\n{FIELDS}\r\n".encode())
        until(lambda: connections(edge) >= len(several), "all are there")
        begun = time.monotonic()
        until(lambda: connections(edge) == 0, "all are cut")
        assert time.monotonic() - begun < 2 * DEADLINE + LATE
        for wire in several:
            assert_cut(wire, size)


def connections(edge: Edge) -> float:
    """Clients that the edge has at this moment, or had half a second ago."""
    return total(edge.metrics(), "edge_connections", side="client")


def assert_cut(wire: Wire, size: int) -> None:
    """An answer of this size was begun, and does not end as if it were whole."""
    received = 0
    try:
        while piece := wire.socket.recv(1 << 20):
            received += len(piece)
    except ConnectionResetError:
        pass
    assert received < size


@pytest.mark.usefixtures("others")
def test_readers_that_are_slow_but_go_on_get_everything(edge: Edge) -> None:
    size = 3 << 20
    with Wire(edge.port) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        wire.send(f"GET /?size={size} HTTP/1.1\r\n{FIELDS}\r\n".encode())
        received, due = 0, time.monotonic()
        while received < size:
            piece = wire.socket.recv(1 << 16)
            assert piece, f"cut after {received} bytes"
            received += len(piece)
            due += len(piece) / size * 3 * DEADLINE  # three deadlines for the whole
            wait_until(due)


@pytest.mark.usefixtures("others")
def test_services_that_are_slow_are_504_and_cost_nobody_else(edge: Edge) -> None:
    with ExitStack() as ends:
        several = wires(edge, ends)
        begun = time.monotonic()
        for wire in several:
            wire.send(f"GET /?wait=20000 HTTP/1.1\r\n{FIELDS}\r\n".encode())
        for wire in several:
            answer = wire.hear()
            assert_problem(answer, 504)
            assert answer["proxy-status"] == "edgeproxy; error=http_response_timeout"
        assert DEADLINE * 0.9 < time.monotonic() - begun < DEADLINE + LATE
    assert edge.usage().get(UNLIMITED, 0) == 0


def test_a_service_that_dies_in_the_middle_of_an_answer_does_not_make_it_look_whole(start_edge: StartEdge) -> None:
    with socket.create_server((HOST, 0)) as listening:
        listening.settimeout(10)
        edge = start_edge(port=listening.getsockname()[1])
        for head in (b"Content-Length: 100", b"Transfer-Encoding: chunked"):
            with Wire(edge.port) as wire:
                wire.send(f"GET / HTTP/1.1\r\n{FIELDS}\r\n".encode())
                service, _ = listening.accept()
                with service:
                    service.recv(1 << 16)
                    service.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n5\r\nhello\r\n")
                    until(lambda: select.select([wire.socket], [], [], 0)[0], "the answer has begun")
                with pytest.raises((ConnectionError, ValueError, OSError)):
                    wire.hear()
        assert edge.usage() == {UNLIMITED: 2}, "a truncated answer is billed"
