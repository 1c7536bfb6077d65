"""What a route does to the head of an upstream's answer. Most do nothing, and have no finish."""

from typing import TYPE_CHECKING, Protocol

from edgeproxy.http1.values import value, without
from edgeproxy.proxy.cors import ANSWERED, ORIGIN

if TYPE_CHECKING:
    from edgeproxy.proxy.cors import CrossOrigin


class Answered(Protocol):
    """What a finish needs to know of a request, see `Exchange`."""

    keep: bytes


class Finish:
    """Of one route. `cors`: None where upstreams speak of other origins themselves."""

    def __init__(self, cors: "CrossOrigin | None") -> None:
        self._cors = cors

    def head(self, lines: bytes, request: Answered) -> bytes:
        """The status line and the fields of an answer, as the client gets them."""
        if self._cors is not None:
            lines = without(lines, ANSWERED) + self._cors.fields(value(request.keep, ORIGIN))
        return lines
