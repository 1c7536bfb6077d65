"""A load of many customers over HTTP/1.1 and HTTP/2: h2load cannot change fields between requests.

`python -m loadtest.bench.load.crowd_client` is a program of its own, on the load's core. All requests are encoded
before the first one is sent, so that one core keeps a proxy busy. The CPU of this program is not measured.
"""

import argparse
import itertools
import json
import random
import select
import socket
import ssl
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeproxy.edge.http2 import frames
from edgeproxy.edge.http2.frames import FrameType
from loadtest.bench.child import output
from loadtest.bench.load.wrk import Load
from loadtest.bench.measure.crowd import format_request
from loadtest.bench.measure.scripted_http2 import WINDOW, encode_requests

_ROOT = Path(__file__).parents[3]
DRAWS: Final = 1 << 16
"""Requests that are drawn, and then repeated."""
DRAIN_SECONDS: Final = 10.0
"""Seconds that the last answers may take."""
PIECE_BYTES: Final = 1 << 18
WINDOW_STEP: Final = 64 << 20
"""Bytes of bodies until the window of a connection is opened again."""
STATUS_OK: Final = 0x88
"""`:status: 200` in the static table of HPACK (RFC 7541 appendix A)."""
_END_OF_HEAD, _LENGTH = b"\r\n\r\n", b"content-length: "


class Connection(ABC):
    """One connection: it sends requests and counts answers."""

    def __init__(self, sock: socket.socket, requests: Iterator[bytes]) -> None:
        self.socket = sock
        self.requests = requests
        self.under_way = 0
        self.answered = self.refused = self.bytes = 0
        self._rest = b""

    def send(self, count: int) -> None:
        """Send so many requests, or as many as are left."""
        pieces = [self.format(request) for request in itertools.islice(self.requests, count)]
        self.under_way += len(pieces)
        if pieces:
            self.socket.sendall(b"".join(pieces))

    def receive(self) -> int:
        """Read all that has come, and return the number of answers that ended. Raises OSError if the peer closed."""
        ended = 0
        while True:
            try:
                data = self.socket.recv(PIECE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError):
                break
            if not data:
                raise ConnectionResetError(f"the peer closed a connection with {self.under_way} requests under way")
            self.bytes += len(data)
            ended += self.read(data)
            if len(data) < PIECE_BYTES and not isinstance(self.socket, ssl.SSLSocket):
                break
        self.under_way -= ended
        self.answered += ended
        return ended

    @abstractmethod
    def format(self, request: bytes) -> bytes:
        """Return the bytes of a request."""

    @abstractmethod
    def read(self, data: bytes) -> int:
        """Read a piece, and return the number of answers that ended."""


class Http1Connection(Connection):
    """HTTP/1.1, with one request at a time. Each answer states its length."""

    _left = 0
    """Bytes of a body that have yet to come."""

    def format(self, request: bytes) -> bytes:
        return request

    def read(self, data: bytes) -> int:
        if not self._left:
            data = self._rest + data
            head, end, data = data.partition(_END_OF_HEAD)
            if not end:
                self._rest = head
                return 0
            self._rest = b""
            self.refused += head[9:10] != b"2"
            _, _, length = head.lower().partition(_LENGTH)
            self._left = int(length.partition(b"\r\n")[0])
        self._left -= len(data)
        return int(self._left == 0)


class Http2Connection(Connection):
    """HTTP/2, with several streams at a time."""

    def __init__(self, sock: socket.socket, requests: Iterator[bytes], first: bytes) -> None:
        """`first` is the block of a request that sets up the dynamic table for all others."""
        super().__init__(sock, itertools.chain([first], requests))
        self._numbers = itertools.count(1, 2)
        self._unreported = 0
        windows = frames.format_window_update(0, WINDOW - frames.DEFAULT_WINDOW)
        settings = frames.format_settings({frames.Setting.INITIAL_WINDOW_SIZE: WINDOW})
        sock.sendall(frames.PREFACE + settings + windows)

    def format(self, request: bytes) -> bytes:
        return frames.format_block(next(self._numbers), request, ended=True)

    def read(self, data: bytes) -> int:
        data = self._rest + data
        at, size, ended = 0, len(data), 0
        while size - at >= frames.HEADER.size:
            length = int.from_bytes(data[at : at + 3])
            begin = at + frames.HEADER.size
            if size - begin < length:
                break
            kind, flags = data[at + 3], data[at + 4]
            at = begin + length
            if kind == frames.DATA:
                self._unreported += length
                ended += flags & frames.END_STREAM
            elif kind == frames.HEADERS:
                self.refused += _find_first_field(data, begin) != STATUS_OK
                ended += flags & frames.END_STREAM
            elif kind in (FrameType.SETTINGS, FrameType.PING) and not flags & frames.ACK:
                body = data[begin:at] if kind == FrameType.PING else b""
                self.socket.sendall(frames.format_frame(FrameType(kind), frames.ACK, 0, body))
            elif kind in (FrameType.GOAWAY, FrameType.RST_STREAM):
                raise ConnectionResetError(f"the peer sent a frame of type {kind}: {data[begin:at]!r}")
        self._rest = data[at:]
        if self._unreported > WINDOW_STEP:
            self.socket.sendall(frames.format_window_update(0, self._unreported))
            self._unreported = 0
        return ended


