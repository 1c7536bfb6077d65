"""Ports of this host, each claimed by one demonstration until it ends."""

import socket
from typing import NamedTuple

HOST = "127.0.0.1"
NEXT = 100
"""Ports after the usual one that are tried."""


class NoFreePortError(Exception):
    """No port can be had for a service; the message says which were tried."""


class TakenPort(NamedTuple):
    """A usual port that somebody else has, and the one in its place."""

    service: str
    usual: int
    instead: int


class Ports:
    """Claims of ports, which end with this process.

    The services bind the ports themselves, a moment later. Until then a name in the abstract namespace of Unix sockets
    keeps other demonstrations away: the kernel gives it to one process at a time, and drops it with the process.
    """

    def __init__(self) -> None:
        self._claims: list[socket.socket] = []
        self.taken: list[TakenPort] = []

    def claim(self, service: str, usual: int) -> int:
        """Claim the usual port of a service, or the next free one; raises NoFreePortError."""
        last = min(usual + NEXT, 65535)
        for port in range(usual, last + 1):
            claim = socket.socket(socket.AF_UNIX)
            try:
                claim.bind(f"\0edgeproxy-demo-port-{port}")
                _try_listening(port)
            except OSError:
                claim.close()
                continue
            self._claims.append(claim)
            if port != usual:
                self.taken.append(TakenPort(service, usual, port))
            return port
        raise NoFreePortError(f"{service}: no port from {usual} to {last} is free")

    def close(self) -> None:
        """Give up all claims."""
        for claim in self._claims:
            claim.close()


def _try_listening(port: int) -> None:
    """Listen on a port for a moment; raises OSError where somebody else does."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        probe.listen()
