"""Reports of hosts about limits that they share, and the answers of the hub.

Numbers are absolute: what a host has counted in each cell or period, and what it has in use now. So a report that
arrives twice changes nothing, and the next report makes up for a lost one. A claim is quota that a host asks for before
it is used. It counts from when the hub grants it until the host settles it, as used or as given back.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Cell(NamedTuple):
    """One host's counts in a cell of a window."""

    cell: int
    used: int
    settled: int
    """The claims granted in this cell that the host has settled."""


class Window(NamedTuple):
    """A sliding window that admits `limit` in any `cells` cells and the one after them."""

    limit: int
    cells: int
    cell: int
    """The number of the present cell."""
    changed: tuple[Cell, ...] = ()
    """The cells with new counts; all cells that count where the hub does not know the host."""


class Bucket(NamedTuple):
    """A leaky bucket. The hub reads `level` and `own` only where it does not know the host, or knows it by another
    `born`, so that what was counted long ago is not added at once.
    """

    depth: int
    rate: float
    """The units that drain in a second."""
    level: float
    """The level at `now` as the host estimates it, without `own`. It may come from what other hosts reported."""
    own: float = 0.0
    """The host's counts since the hub last answered."""


class Report(NamedTuple):
    """One host's report of a rate: of a window, of a bucket, or of both, and then a claim must fit both."""

    key: bytes
    instance: int
    """The host's number, for the life of its state directory."""
    seq: int
    """Rises with each report, also across restarts (start counter << 32 | n). The hub applies each once, and answers
    a repeated one all the same."""
    born: int
    """Tells a row from an earlier one of the same key: what a host has ever counted begins at 0 with each."""
    now: float
    """Edge time in seconds."""
    span: float
    """Seconds for which a host that has counted matters to the others."""
    cum: int
    """The host's counts on this row since its beginning."""
    spent: int = 0
    """The granted claims that were ever settled."""
    want: int = 0
    """The claims that the host asks for."""
    window: Window | None = None
    bucket: Bucket | None = None


class ReportAnswer(NamedTuple):
    """The hub's answer about a rate."""

    known: bool
    """Whether the hub knew this host; if not, the host reports its whole window next."""
    hosts: int
    """The hosts that have counted within the span, this one included."""
    claims: int
    """This host's claims that are not settled."""
    foreign: Mapping[int, int]
    """By cell, what other hosts have there, claims included."""
    granted: Mapping[int, int]
    """This host's claims by the cell in which they were granted."""
    settled: Mapping[int, int]
    """Its settled claims by the cell in which they were granted."""
    level: float = 0.0
    """The level of the bucket at `now`, with the claims of all hosts; claims do not drain."""
    now: float = 0.0
    """The latest edge time that any host has reported."""
    where: int = 0
    """The number of the connection that brought the answer. Another connection may lead to a server that has lost some
    of the reports."""


class Period(NamedTuple):
    """One host's count of a quota in a period of the calendar; periods are numbered in their order."""

    key: bytes
    instance: int
    period: int
    amount: int


class PeriodTotal(NamedTuple):
    """The hub's answer about a quota in the period that was reported."""

    period: int
    others: int
    """The count of other hosts in it."""


class Gauge(NamedTuple):
    """The number in use on one host. It counts until `until` (edge time, as `now`), or until the next report."""

    key: bytes
    instance: int
    amount: int
    now: float
    until: float


class GaugeTotal(NamedTuple):
    """The hub's answer about a number in use."""

    others: int
    """The number in use on other hosts."""
    hosts: int
    """The hosts that have any in use."""
