"""The heads and trailers of one connection's requests: field blocks in, HTTP/1.1 out.

The meaning of a block depends on its bytes and on the dynamic table alone. So the head of a block is remembered by its
bytes until the table changes, even by one entry. A repeated request costs one look-up, and its head is one bytes object
each time, so the meaning of the head is found by identity (`whole_heads` of edge/proxy/exchange/snapshot.py).

Other requests differ only in their path, key or Content-Length: many customers may share a connection. Most clients
insert these values into no table. So a head is remembered without such values, too (open_head.py).
"""

from typing import Final

from edgeproxy.edge.http1.grammar import HeadLimits
from edgeproxy.edge.http2.hpack import Block, HpackDecoder
from edgeproxy.edge.http2.lines import Line
from edgeproxy.edge.http2.open_head import OpenHead, complete_head, open_head
from edgeproxy.edge.http2.request import OVERSIZED_LENGTH, Head, format_head, get_trailers

BLANK: Final = b"\r\n\r\n"

FIELDS_OF_LINE: Final = 4
"""Pseudo-header fields of a request that are not field lines in HTTP/1.1, unlike :authority: `limits.fields` does not
count them.
"""

HEADS_MAX: Final = 32
"""Heads that are remembered, and bytes of all of them with their blocks."""
HEADS_BYTES_MAX: Final = 32 << 10

RARE_HEADS_MAX: Final = HEADS_MAX // 2
RARE_HEADS_BYTES_MAX: Final = HEADS_BYTES_MAX // 2
"""The same for heads with new values: rare blocks would otherwise push out the frequent ones."""

OPEN_HEADS_MAX: Final = 4
"""Heads without their new values that are remembered of requests with a body, and of others. Each may be tried."""

OPEN_BLOCK_BYTES_MAX: Final = 2048
"""A longer block is only read as a whole: to try it with each of these heads would cost too much."""


class HeadReader:
    """Reads the field blocks of one connection, each of them once and in order."""

    __slots__ = ("_bytes", "_decoder", "_heads", "_limits", "_open_heads", "_websockets")

    def __init__(self, limits: HeadLimits, *, websockets: bool) -> None:
        self._decoder = HpackDecoder(limits.fields + FIELDS_OF_LINE, limits.head)
        self._limits = limits
        self._websockets = websockets
        self._heads: tuple[dict[Block, Head], dict[Block, Head]] = ({}, {})
        """The heads of requests with a body, and without, by block."""
        self._open_heads: tuple[list[OpenHead], list[OpenHead]] = ([], [])
        """The same without their new values, latest first."""
        self._bytes = 0

    @property
    def stored_bytes(self) -> int:
        """The stored bytes from the peer: the dynamic table, and the heads with their blocks."""
        return self._decoder.size + self._bytes

    def read_head(self, block: Block, *, ended: bool) -> Head:
        """Read the head of a request; `ended`: no body follows it.

        Raises Http2StreamError if it is malformed, CompressionError if it cannot be decoded.
        """
        return self._heads[ended].get(block) or self._decode_head(block, ended)

    def read_trailers(self, block: Block) -> list[bytes] | None:
        """Read trailers; None if they are too large. Raises as `read_head` does."""
        lines = self._decoder.decode(block)
        self._forget_if_changed()
        return get_trailers(lines, self._limits)

    def skip(self, block: Block) -> None:
        """Read a block only for its effect on the table. Raises CompressionError."""
        self._decoder.decode(block)
        self._forget_if_changed()

    def skip_part(self, part: bytes, *, begins: bool) -> bytes:
        """Read a part of such a block, as `HpackDecoder.skip` does."""
        rest = self._decoder.skip(part, begins=begins)
        self._forget_if_changed()
        return rest

    def _decode_head(self, block: Block, ended: bool) -> Head:
        if self._open_heads[ended] and block is not None and len(block) <= OPEN_BLOCK_BYTES_MAX:
            completed = self._complete_head(block, ended)
            if completed is not None:
                return completed
        lines = self._decoder.decode(block)
        has_changed = self._forget_if_changed()
        head = format_head(lines, ended=ended, websockets=self._websockets)
        if len(head[0]) - len(BLANK) > self._limits.head:
            head = (head[0], OVERSIZED_LENGTH)
        if block is not None and not has_changed:
            self._remember(block, head, ended)
            if self._decoder.unindexed and len(block) <= OPEN_BLOCK_BYTES_MAX and head[1] != OVERSIZED_LENGTH:
                self._remember_open(block, lines, head, ended)
        return head

    def _complete_head(self, block: bytes, ended: bool) -> Head | None:
        """Return the head of a block that differs from a remembered one only by new values; None if there is none."""
        for known in self._open_heads[ended]:
            head = complete_head(known, block)
            if head is not None and len(head[0]) - len(BLANK) <= self._limits.head:
                with_body, without = self._heads
                has_room = len(with_body) + len(without) < RARE_HEADS_MAX
                if has_room and self._bytes + len(block) + len(head[0]) <= RARE_HEADS_BYTES_MAX:
                    self._remember(block, head, ended)
                return head
        return None

    def _remember_open(self, block: bytes, lines: list[Line], head: Head, ended: bool) -> None:
        """Remember a head without its new values."""
        opened = open_head(block, lines, self._decoder.unindexed, head)
        known = self._open_heads[ended]
        if opened is None or opened.size > HEADS_BYTES_MAX // 4:
            return
        if len(known) >= OPEN_HEADS_MAX:
            self._bytes -= known.pop().size
        if self._bytes + opened.size > HEADS_BYTES_MAX:
            self._forget()
        known.insert(0, opened)
        self._bytes += opened.size

    def _forget_if_changed(self) -> bool:
        """Forget all heads if the table has changed; return whether it has."""
        has_changed, self._decoder.has_changed = self._decoder.has_changed, False
        if has_changed:
            self._forget()
        return has_changed

    def _forget(self) -> None:
        for heads in (*self._heads, *self._open_heads):
            heads.clear()
        self._bytes = 0

    def _remember(self, block: bytes, head: Head, ended: bool) -> None:
        with_body, without = self._heads
        size = len(block) + len(head[0])
        if len(with_body) + len(without) >= HEADS_MAX or self._bytes + size > HEADS_BYTES_MAX:
            self._forget()
        if size <= HEADS_BYTES_MAX // 4:
            self._heads[ended][block] = head
            self._bytes += size
