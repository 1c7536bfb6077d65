"""What a route asks of a request before anybody's key is looked at. Most routes ask nothing, and have no door."""

from typing import TYPE_CHECKING, Protocol

from edgeproxy.errors import Answered, Refused
from edgeproxy.http1.values import value, values
from edgeproxy.proxy.cors import METHOD, ORIGIN, CrossOrigin
from edgeproxy.proxy.rewriting import location

if TYPE_CHECKING:
    from edgeproxy.config.models import Route
    from edgeproxy.http1.request import RequestHead


class Knocking(Protocol):
    """What a door needs to know of a request, see `Exchange`."""

    method: bytes
    first: bytes
    keep: bytes
    head: "RequestHead"

    def is_secure(self) -> bool:
        """Whether the client is spoken with over TLS."""


class Door:
    """Of one route. `cors`: None where the edge says nothing of other origins."""

    def __init__(self, settings: "Route", cors: CrossOrigin | None) -> None:
        self._cors = cors
        self._redirect, self._respond = settings.redirect, settings.respond
        self._prefix = settings.prefix

    def __bool__(self) -> bool:
        """Whether it asks anything."""
        return self._cors is not None or self._redirect is not None or self._respond is not None

    def enter(self, request: Knocking) -> None:
        """Raise Refused where a request does not come in, and Answered where no upstream is to be asked."""
        if self._cors is not None:
            check_origin(self._cors, request)
        redirect, respond = self._redirect, self._respond
        if redirect is not None and not (redirect.to == "https" and request.is_secure()):
            place = location(redirect, self._prefix, request.first, request.keep)
            raise Answered(redirect.status, "Redirected", fields=b"Location: %b\r\n" % place)
        if respond is not None:
            kind = f"Content-Type: {respond.type}\r\n".encode() if respond.body else b""
            raise Answered(respond.status, "A fixed answer", fields=kind, content=(respond.body or "").encode())


def check_origin(cors: CrossOrigin, request: Knocking) -> None:
    """Answer a preflight, which browsers send without a key; refuse WebSockets of pages that may not call.

    What else such a page asks goes on, as the Fetch standard has it: its browser does not show it the answer. That of
    a WebSocket it would (RFC 6455 section 10.2).
    """
    preflight = is_preflight(request)
    if not preflight and not request.head.upgrade:
        return
    origins = values(request.keep, ORIGIN)
    if origins and not (len(origins) == 1 and cors.allows(origins[0])):
        raise Refused(403, "Pages of this origin may not call here", close=False)
    if preflight:
        raise Answered(204, "A preflight", fields=cors.preflight(request.keep))


def is_preflight(request: Knocking) -> bool:
    """Whether a browser asks what a page may do."""
    return request.method == b"OPTIONS" and asked_method(request) is not None and bool(values(request.keep, ORIGIN))


def asked_method(request: Knocking) -> bytes | None:
    """The method that a preflight asks about."""
    return value(request.keep, METHOD)
