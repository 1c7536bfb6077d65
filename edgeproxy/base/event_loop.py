"""The event loop of the processes that serve: uvloop's, with which the descriptor of a socket is closed once."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import ParamSpec, TypeVar

import uvloop

P = ParamSpec("P")
T = TypeVar("T")


def _detaches_socket(connect: Callable[P, Coroutine[object, object, T]]) -> Callable[P, Coroutine[object, object, T]]:
    """Return `connect`, which takes the descriptor from its `sock` where it is cancelled."""

    @wraps(connect)
    async def connect_once(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return await connect(*arguments, **options)
        except asyncio.CancelledError:
            sock = options.get("sock")
            if isinstance(sock, socket.socket):
                sock.detach()
            raise

    return connect_once


class EventLoop(uvloop.Loop):
    """uvloop's loop, with a fault of it mended.

    Where a connection over a socket is cancelled before it is made, uvloop (0.21 and 0.22) closes the descriptor, and
    the socket closes that number again when it is collected. By then the number may be that of a table, a database or
    another client. aiohttp gives the loop a socket for each connection that it makes.
    """

    # Its types are not those of asyncio, though its connections are.
    create_connection = _detaches_socket(uvloop.Loop.create_connection)  # type: ignore[assignment]
    create_unix_connection = _detaches_socket(uvloop.Loop.create_unix_connection)  # type: ignore[assignment]


def run(main: Coroutine[object, object, T]) -> T:
    """Run a coroutine in a new loop, and return its result."""
    return uvloop.run(main, loop_factory=EventLoop)
