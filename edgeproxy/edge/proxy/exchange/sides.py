"""The two sides of an exchange: its interface to the client's connection and to the upstream's.

Both connections know the exchange that they serve. Its type is the variable `E` here, so that modules below exchange.py
need not import it.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol, TypeVar

from edgeproxy.edge.proxy.exchange.tunnel import Tunnel, TunnelClient, TunnelUpstream
from edgeproxy.edge.proxy.upstreams.idle_connection import IdleConnection

if TYPE_CHECKING:
    from edgeproxy.edge.errors import EdgeError
    from edgeproxy.edge.http1.changing_lines import Changing, KeyPlace
    from edgeproxy.edge.http1.request import RequestHead
    from edgeproxy.edge.limits.limit_set import LimitSet
    from edgeproxy.edge.proxy.transport.address import Address
    from edgeproxy.edge.proxy.transport.body import RequestBody
    from edgeproxy.edge.proxy.transport.client_certificate import ClientCertificate
    from edgeproxy.edge.proxy.transport.held_budget import Holding
    from edgeproxy.edge.proxy.transport.turns import InputBacklog

E = TypeVar("E")


class BodyFilter(Protocol):
    """An object that changes the content of an answer on its way."""

    def feed(self, parts: Iterable[bytes], *, last: bool = False) -> bytes:
        """Return the changed form of the next parts of the content; `last`: nothing follows."""

    def end(self) -> bytes:
        """Return the rest at the end of the content."""


class UpstreamSide(IdleConnection, TunnelUpstream, Protocol[E]):
    """The connection to the upstream."""

    exchange: E | None
    """The exchange whose answer it reads."""
    reusable: bool
    """True if the connection may serve another request after this one."""

    body_filter: "BodyFilter | None"
    """The filter for the content of the current answer; None if the content passes unchanged."""

    @property
    def reused(self) -> bool:
        """True if the connection has answered before."""

    @property
    def backlog(self) -> "InputBacklog | None":
        """Its input that waits for later turns of the loop."""

    @property
    def rechunks(self) -> bool:
        """True if the client gets the current answer in chunks, each written whole."""

    @property
    def write_paused(self) -> bool:
        """True if the upstream takes no more bytes for now."""

    @property
    def tunnel(self) -> Tunnel | None:
        """The tunnel that the connection belongs to after a protocol switch."""

    def begin_answer(self, data: bytes, end: int) -> None:
        """Begin an answer that is relayed piece by piece. Its head ends at `end`."""

    def learn_idle_timeout(self, block: bytes) -> None:
        """Learn from the head of the first answer how long this server keeps an idle connection."""

    def release(self, now: float) -> None:
        """Keep the connection for later if that is safe, else close it. `now` is monotonic time."""

    def pause_reading(self) -> None:
        """Stop reading for now."""

    def resume_reading(self) -> None:
        """Resume reading."""

    def read_on(self) -> bool:
        """Read the answer to its end after its client left if it states usage. Return whether that is the case."""

    def end_event_stream(self) -> None:
        """End the current event stream as if the upstream had ended it."""

    def abort(self) -> None:
        """Close at once."""


class ClientSide(TunnelClient, Protocol[E]):
    """The client's connection. `deadline` is in seconds of the monotonic clock."""

    exchange: E | None
    """The current request."""
    is_http2: bool
    """True if this is an HTTP/2 stream. Such a stream marks the end of a body itself."""
    buffer: bytes
    """Bytes that were read and belong to no request yet."""
    expects_new_head: bool
    """True if the last head is not expected to come again."""
    changing: "Changing | None"
    """The lines that change with each request, once they are known."""
    key_place: "KeyPlace | None"
    """The place of the key in the last head that shared its other lines with other customers."""
    heads_read: int
    """The number of heads that had to be parsed as a whole."""

    @property
    def holding(self) -> "Holding | None":
        """Its entry in the memory budget; None while nothing is held for it."""

    def update_held(self) -> None:
        """Report to the budget how many bytes are held."""

    def is_pressed(self) -> bool:
        """Return whether the budget is so full that memory must be saved."""

    @property
    def transport(self) -> asyncio.Transport:
        """The transport to the client."""

    @property
    def state(self) -> int:
        """The state of the connection (client_states.py); 0 while it serves more requests."""

    @property
    def is_last(self) -> bool:
        """True if no request after this one is served."""

    def serve_no_more(self) -> None:
        """Serve no request after the current one."""

    @property
    def copied_bytes_max(self) -> int:
        """The largest body of an answer, in bytes, that is written in one piece."""

    def write_whole(self, keep: bytes, changing: bytes, opening: bytes, rid: bytes, data: bytes, start: int) -> None:
        """Send a whole answer whose head is in pieces. Its body begins at `start` in `data`. An HTTP/2 stream has most
        of the pieces encoded already.
        """

    @property
    def writelines(self) -> Callable[[Iterable[bytes | memoryview]], None]:
        """Write several parts together."""

    def write_trailers(self, lines: list[bytes]) -> None:
        """Write an answer's trailers without chunked coding."""

    @property
    def trusted(self) -> bool:
        """True if the peer is a trusted proxy."""

    @property
    def secure(self) -> bool:
        """True if the client connected over TLS."""

    def get_certificate(self) -> "ClientCertificate":
        """Return the client's certificate."""

    @property
    def peer(self) -> str:
        """The address of the connection's other end."""

    @property
    def address(self) -> "Address":
        """The limits of the client's address."""

    @property
    def forwarded_lines(self) -> bytes:
        """The X-Forwarded lines for the upstream, and the field name of X-Request-Id."""

    @property
    def body(self) -> "RequestBody | None":
        """The body of the current request, while some of it is still to come."""

    @property
    def write_paused(self) -> bool:
        """True if the client does not read the bytes that are written to it."""

    @property
    def is_outdated(self) -> bool:
        """True if the connection changes to another configuration after this exchange."""

    def apply_forwarded(self, head: "RequestHead") -> None:
        """Set `address` and `forwarded_lines` from a trusted proxy's fields about its client."""

    def limit_duration(self, exchange: E, until: float) -> None:
        """End the exchange by `until` (monotonic seconds), even if data still moves."""

    def begin_body(self, exchange: E, data: bytes) -> None:
        """Read the body from here on; `data` follows the head."""

    def reject(self, exchange: E, refusal: "EdgeError | LimitSet", data: bytes, end: int) -> bytes:
        """Answer a request that is not forwarded. Return the bytes after it, or none if its end is unknown."""

    def respond(self, answer: bytes, *, close: bool) -> None:
        """Write an answer of the edge's own, which ends the exchange. `close` ends the connection as well."""

    def serve_next(self) -> None:
        """Continue with the next request: the exchange is over."""

    def pause_reading(self) -> None:
        """Stop reading for now."""

    def resume_reading(self) -> None:
        """Resume reading, unless enough is held."""

    def abort(self) -> None:
        """Reset the connection at once."""

    def reset_when_sent(self) -> None:
        """Reset the connection once everything written before has arrived."""
