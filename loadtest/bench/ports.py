"""TCP ports of the loopback that nobody uses at this moment."""

import socket


def free(count: int) -> tuple[int, ...]:
    """`count` different ports; another process could take one before it is used, which then shows at the start."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return tuple(sock.getsockname()[1] for sock in sockets)
    finally:
        for sock in sockets:
            sock.close()
