"""Batches in quarantine as the API shows them."""

from typing import Literal

from typing_extensions import TypedDict

from edgeproxy.collector.api.endpoint import Query


class QuarantineQuery(Query):
    """The edge whose batches are listed."""

    edge: str | None = None
    """Only batches of this edge, by id."""


class QuarantineEntry(TypedDict):
    """A batch in quarantine, in the list of all."""

    edge: str
    """The id of the edge."""
    seq: int
    """The number of the batch."""
    received: str
    """The time when the batch arrived."""
    size: int
    """The size of the stored body in bytes."""
    coding: str
    """The content coding of the stored body, such as `zstd`."""
    why: str
    """The reason why it could not be read."""


class QuarantineList(TypedDict):
    """The batches in quarantine."""

    count: int
    """The number of batches in quarantine."""
    batches: list[QuarantineEntry]
    """The first of these batches, by edge and number."""


class QuarantinedBatch(TypedDict):
    """A batch in quarantine, with its details."""

    edge: str
    """The id of the edge."""
    seq: int
    """The number of the batch."""
    state: Literal["quarantined", "counted"]
    """`quarantined`, or `counted` after a replay."""
    why: str
    """The reason why it could not be read."""
    hash: str
    """The hash of the batch in the edge's chain, in hex digits."""
    sha256: str
    """The SHA-256 of the uncompressed body, in hex digits."""
    prev: str | None
    """The hash of the batch before it. A body sent for a replay must name it; null if any hash will do."""
    received: str
    """The time when the batch arrived."""
    coding: str
    """The content coding of the stored body, such as `zstd`."""
    size: int
    """The size of the stored body in bytes."""
    begins: str
    """The first bytes of the uncompressed body, as text."""


class BatchReplayResult(TypedDict):
    """The rows of a replayed batch."""

    rows: int
    """The number of rows counted."""
    total: int
    """The sum of the values of these rows, in the units of their meters."""
    minute: str
    """The start of the minute that the rows are counted in."""
    again: bool
    """True if the batch had been counted before, so that nothing changed."""
