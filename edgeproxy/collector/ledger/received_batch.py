"""A batch as it arrives: who says that it is which, and what its bytes are. Pure."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import zstandard

from edgeproxy.wire import batch as batches
from edgeproxy.wire.batch import (
    BODY_BYTES_MAX,
    HASH,
    NAME,
    NUMBER_MAX,
    SMALL_BYTES,
    Batch,
    InvalidBatchError,
)

SEQ = re.compile(r"[1-9][0-9]{0,18}")
WINDOW = BODY_BYTES_MAX
"""Bytes that a frame may make us remember: no more than a body has."""
BEGINNING = 64 << 10
"""Bytes that are kept of what cannot be a batch for its size alone."""
AHEAD_SECONDS_MAX = 86_400
"""Seconds by which the clock of an edge may be ahead. Each month has a partition, and each query looks at all that are
to come: a token could have a hundred thousand of them made.
"""
BEHIND_SECONDS_MAX = 5 * 366 * 86_400
"""Seconds for which a batch may have waited. Each month that is kept has a partition here too: of 1970, for an edge
without a clock, or a token could have seven hundred of them made.
"""


class BatchHeaders(NamedTuple):
    """Batch headers: edge, seq, and the SHA-256 of the uncompressed body."""

    edge: str
    seq: int
    hash: str


class ReceivedBatch(NamedTuple):
    """A batch whose headers are whole. `batch` is None where nobody can read it, and `why` says what is wrong.

    `body` is then as it came, in its `coding`, otherwise uncompressed.
    """

    edge: str
    seq: int
    hash: str
    batch: Batch | None
    why: str
    body: bytes
    coding: str = "identity"


def parse_headers(headers: Mapping[str, str]) -> BatchHeaders | str:
    """Parse the headers; return a sentence if one is missing or invalid."""
    edge, seq, digest = (headers.get(name, "") for name in ("Edge-Id", "Edge-Seq", "Edge-Hash"))
    if not NAME.fullmatch(edge):
        return "Edge-Id is missing, or is no name"
    if not SEQ.fullmatch(seq) or int(seq) > NUMBER_MAX:
        return "Edge-Seq is missing, or is no whole number from 1"
    if not HASH.fullmatch(digest.lower()):
        return "Edge-Hash is missing, or is no SHA-256 in hex"
    return BatchHeaders(edge, int(seq), digest.lower())


def decode_batch(headers: BatchHeaders, sent: bytes, coding: str, now: float | None = None) -> ReceivedBatch:
    """Decode a batch sent in the Content-Encoding `coding`; `now` bounds when it may be from, in Unix seconds."""
    try:
        body = inflate(sent, coding)
        if batches.compute_digest(body) != headers.hash:
            raise InvalidBatchError(["has another SHA-256 than its Edge-Hash"])
        batch = batches.parse_batch(body)
        if (batch.edge, batch.seq) != (headers.edge, headers.seq):
            raise InvalidBatchError(["has another edge or seq than its headers"])
        if now is not None:
            _check_time(batch, now)
    except InvalidBatchError as error:
        return ReceivedBatch(
            *headers, None, str(error), sent if len(sent) <= BODY_BYTES_MAX else sent[:BEGINNING], coding
        )
    return ReceivedBatch(*headers, batch, "", body)


def _check_time(batch: Batch, now: float) -> None:
    """Raise InvalidBatchError where a batch is of a time that no edge with a right clock counts now."""
    if batch.until > now + AHEAD_SECONDS_MAX:
        raise InvalidBatchError(["is of more than a day ahead: the clock of its edge is wrong"])
    if batch.since < now - BEHIND_SECONDS_MAX:
        raise InvalidBatchError(["is more than five years old: the clock of its edge is wrong"])


def is_small(sent: bytes, coding: str) -> bool:
    """Return whether what these bytes stand for is read in a moment, as they say themselves."""
    if coding != "zstd":
        return len(sent) <= SMALL_BYTES
    try:
        # A frame that is longer than it says ends in an error.
        return 0 <= zstandard.frame_content_size(sent) <= SMALL_BYTES
    except zstandard.ZstdError:
        return True


def inflate(sent: bytes, coding: str) -> bytes:
    """Return the uncompressed body; raises InvalidBatchError where it cannot be had, or is too large."""
    if coding == "identity":
        return sent
    if coding != "zstd":
        raise InvalidBatchError([f"has the unknown coding {coding[:20]!r}"])
    # A frame says how large it is, or not, and either may be a lie: no more is made of it than a body may have. What
    # is cut off or follows the frame shows in the hash, or changes nothing.
    reader = zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(sent, read_across_frames=False)
    try:
        body: bytes = reader.read(BODY_BYTES_MAX + 1)
    except zstandard.ZstdError as error:
        raise InvalidBatchError([f"is not zstd: {error}"]) from None
    if len(body) > BODY_BYTES_MAX:
        raise InvalidBatchError([f"is larger than {BODY_BYTES_MAX >> 20} MiB"])
    return body
