"""Free ports of the loopback address."""

import socket
from collections.abc import Collection

HOST = "127.0.0.1"
NEXT_PORTS = 100
"""Maximum ports that are tried after the usual one."""


class NoFreePortError(Exception):
    """No port is free. The message says which were tried."""


def find_free_port(usual: int, but: Collection[int] = ()) -> int:
    """Return the usual port, or the next one that is free and not in `but`. Raises NoFreePortError."""
    last = min(usual + NEXT_PORTS, 65535)
    for port in range(usual, last + 1):
        if port not in but and is_free(port):
            return port
    raise NoFreePortError(f"no port from {usual} to {last} is free")


def is_free(port: int) -> bool:
    """Return whether a process could listen on this port of the loopback address now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError:
            return False
        return True
