"""The listening sockets: opened once by the supervisor, shared by all of its workers.

All of a supervisor's workers accept from shared queues, so a dead worker loses no connection: the others serve it.
SO_REUSEPORT lets a second supervisor listen on these addresses too while the first one drains.

A bound socket does not listen yet. So an unavailable address is detected at once, and no client is queued for workers
that may never start. Workers listen when they are about to accept.
"""

import errno
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from edgeproxy.config.addresses import Address


class AddressUnavailableError(Exception):
    """An address is not available for listening; the text names it and the reason."""


def bind(address: Address) -> socket.socket:
    """Return a non-blocking TCP socket that is bound to this address; port 0 takes a free one.

    Raises AddressUnavailableError.
    """
    with ExitStack() as undo:
        try:
            family, _, _, _, resolved = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
            made = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                # Then [::] and 0.0.0.0 can both be listened on, each as an entry of `listen`.
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(resolved)
        except OSError as error:
            raise AddressUnavailableError(f"cannot listen on {address}: {error.strerror or error}") from error
        undo.pop_all()
    return made


def is_listened_on(address: Address) -> bool:
    """Return whether some process listens on this address."""
    try:
        family, _, _, _, resolved = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(resolved)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def bind_all(addresses: Iterable[Address]) -> tuple[socket.socket, ...]:
    """Bind all of the addresses or, raising AddressUnavailableError, none."""
    with ExitStack() as undo:
        made = tuple(undo.enter_context(bind(address)) for address in addresses)
        undo.pop_all()
    return made


def close_all(bound: Sequence[socket.socket]) -> None:
    """Close these sockets in this process; other processes that hold them continue to listen."""
    for one in bound:
        one.close()


def get_address(bound: socket.socket) -> Address:
    """Return the address that a socket is bound to."""
    host, port = bound.getsockname()[:2]
    return Address(host, port)
