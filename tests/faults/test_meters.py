"""Workers killed during streams: counted bytes are at least the received and at most the sent bytes."""

import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

from loadtest.testbed.customers import UNLIMITED, key_of
from loadtest.testbed.edge import StartEdge
from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import kill
from loadtest.testbed.waiting import until

METERS = {"in": {"count": "bytes_in"}, "out": {"count": "bytes_out"}}
ENOUGH = 500_000
"""Bytes that each client receives before the kill."""
PIECE = b"x" * 9000
"""A piece of content. No framing in this file contains an x."""

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


class Streams:
    """An upstream with endless responses, and clients, on threads. Counts the content that each side sent and got."""

    def __init__(self) -> None:
        self.sums: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._ends = ExitStack()
        self._threads: list[threading.Thread] = []
        self._listening = self._ends.enter_context(socket.create_server((HOST, 0)))
        self.port: int = self._listening.getsockname()[1]

    def __enter__(self) -> Self:
        self.runs(self._accepts)
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._ends.close()
        assert not any(thread.is_alive() for thread in self._threads), "streams go on"

    def runs(self, work: Callable[..., None], *given: object) -> None:
        """Run the work on a thread of its own."""
        self._threads.append(threading.Thread(target=work, args=given))
        self._threads[-1].start()

    def counts(self, what: str, data: bytes) -> None:
        """Add the content of the data to a sum."""
        with self._lock:
            self.sums[what] += data.count(b"x")

    def _accepts(self) -> None:
        while True:
            try:
                end, _ = self._listening.accept()
            except OSError:
                return
            self.runs(self._serves, self._ends.enter_context(end))

    def _serves(self, end: socket.socket) -> None:
        """Serve without end. Count sent content before sending it, and received content after receiving it."""
        head, rest = gets_head(end)
        try:
            if b"/ws" in head:
                end.sendall(SWITCH)
                self.echoes(end, rest)
            framing = {b"/sized": SIZED, b"/chunk": CHUNKED, b"/close": UNTIL_CLOSE}[head.split()[1]]
            end.sendall(framing)
            piece = b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if framing is CHUNKED else PIECE
            while True:
                self.counts("sent to clients", piece)
                end.sendall(piece)
        except OSError:
            return

    def echoes(self, end: socket.socket, data: bytes) -> None:
        """Send all received bytes back until the connection breaks."""
        while True:
            self.counts("got from clients", data)
            self.counts("sent to clients", data)
            end.sendall(data)
            data = end.recv(1 << 16)
            if not data:
                raise ConnectionError

    def asks(self, port: int, path: str) -> None:
        """Act as a client: read until the connection breaks, and in a tunnel send as well."""
        end = self._ends.enter_context(socket.create_connection((HOST, port), 15))
        upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n" if path == "/ws" else ""
        end.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\nX-API-Key: {key_of(UNLIMITED)}\r\n{upgrade}\r\n".encode())
        _, data = gets_head(end)
        try:
            while True:
                self.counts("clients got", data)
                self.counts(f"clients got of {path}", data)
                if upgrade:
                    self.counts("clients sent", PIECE)
                    end.sendall(PIECE)
                data = end.recv(1 << 16)
                if not data:
                    return
        except OSError:
            return


def gets_head(end: socket.socket) -> tuple[bytes, bytes]:
    """Read a head. Return it with the bytes received after it."""
    data = b""
    while b"\r\n\r\n" not in data:
        got = end.recv(1 << 16)
        assert got, data
        data += got
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def test_bytes_received_before_a_kill_were_counted(start_edge: StartEdge) -> None:
    paths = ["/sized", "/chunk", "/close", "/ws"]
    with Streams() as streams:
        edge = start_edge(port=streams.port, meters=METERS)
        for path in paths:
            streams.runs(streams.asks, edge.port, path)
        flow = [f"clients got of {path}" for path in paths]
        until(lambda: all(streams.sums[each] > ENOUGH for each in flow), "the streams flow", seconds=20)
        for pid in edge.worker_pids():
            kill(pid)
    # All streams have ended now.
    rows = ask(edge.admin, "/usage").json()["rows"]
    counted = {meter: total for customer, meter, _, total in rows if customer == UNLIMITED}
    sums = streams.sums
    assert 4 * ENOUGH < sums["clients got"] <= counted["out"] <= sums["sent to clients"]
    assert ENOUGH < sums["got from clients"] <= counted["in"] <= sums["clients sent"]
