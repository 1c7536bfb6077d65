"""Ports of this host, each claimed by one demonstration until it ends."""

import socket
from typing import NamedTuple

from edgeproxy.base.free_ports import HOST, NEXT_PORTS, NoFreePortError, is_free

__all__ = ["HOST", "NoFreePortError", "Ports", "TakenPort"]


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
        last = min(usual + NEXT_PORTS, 65535)
        for port in range(usual, last + 1):
            claim = socket.socket(socket.AF_UNIX)
            try:
                claim.bind(f"\0edgeproxy-demo-port-{port}")
            except OSError:
                claim.close()
                continue
            if not is_free(port):
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
