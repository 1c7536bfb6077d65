"""Look-ups of host names by the system's resolver, each in a thread that the end of the process does not wait for.

The system's resolver may take half a minute where its name servers are silent. uvloop looks names up in libuv's pool,
where two such look-ups hold all others, and the process cannot end before them.
"""

import errno
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from edgeproxy.base.tasks import run_in_thread

T = TypeVar("T")

LOOKUPS_MAX: Final = 200
"""Look-ups at once. One lasts as long as the system's resolver waits, also where its caller has given up."""
AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[object, ...]]
"""An entry of what `socket.getaddrinfo` returns."""


class NameLookups:
    """Look-ups that share a bound."""

    def __init__(self, name: str, most: int = LOOKUPS_MAX) -> None:
        self._name = name
        self._free = threading.BoundedSemaphore(most)

    async def look_up(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        kind: int = 0,
        protocol: int = 0,
        flags: int = 0,
    ) -> Sequence[AddressInfo]:
        """Return what `socket.getaddrinfo` does; raises OSError."""
        return await look_up_in_thread(
            self._name,
            lambda: socket.getaddrinfo(host, port, family, kind, protocol, flags),
            lambda: self._free.acquire(blocking=False),
            self._free.release,
        )


async def look_up_in_thread(
    name: str, look_up: Callable[[], T], take: Callable[[], bool], release: Callable[[], None]
) -> T:
    """Return the result of `look_up`, which runs in a thread called `name`; raises OSError.

    `take` returns whether there is a place for it. `release` gives the place back, in that thread, at the end.
    """
    if not take():
        raise OSError(errno.EAGAIN, "too many names are being looked up")

    def look_up_once() -> T:
        try:
            return look_up()
        finally:
            release()

    try:
        ended = run_in_thread(name, look_up_once)
    except RuntimeError:
        release()
        raise OSError(errno.EAGAIN, "there are as many threads as there may be") from None
    return await ended


def is_address(host: str) -> bool:
    """Return whether a host is an IP address, which needs no look-up."""
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host.partition("%")[0])
    except (OSError, ValueError):
        return False
    return True
