"""The loop of all processes, over real sockets."""

import asyncio
import os
import socket

import pytest

from edgeproxy.base import event_loop
from edgeproxy.base.tasks import Tasks


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_the_descriptor_of_a_connection_that_is_cancelled_is_closed_once(family: int) -> None:
    async def connect_and_cancel(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connect = loop.create_unix_connection if family == socket.AF_UNIX else loop.create_connection
        connecting = Tasks().start("connect", connect(asyncio.Protocol, sock=sock))
        await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait([connecting])
        assert connecting.cancelled()

    server = socket.create_server(("127.0.0.1", 0))
    connected, other = (
        socket.socketpair() if family == socket.AF_UNIX else (socket.create_connection(server.getsockname()), server)
    )
    number = connected.fileno()
    event_loop.run(connect_and_cancel(connected))
    with server, other:
        os.dup2(server.fileno(), number)
        connected.close()
        os.close(number)  # Raises OSError where the socket has closed it.
