"""Reports of hosts about shared limits, and the answers of the hub.

Numbers are absolute: a host's total count in each cell or period, and its current use. So a repeated report changes
nothing, and the next report replaces a lost one. A claim is quota that a host requests before it is used. It counts
from the time the hub grants it until the host settles it, as used or as given back.
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
    """A sliding window that permits `limit` in any `cells` cells and the one after them."""

    limit: int
    cells: int
    cell: int
    """The number of the current cell."""
    changed: tuple[Cell, ...] = ()
    """The cells with new counts, or all relevant cells if the hub does not know the host."""


class Bucket(NamedTuple):
    """A leaky bucket.

    The hub reads `level` and `own` only if it does not know the host or knows another `born`, so that old counts are
    not added at once.
    """

    depth: int
    rate: float
    """The units that drain per second."""
    level: float
    """The host's estimate of the level at `now`, without `own`. It may be based on reports of other hosts."""
    own: float = 0.0
    """The host's counts since the last answer of the hub."""


class Report(NamedTuple):
    """One host's report of a rate: of a window, a bucket or both. With both, a claim must fit both."""

    key: bytes
    instance: int
    """The host's number, which its state directory stores."""
    seq: int
    """A number that increases with each report, also across restarts (start counter << 32 | n).

    The hub applies each report once, and answers repeated ones again.
    """
    born: int
    """A number that differs from earlier rows of this key. Each row's total counts begin at 0."""
    now: float
    """Edge time in seconds."""
    span: float
    """Seconds after which the counts of a host are irrelevant to others."""
    cum: int
    """The host's counts on this row since its beginning."""
    spent: int = 0
    """The total of granted claims that were settled."""
    want: int = 0
    """The claims that the host requests."""
    window: Window | None = None
    bucket: Bucket | None = None


class ReportAnswer(NamedTuple):
    """The hub's answer about a rate."""

    known: bool
    """True if the hub knew this host. If not, the host reports its whole window next."""
    hosts: int
    """The hosts that have counted within the span, including this one."""
    claims: int
    """This host's unsettled claims."""
    foreign: Mapping[int, int]
    """The counts of other hosts by cell, including their claims."""
    granted: Mapping[int, int]
    """This host's claims by the cell that granted them."""
    settled: Mapping[int, int]
    """Its settled claims by the cell that granted them."""
    level: float = 0.0
    """The number of the connection that brought the answer. Another may lead to a server that has lost some reports."""
    now: float = 0.0
    """The latest edge time that any host has reported."""
    where: int = 0
    """The number of the connection that brought the answer. Another connection may lead to a server that has lost some
    of the reports."""


class Period(NamedTuple):
    """One host's count of a quota in a calendar period. Periods are numbered in order."""

    key: bytes
    instance: int
    period: int
    amount: int


class PeriodTotal(NamedTuple):
    """The hub's answer about a quota in the reported period."""

    period: int
    others: int
    """The count of other hosts in it."""


class Gauge(NamedTuple):
    """The number in use on one host. It is valid until `until` (edge time, like `now`) or until the next report."""

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
    """The hosts with any in use."""
