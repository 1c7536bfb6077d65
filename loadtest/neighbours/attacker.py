"""The processes of a bad neighbour, each with some connections, bounded in time and bytes, of low priority."""

import multiprocessing
import os
import select
import signal
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from struct import pack

from loadtest.neighbours.neighbour import Neighbour, Piece

BYTES_MAX = 4 << 30
"""Bound of the bytes that one attacker sends and reads."""
NICER = 15
"""By how much hostile processes stand back: the client must not wait for a core that its neighbours use."""
_UNREAD_BUFFER = 4096
"""Receive buffer of an attacker that takes no answers."""
_CONNECT_SECONDS = 5.0
_LONGEST_POLL = 0.5
_IPV6_FREEBIND = 78  # Of linux/in6.h; the module socket does not have it.
_RESET_AT_CLOSE = pack("ii", 1, 0)
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Target:
    """A listener's address, its TLS if any, and the attacker's own address (None: any)."""

    address: tuple[str, int]
    tls: ssl.SSLContext | None = None
    source: str | None = None


class Attackers:
    """Attackers of one kind, one for each target. They stop by themselves after `seconds`."""

    def __init__(self, kind: Neighbour, targets: Sequence[Target], seconds: float, core: int) -> None:
        self._opened = _FORK.Value("q")
        self._processes: list[BaseProcess] = [
            _FORK.Process(target=_attack, args=(kind, target, seconds, core, self._opened), daemon=True)
            for target in targets
        ]
        for process in self._processes:
            process.start()

    def stop(self) -> int:
        """End them; returns the connections that they had, once they are gone."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        return int(self._opened.value)


def _attack(kind: Neighbour, target: Target, seconds: float, core: int, opened: "Synchronized[int]") -> None:
    signal.alarm(int(seconds) + 5)  # Ends it even if the bench was killed.
    os.sched_setaffinity(0, {core})
    os.nice(NICER)
    _Attack(kind, target, opened).run(time.monotonic() + seconds)


@dataclass
class _Line:
    """One connection: bytes that it is sending, and the moment until which it pauses."""

    sock: socket.socket
    pieces: Iterator[Piece]
    inbox: bytearray
    pending: memoryview = field(default_factory=lambda: memoryview(b""))
    until: float = 0.0


class _Attack:
    def __init__(self, kind: Neighbour, target: Target, opened: "Synchronized[int]") -> None:
        self._kind, self._target, self._opened = kind, target, opened
        self._poll = select.poll()
        self._lines: dict[int, _Line] = {}
        self._moved = 0

    def run(self, deadline: float) -> None:
        opens = 0.0
        while (now := time.monotonic()) < deadline and self._moved < BYTES_MAX:
            while len(self._lines) < self._kind.parallel and opens <= now:
                self._open()
                now = time.monotonic()
                opens = now + self._kind.pause
            wait = _LONGEST_POLL if len(self._lines) == self._kind.parallel else max(0.0, opens - now)
            for line in [line for line in self._lines.values() if not line.pending]:
                if line.until <= now:
                    self._advance(line, now)
                wait = min(wait, max(0.0, line.until - now))
            if self._lines:
                for number, event in self._poll.poll(min(wait, deadline - now) * 1000 + 1):
                    self._handle(self._lines[number], event)
            else:
                time.sleep(wait)

    def _open(self) -> None:
        try:
            sock = _connected(self._kind, self._target)
        except OSError:
            return
        with self._opened.get_lock():
            self._opened.value += 1
        inbox = bytearray()
        self._lines[sock.fileno()] = line = _Line(sock, self._kind.pieces(inbox), inbox)
        self._poll.register(sock, self._interest(line))

    def _interest(self, line: _Line) -> int:
        return (select.POLLIN if self._kind.reads else 0) | (select.POLLOUT if line.pending else 0)

    def _advance(self, line: _Line, now: float) -> None:
        piece = next(line.pieces, None)
        if piece is None:
            self._close(line)
        elif isinstance(piece, bytes):
            line.pending = memoryview(piece)
            self._poll.modify(line.sock, self._interest(line))
        else:
            line.until = now + piece

    def _handle(self, line: _Line, event: int) -> None:
        try:
            if event & (select.POLLIN | select.POLLHUP | select.POLLERR):
                data = line.sock.recv(1 << 18)
                self._moved += len(data)
                if not data:
                    self._close(line)
                    return
                if self._kind.listens:
                    line.inbox += data
            if event & select.POLLOUT and line.pending:
                self._send(line)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            self._close(line)

    def _send(self, line: _Line) -> None:
        chop = self._kind.chop or len(line.pending)
        try:
            while line.pending:
                sent = line.sock.send(line.pending[:chop])
                line.pending = line.pending[sent:]
                self._moved += sent
        finally:
            if not line.pending:
                self._poll.modify(line.sock, self._interest(line))

    def _close(self, line: _Line) -> None:
        del self._lines[line.sock.fileno()]
        self._poll.unregister(line.sock)
        line.sock.close()


def _connected(kind: Neighbour, target: Target) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in target.address[0] else socket.AF_INET)
    try:
        if not kind.reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UNREAD_BUFFER)
        if kind.resets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        if target.source is not None:
            # The address is within a network that is routed to this host, and no interface has it.
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            sock.bind((target.source, 0))
        sock.settimeout(_CONNECT_SECONDS)
        sock.connect(target.address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if target.tls is not None:
            sock = target.tls.wrap_socket(sock, server_hostname="localhost")
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
