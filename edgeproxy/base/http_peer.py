"""HTTP servers that edgeproxy calls: every answer has bounds in bytes, fields, interim answers and time.

aiohttp alone reads interim answers (RFC 9110 section 15.2) without end, keeps them all, and parses as fast as they
arrive, so one peer could hold the whole process. Here a connection parses for TURN_SECONDS at most, then others have a
turn, and it ends where an answer exceeds a bound.
"""

import asyncio
import functools
import ssl
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final, NamedTuple

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from aiohttp.streams import StreamReader

PIECE_BYTES: Final = 8 << 10
"""Bytes that are parsed before bounds and time are looked at again."""
TURN_SECONDS: Final = 0.005
"""Seconds for which one connection parses before others have a turn."""
HEAD_BYTES_MAX: Final = 64 << 10
"""Bytes of the head of an answer, with all interim answers before it."""
INTERIM_ANSWERS_MAX: Final = 32
FIELDS_MAX: Final = 128
"""Fields of a head, and of the trailers behind a body."""
FIELD_BYTES_MAX: Final = 8 << 10
FRAMING_FACTOR: Final = 8
"""A body in chunks of one byte takes six times as many bytes on the wire."""

BOUNDS_OF_PARSER: Final = {
    "Too many headers received": f"more than {FIELDS_MAX} fields",
    "Got more than": f"a line of more than {FIELD_BYTES_MAX} bytes",
}
"""The bounds that aiohttp's parser has, by how its messages begin."""


class AnswerBoundError(aiohttp.ClientPayloadError):
    """An answer exceeded a bound. The text names the peer and the bound."""


class HttpPeer(NamedTuple):
    """A kind of server that is called, and the bounds of its answers."""

    name: str
    """How errors call it, such as "the collector"."""
    seconds_max: float
    """Seconds for a whole call, from the look-up of the name to the last byte."""
    body_bytes_max: int
    """Bytes of a body, after decompression."""
    connect_seconds_max: float | None = None
    """Seconds of these for a connection with TLS; None: all."""
    reads_prefix: bool = False
    """Whether the first `body_bytes_max` bytes of a longer body are enough. Otherwise it is an error."""