def _find_first_field(data: bytes, at: int) -> int:
    """Return the first byte of the first field of a block, after changes of the table's size (RFC 7541 section 6.3)."""
    while data[at] & 0xE0 == 0x20:
        more = data[at] & 0x1F == 0x1F
        at += 1
        while more:
            more = data[at] >= 0x80
            at += 1
    return data[at]


def connect(port: int, *, http2: bool, secure: bool) -> socket.socket:
    """Open a connection that never blocks."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2" if http2 else "http/1.1"])
        sock = context.wrap_socket(sock)
    sock.setblocking(False)
    return sock


def send_load(
    port: int,
    path: str,
    *,
    customers: int,
    connections: int,
    invented: int,
    streams: int,
    seconds: float,
    secure: bool,
    in_turn: bool,
    one_key: bool,
) -> tuple[Load, Load]:
    """Send requests of customers drawn at random for so many seconds, or with `in_turn` one of each customer.

    Beside these connections, on `invented` further ones each request has another key that no customer has, or with
    `one_key` all have one. Return the load of both kinds. Without `streams` they are HTTP/1.1.
    """
    chance = random.Random(time.time_ns())
    kinds: list[list[Connection]] = [[], []]
    own = [format_request(number, path) for number in range(customers)]
    begin = chance.randrange(10**6, 10**9)
    others = [format_request(number, path) for number in range(begin, begin + (1 if one_key else DRAWS))]
    for kind, texts, count in zip(kinds, (own, others), (connections, invented), strict=True):
        if not count:
            continue
        first, blocks = b"", texts
        if streams:
            first, *blocks = encode_requests([text.decode() for text in texts], indexes_keys=False)
        drawn = blocks if in_turn or kind is kinds[1] else chance.choices(blocks, k=DRAWS)
        requests = iter(drawn) if in_turn else itertools.cycle(drawn)
        for _ in range(count):
            sock = connect(port, http2=streams > 0, secure=secure)
            kind.append(Http2Connection(sock, requests, first) if streams else Http1Connection(sock, requests))
    polled = select.epoll()
    by_number = {each.socket.fileno(): each for kind in kinds for each in kind}
    for number in by_number:
        polled.register(number, select.EPOLLIN)
    began = time.monotonic()
    deadline = float("inf") if in_turn else began + seconds
    for connection in by_number.values():
        connection.send(max(1, streams))
    while any(connection.under_way for connection in by_number.values()) if in_turn else time.monotonic() < deadline:
        _take_turn(polled, by_number, sends=True)
    until = time.monotonic() + DRAIN_SECONDS
    while any(connection.under_way for connection in by_number.values()):
        if time.monotonic() > until:
            raise TimeoutError("some answers have not come")
        _take_turn(polled, by_number, sends=False)
    microseconds = round((time.monotonic() - began) * 1e6)
    regular, flood = (
        Load(
            requests=sum(each.answered for each in kind),
            microseconds=microseconds,
            bytes=sum(each.bytes for each in kind),
            refused=sum(each.refused for each in kind),
            failed=0,
        )
        for kind in kinds
    )
    return regular, flood


def _take_turn(polled: select.epoll, connections: dict[int, Connection], *, sends: bool) -> None:
    """Read all answers that have come, and send a request for each."""
    for number, _ in polled.poll(1.0):
        connection = connections[number]
        ended = connection.receive()
        if ended and sends:
            connection.send(ended)


def run(
    port: int,
    path: str,
    *,
    customers: int,
    connections: int,
    seconds: int,
    core: int,
    streams: int = 0,
    invented: int = 0,
    secure: bool = False,
    in_turn: bool = False,
    one_key: bool = False,
) -> tuple[Load, Load]:
    """Run the program; see `send_load`. Raises RuntimeError when it fails."""
    argv: list[str | Path] = [sys.executable, "-m", "loadtest.bench.load.crowd_client", str(port), path]
    argv += [f"--customers={customers}", f"--connections={connections}", f"--invented={invented}"]
    argv += [f"--streams={streams}", f"--seconds={seconds}"]
    argv += [*["--secure"] * secure, *["--in-turn"] * in_turn, *["--one-key"] * one_key]
    answer = output(core, argv, seconds=seconds + 120, env={"PYTHONPATH": str(_ROOT)})
    own, flood = json.loads(answer)
    return Load(**own), Load(**flood)


def main() -> None:
    """Run the program, and print the loads in JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    for name in ("customers", "connections", "invented", "streams"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    for name in ("secure", "in-turn", "one-key"):
        parser.add_argument(f"--{name}", action="store_true")
    print(json.dumps([vars(load) for load in send_load(**vars(parser.parse_args()))]))


if __name__ == "__main__":
    main()
