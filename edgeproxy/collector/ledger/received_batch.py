"""A received batch: the identity in its headers, and its decoded body. Pure."""

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
"""The largest window in bytes that a frame may request: no more than a body has."""
BEGINNING = 64 << 10
"""A body that is too large to be a batch is stored up to this many bytes."""
AHEAD_SECONDS_MAX = 86_400
"""The clock of an edge may be ahead by this many seconds.

Each month has a partition, and each query reads all future ones. Without this bound, a token could create a hundred
thousand of them.
"""
BEHIND_SECONDS_MAX = 5 * 366 * 86_400
"""A batch may have waited for this many seconds.

Each stored month also has a partition. An edge without a clock reports times of 1970, and without this bound a token
could create seven hundred partitions.
"""


class BatchHeaders(NamedTuple):
    """Batch headers: edge, seq, and the SHA-256 of the uncompressed body."""

    edge: str
    seq: int
    hash: str


class ReceivedBatch(NamedTuple):
    """A batch with valid headers. `batch` is None if it is unreadable; `why` then describes the fault.

    `body` is then as received in its `coding`, otherwise uncompressed.
    """

    edge: str
    seq: int
    hash: str
    batch: Batch | None
    why: str
    body: bytes
    coding: str = "identity"


def parse_headers(headers: Mapping[str, str]) -> BatchHeaders | str:
    """Parse the headers. Return a sentence if one is missing or invalid."""
    edge, seq, digest = (headers.get(name, "") for name in ("Edge-Id", "Edge-Seq", "Edge-Hash"))
    if not NAME.fullmatch(edge):
        return "Edge-Id is missing, or is no name"
    if not SEQ.fullmatch(seq) or int(seq) > NUMBER_MAX:
        return "Edge-Seq is missing, or is no whole number from 1"
    if not HASH.fullmatch(digest.lower()):
        return "Edge-Hash is missing, or is no SHA-256 in hex"
    return BatchHeaders(edge, int(seq), digest.lower())


def decode_batch(headers: BatchHeaders, sent: bytes, coding: str, now: float | None = None) -> ReceivedBatch:
    """Decode a batch sent in the Content-Encoding `coding`. `now`, in Unix seconds, bounds its times."""
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
    """Raise InvalidBatchError if an edge with a correct clock could not have sent these times now."""
    if batch.until > now + AHEAD_SECONDS_MAX:
        raise InvalidBatchError(["is of more than a day ahead: the clock of its edge is wrong"])
    if batch.since < now - BEHIND_SECONDS_MAX:
        raise InvalidBatchError(["is more than five years old: the clock of its edge is wrong"])


def is_small(sent: bytes, coding: str) -> bool:
    """Return whether the body is small, by its own statement, so that parsing takes only a moment."""
    if coding != "zstd":
        return len(sent) <= SMALL_BYTES
    try:
        # A frame that is longer than stated ends in an error.
        return 0 <= zstandard.frame_content_size(sent) <= SMALL_BYTES
    except zstandard.ZstdError:
        return True


def inflate(sent: bytes, coding: str) -> bytes:
    """Return the uncompressed body. Raises InvalidBatchError if it is invalid or too large."""
    if coding == "identity":
        return sent
    if coding != "zstd":
        raise InvalidBatchError([f"has the unknown coding {coding[:20]!r}"])
    # A frame may state its size or not, and the size may be wrong, so at most the allowed size is decompressed. The
    # hash reveals truncated data; data after the frame changes nothing.
    reader = zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(sent, read_across_frames=False)
    try:
        body: bytes = reader.read(BODY_BYTES_MAX + 1)
    except zstandard.ZstdError as error:
        raise InvalidBatchError([f"is not zstd: {error}"]) from None
    if len(body) > BODY_BYTES_MAX:
        raise InvalidBatchError([f"is larger than {BODY_BYTES_MAX >> 20} MiB"])
    return body
