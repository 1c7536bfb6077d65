"""The event loop of serving processes: uvloop's, with a fix against closing a socket's descriptor twice."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

import uvloop

from edgeproxy.base.name_lookup import AddressInfo, NameLookups, is_address

P = ParamSpec("P")
T = TypeVar("T")
Connected = tuple[asyncio.Transport, asyncio.BaseProtocol]


def _detaches_socket(connect: Callable[P, Coroutine[object, object, T]]) -> Callable[P, Coroutine[object, object, T]]:
    """Return a version of `connect` that detaches the descriptor from its `sock` if it is cancelled."""

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
    """uvloop's loop with fixes for two faults.

    If a connection over a socket is cancelled before it is established, uvloop (0.21 and 0.22) closes the descriptor,
    and the socket closes this number again when it is collected. By then the number may belong to a table, a database
    or another client. aiohttp passes a socket to the loop for each connection.

    Names are looked up in the threads of name_lookup.py, because libuv's threads block other look-ups and the exit of
    the process.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lookups = NameLookups("look up a name")

    # uvloop's types differ from asyncio's, but its connections do not.
    _connect: Callable[..., Coroutine[object, object, Connected]] = _detaches_socket(
        uvloop.Loop.create_connection  # type: ignore[arg-type]
    )
    create_unix_connection = _detaches_socket(uvloop.Loop.create_unix_connection)  # type: ignore[assignment]

    async def getaddrinfo(  # type: ignore[override]
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Sequence[AddressInfo]:
        """Look up a name."""
        return await self._lookups.look_up(host, port, family=family, kind=type, protocol=proto, flags=flags)

    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        **options: object,
    ) -> Connected:
        """Connect to an address, or to the first reachable address of a name. Raises OSError."""
        if host is None or is_address(host):
            return await self._connect(protocol_factory, host, port, **options)
        family = options.pop("family", socket.AF_UNSPEC)
        assert isinstance(family, int)
        infos = await self.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        if options.get("ssl"):
            options["server_hostname"] = options.get("server_hostname") or host
        failure: OSError | None = None
        for *_, address in infos:
            try:
                return await self._connect(protocol_factory, str(address[0]), port, **options)
            except ssl.SSLError:
                raise
            except OSError as error:
                failure = failure or error
        raise failure or OSError(f"{host} has no address")


def run(main: Coroutine[object, object, T]) -> T:
    """Run a coroutine in a new loop, and return its result."""
    return uvloop.run(main, loop_factory=EventLoop)
