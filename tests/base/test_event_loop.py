"""The loop of all processes, over real sockets."""

import asyncio
import os
import socket
import threading
import time
from typing import Any

import pytest

from edgeproxy.base import event_loop
from edgeproxy.base.tasks import Tasks


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_cancelled_connection_closes_its_descriptor_once(family: int) -> None:
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
        os.close(number)  # Raises OSError if the socket has closed it.


def test_silent_name_server_delays_neither_other_names_nor_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    over, getaddrinfo = threading.Event(), socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        if str(host).endswith(".silent"):
            over.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")
        return getaddrinfo(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    async def connect(port: int) -> None:
        loop, tasks = asyncio.get_running_loop(), Tasks()
        for number in range(40):  # More than the threads of any pool.
            tasks.start("connect", loop.create_connection(asyncio.Protocol, f"host{number}.silent", 80))
        await asyncio.sleep(0)
        async with asyncio.timeout(20):
            transport, _ = await loop.create_connection(asyncio.Protocol, "localhost", port)
        transport.close()
        await tasks.cancel()

    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        event_loop.run(connect(server.getsockname()[1]))
    assert time.monotonic() - began < 20
    over.set()


def test_connection_tries_each_address_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        infos = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.9", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: infos)

        async def connect() -> object:
            transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, "api.internal", port)
            try:
                return transport.get_extra_info("peername")
            finally:
                transport.abort()

        assert event_loop.run(connect()) == ("127.0.0.1", port)