class BoundedResponseHandler(ResponseHandler):
    """Reads the answers of one connection, within the bounds of its peer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, peer: HttpPeer) -> None:
        super().__init__(loop)
        self._peer = peer
        self._rest: memoryview | None = None
        """Received bytes that wait for the next turn. Meanwhile nothing is read from the socket."""
        self._turn_ends: float | None = None
        """When parsing pauses; None where nothing was parsed in this turn."""
        self._is_resuming = False
        """Whether aiohttp is to read on with the next turn."""
        self._is_cut = False
        self._reset_counts()

    def _reset_counts(self) -> None:
        self._has_head = False
        self._head_bytes = self._interim_answers = self._wire_bytes = 0

    def set_response_params(self, **params: Any) -> None:
        """Begin the answer to the next request."""
        self._reset_counts()
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, or what aiohttp has held back where `data` is empty."""
        if self._is_cut:
            return
        if not data:
            super().data_received(data)
            self._check_body()
        else:
            # Bytes wait only while the socket is paused; a transport may still have some on their way.
            self._rest = memoryview(data if self._rest is None else bytes(self._rest) + data)
        self._parse_rest()

    def _has_time(self) -> bool:
        """Return whether this connection may still parse in this turn of the loop."""
        if self._turn_ends is None:
            self._turn_ends = monotonic() + TURN_SECONDS
            self._loop.call_soon(self._begin_turn)
            return True
        return monotonic() < self._turn_ends

    def _parse_rest(self) -> None:
        """Parse piece by piece until all is parsed, or this turn is over, or aiohttp takes no more."""
        while (rest := self._rest) is not None and not (self._is_cut or self._reading_paused) and self._has_time():
            self._rest = rest[PIECE_BYTES:] if len(rest) > PIECE_BYTES else None
            self._parse_piece(bytes(rest[:PIECE_BYTES]))
        if self._rest is not None:
            self._pause_transport_reading()

    def _begin_turn(self) -> None:
        self._turn_ends = None
        if self._is_resuming:
            self.resume_reading()
        elif self._rest is not None and not self._reading_paused:
            self._parse_rest()
            if self._rest is None and not self._reading_paused:
                self._resume_transport_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Read on. A reader that takes bytes as fast as they are parsed waits for the next turn too."""
        self._is_resuming = not self._has_time()
        if not self._is_resuming:
            super().resume_reading(resume_parser)
            if self._rest is not None:
                self._pause_transport_reading()

    def _parse_piece(self, piece: bytes) -> None:
        self._wire_bytes += len(piece)
        if not self._has_head:
            if self._head_bytes >= HEAD_BYTES_MAX:
                self._cut(f"a head of more than {HEAD_BYTES_MAX} bytes")
                return
            self._head_bytes += len(piece)
        elif self._wire_bytes > HEAD_BYTES_MAX + FRAMING_FACTOR * self._peer.body_bytes_max:
            self._cut("a body with more framing than content")
            return
        super().data_received(piece)
        self._check_body()

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Take the head of an answer."""
        message, _ = data
        if self._is_cut:
            return
        if self._has_head:  # Nobody asked for a second answer.
            self._is_cut = self._should_close = True
            self._close_transport()
            return
        if 100 <= message.code < 200 and message.code != 101:
            self._interim_answers += 1
            if self._interim_answers > INTERIM_ANSWERS_MAX:
                self._cut(f"more than {INTERIM_ANSWERS_MAX} interim answers")
                return
        else:
            self._has_head = True
        super().feed_data(data, size)

    def _check_body(self) -> None:
        payload, peer = self._payload, self._peer
        if payload is not None and not peer.reads_prefix and payload.total_bytes > peer.body_bytes_max:
            self._cut(describe_body_bound(peer))

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Fail the call. A bound of aiohttp's parser gets the name of the peer."""
        if isinstance(exc, HttpProcessingError):
            bound = next((bound for text, bound in BOUNDS_OF_PARSER.items() if exc.message.startswith(text)), None)
            if bound is not None:
                self._cut(bound)
                return
        super().set_exception(exc, *cause)

    def _cut(self, excess: str) -> None:
        """End the connection, and fail the call that waits for this answer."""
        self._is_cut = True
        self._rest = None
        error = AnswerBoundError(f"{self._peer.name}'s answer had {excess}")
        payload = self._payload
        self._buffer.clear()
        super().set_exception(error)
        if payload is not None:
            payload.set_exception(error)
        self._close_transport()

    def _close_transport(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Parse what still waits: the peer may have sent all of its answer before it closed the connection."""
        while self._rest is not None and not (self._is_cut or self._reading_paused):
            self._turn_ends = monotonic() + TURN_SECONDS
            self._parse_rest()
        self._rest = None
        self._is_resuming = False
        super().connection_lost(exc)


class _Connector(aiohttp.TCPConnector):
    """Makes connections that are read within bounds."""

    def __init__(self, peer: HttpPeer, **options: Any) -> None:
        super().__init__(**options)
        create_handler = functools.partial(BoundedResponseHandler, loop=self._loop, peer=peer)
        self._factory = create_handler  # type: ignore[assignment]


def open_session(
    peer: HttpPeer,
    *,
    seconds: float | None = None,
    timeout: aiohttp.ClientTimeout | None = None,
    tls: ssl.SSLContext | bool = True,
    headers: Mapping[str, str] | None = None,
    auto_decompress: bool = True,
    **connector: Any,
) -> aiohttp.ClientSession:
    """Open a session for calls of one kind of server. It keeps no cookies.

    `seconds` are those of a setting, in place of the peer's; `timeout` has further bounds in time, and `connector`
    further options of aiohttp's connector. Calls raise AnswerBoundError, as well as aiohttp.ClientError and
    TimeoutError.
    """
    if timeout is None:
        total = peer.seconds_max if seconds is None else seconds
        timeout = aiohttp.ClientTimeout(total=total, connect=peer.connect_seconds_max)
    return aiohttp.ClientSession(
        connector=_Connector(peer, ssl=tls, **connector),
        timeout=timeout,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        auto_decompress=auto_decompress,
        max_headers=FIELDS_MAX,
        max_line_size=FIELD_BYTES_MAX,
        max_field_size=FIELD_BYTES_MAX,
    )


def describe_body_bound(peer: HttpPeer) -> str:
    """Describe the bound of a peer's body."""
    return f"a body of more than {peer.body_bytes_max} bytes"
