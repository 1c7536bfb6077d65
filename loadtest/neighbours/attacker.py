"""The processes of a bad neighbour: one for each connection, bounded in time and bytes, of low priority."""

import multiprocessing
import os
import select
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

from loadtest.neighbours.neighbour import Neighbour, Piece

BYTES_MAX = 4 << 30
"""What one attacker sends or reads at most."""
_PAUSE_SECONDS = 0.01
"""Between two connections of an attacker."""
_UNREAD_BUFFER = 4096
"""Receive buffer of an attacker that takes no answers."""
NICER = 15
"""By how much hostile processes stand back: the client must not wait for a core that its neighbours use."""
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Target:
    """Where a listener is, how TLS begins there, and the address from which the attacker comes (None: any)."""

    address: tuple[str, int]
    tls: ssl.SSLContext | None = None
    source: str | None = None


class Attackers:
    """`count` attackers of one kind against one listener. They stop by themselves after `seconds`."""

    def __init__(self, kind: Neighbour, targets: list[Target], seconds: float, core: int) -> None:
        self._processes: list[BaseProcess] = [
            _FORK.Process(target=_attack, args=(kind, target, seconds, core), daemon=True) for target in targets
        ]
        for process in self._processes:
            process.start()

    def stop(self) -> None:
        """End them; returns once they are gone."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()


def _attack(kind: Neighbour, target: Target, seconds: float, core: int) -> None:
    signal.alarm(int(seconds) + 5)  # Ends it even where the bench was killed.
    os.sched_setaffinity(0, {core})
    os.nice(NICER)
    deadline, budget = time.monotonic() + seconds, BYTES_MAX
    while time.monotonic() < deadline and budget > 0:
        try:
            with _connected(kind, target) as sock:
                budget -= drive(sock, kind.pieces(), deadline, budget, reads=kind.reads)
        except OSError:
            pass
        time.sleep(_PAUSE_SECONDS)


def _connected(kind: Neighbour, target: Target) -> socket.socket:
    family = socket.AF_INET6 if ":" in target.address[0] else socket.AF_INET
    sock = socket.socket(family)
    try:
        if not kind.reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UNREAD_BUFFER)
        if target.source is not None:
            sock.bind((target.source, 0))
        sock.settimeout(5.0)
        sock.connect(target.address)
        if target.tls is not None:
            sock = target.tls.wrap_socket(sock, server_hostname="localhost")
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def drive(sock: socket.socket, pieces: Iterator[Piece], deadline: float, budget: int, *, reads: bool = True) -> int:
    """Send all pieces and take answers meanwhile; returns the bytes of both.

    It ends with the pieces, with the connection, at the deadline (monotonic), or when the budget of bytes is spent.
    """
    poll = select.poll()
    pending, until, moved = memoryview(b""), 0.0, 0
    while (now := time.monotonic()) < deadline and moved < budget:
        if not pending and until <= now:
            piece = next(pieces, None)
            if piece is None:
                return moved
            if isinstance(piece, float):
                until = now + piece
            else:
                pending = memoryview(piece)
        interest = (select.POLLIN if reads else 0) | (select.POLLOUT if pending else 0)
        poll.register(sock, interest)
        wait = min(deadline - now, 1.0 if pending else max(0.0, until - now))
        for _, event in poll.poll(wait * 1000 + 1):
            try:
                if event & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    if not (taken := len(sock.recv(1 << 18))):
                        return moved
                    moved += taken
                if pending and event & select.POLLOUT:
                    sent = sock.send(pending)
                    pending, moved = pending[sent:], moved + sent
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                continue
            except OSError:
                return moved
    return moved
