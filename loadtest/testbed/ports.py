"""Ports of the loopback, each held for as long as a test may want somebody to listen there."""

import socket
from contextlib import ExitStack

HOST = "127.0.0.1"


class Ports:
    """Ports that the kernel gives to nobody else until `close`.

    Each is bound, on terms that let others bind it as well, and never listened on: a process of ours can listen
    there, end and listen again, and no other test comes in between.
    """

    def __init__(self, count: int) -> None:
        with ExitStack() as undo:
            held = [undo.enter_context(_bound()) for _ in range(count)]
            self.close = undo.pop_all().close
        self.numbers = tuple(one.getsockname()[1] for one in held)


def _bound() -> socket.socket:
    created = socket.socket()
    created.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    created.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    created.bind((HOST, 0))
    return created
