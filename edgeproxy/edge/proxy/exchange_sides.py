"""The two sides of an exchange: what it needs of the client's connection, and of the one to the upstream.

Both connections know the exchange that they serve. Here it is `E`, so that nothing below exchange.py has to know it.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol, TypeVar

from edgeproxy.edge.proxy.tunnel import Tunnel, TunnelClient, TunnelUpstream

if TYPE_CHECKING:
    from edgeproxy.edge.errors import EdgeError
    from edgeproxy.edge.http1.changing_lines import Changing
    from edgeproxy.edge.http1.request import RequestHead
    from edgeproxy.edge.limits.limit_set import LimitSet
    from edgeproxy.edge.proxy.address import Address
    from edgeproxy.edge.proxy.body import RequestBody
    from edgeproxy.edge.proxy.client_certificate import ClientCertificate
    from edgeproxy.edge.proxy.held_budget import Holding
    from edgeproxy.edge.proxy.turns import InputBacklog

E = TypeVar("E")


class IdleConnection(Protocol):
    """A connection to an upstream that the pool keeps for the next request."""

    @property
    def idle_since(self) -> float:
        """The time at which its last answer ended, in seconds of the monotonic clock."""

    def limit_idle(self, seconds: float) -> None:
        """Keep it idle for no longer than this, from its last answer on."""

    @property
    def transport(self) -> asyncio.Transport:
        """The transport to the upstream."""

    def close(self) -> None:
        """Close once everything written has gone."""


class BodyFilter(Protocol):
    """What changes the content of an answer on its way."""

    def feed(self, parts: Iterable[bytes], *, last: bool = False) -> bytes:
        """Return what becomes of the next part of the content; `last`: nothing follows."""

    def end(self) -> bytes:
        """Return the rest at the end of the content."""


class UpstreamSide(IdleConnection, TunnelUpstream, Protocol[E]):
    """The connection to the upstream."""

    exchange: E | None
    """The exchange whose answer it reads."""
    reusable: bool
    """Whether it may serve another request after this one."""

    body_filter: "BodyFilter | None"
    """What the content of the answer under way passes through, if it does not pass as it is."""

    @property
    def reused(self) -> bool:
        """Whether it has answered before."""

    @property
    def backlog(self) -> "InputBacklog | None":
        """Its input that waits for turns."""

    @property
    def rechunks(self) -> bool:
        """Whether an answer is under way that the client gets in chunks, each written whole."""

    @property
    def write_paused(self) -> bool:
        """Whether it takes no more for now."""

    @property
    def tunnel(self) -> Tunnel | None:
        """The tunnel that it is a part of once it has left HTTP behind."""

    def begin_answer(self, data: bytes, end: int) -> None:
        """Begin an answer that is relayed piece by piece. Its head ends at `end`."""

    def learn_idle_timeout(self, block: bytes) -> None:
        """Take from the first answer's head for how long this server keeps a connection that is idle."""

    def release(self, now: float) -> None:
        """Keep the connection for later where that is safe, else close it. `now` is of the monotonic clock."""

    def pause_reading(self) -> None:
        """Read no more for now."""

    def resume_reading(self) -> None:
        """Read on."""

    def read_on(self) -> bool:
        """Read the answer to its end though its client has left, if it states usage; returns whether that is so."""

    def end_event_stream(self) -> None:
        """End the event stream under way, as if the upstream had ended it."""

    def abort(self) -> None:
        """Close at once."""


class ClientSide(TunnelClient, Protocol[E]):
    """The client's connection. `deadline` is in seconds of the monotonic clock."""

    exchange: E | None
    """The request under way."""
    is_http2: bool
    """Whether this is a stream of HTTP/2, which says itself where a body ends."""
    buffer: bytes
    """Bytes that were read and belong to no request yet."""
    expects_new_head: bool
    """Whether the head read last is not expected to come again."""
    changing: "Changing | None"
    """The lines that change with each request, once they are known."""
    heads_read: int
    """Heads of which the meaning had to be read as a whole."""

    @property
    def holding(self) -> "Holding | None":
        """Its entry in the memory budget; None while nothing is held for it."""

    def update_held(self) -> None:
        """State to the budget how many bytes are held."""

    def is_pressed(self) -> bool:
        """Return whether so much is held that memory is to be saved."""

    @property
    def transport(self) -> asyncio.Transport:
        """The transport to the client."""

    @property
    def state(self) -> int:
        """The state of the connection (client_states.py); 0 while it serves more requests."""

    @property
    def is_last(self) -> bool:
        """Whether no request after this one is served."""

    def serve_no_more(self) -> None:
        """Serve no request after the one under way."""

    @property
    def copied_bytes_max(self) -> int:
        """Bytes of a body up to which an answer is written in one piece."""

    def write_whole(self, keep: bytes, changing: bytes, opening: bytes, rid: bytes, body: memoryview) -> None:
        """Send a whole answer whose head is in pieces: a stream of HTTP/2 knows most of them in its own form."""

    @property
    def writelines(self) -> Callable[[Iterable[bytes | memoryview]], None]:
        """Send these together."""

    def write_trailers(self, lines: list[bytes]) -> None:
        """Write an answer's trailers where no chunks carry them."""

    @property
    def trusted(self) -> bool:
        """Whether the peer is a trusted proxy."""

    @property
    def secure(self) -> bool:
        """Whether it came over TLS."""

    def get_certificate(self) -> "ClientCertificate":
        """Return the certificate that the client has shown."""

    @property
    def peer(self) -> str:
        """The address of the connection's other end."""

    @property
    def address(self) -> "Address":
        """The limits of the address that asks."""

    @property
    def forwarded_lines(self) -> bytes:
        """The X-Forwarded lines that the upstream gets, and the name of X-Request-Id."""

    @property
    def body(self) -> "RequestBody | None":
        """The body of the request under way, while some of it is still to come."""

    @property
    def write_paused(self) -> bool:
        """Whether the client does not take what is written to it."""

    @property
    def is_outdated(self) -> bool:
        """Whether another configuration is taken over once the exchange is over."""

    def apply_forwarded(self, head: "RequestHead") -> None:
        """Take `address` and `forwarded` from what a trusted proxy says of its client."""

    def limit_duration(self, exchange: E, until: float) -> None:
        """End the exchange by `until` (monotonic seconds), even if data still moves."""

    def begin_body(self, exchange: E, data: bytes) -> None:
        """Read the body from here on; `data` follows the head."""

    def reject(self, exchange: E, refusal: "EdgeError | LimitSet", data: bytes, end: int) -> bytes:
        """Answer a request that is not forwarded; returns what follows it, nothing where that cannot be told."""

    def respond(self, answer: bytes, *, close: bool) -> None:
        """Write an answer of the edge's own, which ends the exchange; `close` ends the connection as well."""

    def serve_next(self) -> None:
        """Go on to the next request: the exchange is over."""

    def pause_reading(self) -> None:
        """Read no more for now."""

    def resume_reading(self) -> None:
        """Read on, unless what is held is enough."""

    def abort(self) -> None:
        """Reset the connection at once."""

    def reset_when_sent(self) -> None:
        """Reset the connection, once what was written before has arrived."""
