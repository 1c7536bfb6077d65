"""Lookups of host names by the system's resolver, each in a thread of its own. The process can exit during a lookup.

The system's resolver may take half a minute if its name servers are silent. uvloop looks names up in libuv's thread
pool. Two such lookups block all other lookups there, and the process cannot exit before they end.
"""

import errno
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from edgeproxy.base.tasks import run_in_thread

T = TypeVar("T")

LOOKUPS_MAX: Final = 200
"""Lookups at once. A lookup lasts as long as the system's resolver waits, even if its caller has given up."""
AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[object, ...]]
"""An entry of the result of `socket.getaddrinfo`."""


class NameLookups:
    """Lookups with a common bound on their number."""

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
        """Return the result of `socket.getaddrinfo`; raises OSError."""
        return await look_up_in_thread(
            self._name,
            lambda: socket.getaddrinfo(host, port, family, kind, protocol, flags),
            lambda: self._free.acquire(blocking=False),
            self._free.release,
        )


async def look_up_in_thread(
    name: str, look_up: Callable[[], T], take: Callable[[], bool], release: Callable[[], None]
) -> T:
    """Run `look_up` in a thread called `name`, and return its result; raises OSError.

    `take` reserves a place for the lookup, and returns False if no place is free. `release` frees the place at the
    end, in that thread.
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
    """Return whether a host is an IP address. An IP address needs no lookup."""
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host.partition("%")[0])
    except (OSError, ValueError):
        return False
    return True
