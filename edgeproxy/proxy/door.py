"""What a route asks of a request before anybody's key is looked at. Most routes ask nothing, and have no door."""

from typing import TYPE_CHECKING, Protocol

from edgeproxy.errors import Refused
from edgeproxy.http1.values import value, values
from edgeproxy.proxy.cors import METHOD, ORIGIN, CrossOrigin

if TYPE_CHECKING:
    from edgeproxy.http1.request import RequestHead


class Knocking(Protocol):
    """What a door needs to know of a request, see `Exchange`."""

    method: bytes
    keep: bytes
    head: "RequestHead"


class Door:
    """Of one route. `cors`: None where the edge says nothing of other origins."""

    def __init__(self, cors: CrossOrigin | None) -> None:
        self.cors = cors

    def enter(self, request: Knocking) -> None:
        """Raise Refused where a request does not come in, or is answered here."""
        if self.cors is not None:
            check_origin(self.cors, request)


def check_origin(cors: CrossOrigin, request: Knocking) -> None:
    """Answer a preflight, which browsers send without a key; refuse WebSockets of pages that may not call.

    What else such a page asks goes on, as the Fetch standard has it: its browser does not show it the answer. That of
    a WebSocket it would (RFC 6455 section 10.2).
    """
    preflight = is_preflight(request)
    if not preflight and request.head.upgrade is None:
        return
    origins = values(request.keep, ORIGIN)
    if origins and not (len(origins) == 1 and cors.allows(origins[0])):
        raise Refused(403, "Pages of this origin may not call here", close=False)
    if preflight:
        raise Refused(204, "A preflight, which the edge answers", close=False, fields=cors.preflight(request.keep))


def is_preflight(request: Knocking) -> bool:
    """Whether a browser asks what a page may do."""
    return request.method == b"OPTIONS" and asked_method(request) is not None and bool(values(request.keep, ORIGIN))


def asked_method(request: Knocking) -> bytes | None:
    """The method that a preflight asks about."""
    return value(request.keep, METHOD)
