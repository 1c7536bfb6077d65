"""TCP ports of the loopback address that no program uses at this moment."""

import socket


def free(count: int) -> tuple[int, ...]:
    """Return this many different free ports.

    Another process may take a port before it is used. The program that then cannot listen reports it.
    """
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return tuple(sock.getsockname()[1] for sock in sockets)
    finally:
        for sock in sockets:
            sock.close()
