"""The report of a host on a limit that hosts share, and the hub's answer.

Everything is absolute: what was counted in each cell, in each period, in use now. So a report that comes twice changes
nothing, and one that is lost is made up for by the next. What a host asks for beforehand, a claim, counts from when it
is granted until the host settles it: because it was used, and is then counted as used, or because it is given back.

`instance` is the host's own for the life of its state directory. `seq` rises with each of its reports, also from one
supervisor to the next (its start counter << 32 | n); the hub takes no report whose seq it has seen, and answers it all
the same. `born` tells a row from the one that its key had before: what a host counted ever begins anew with it.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Cell(NamedTuple):
    """One host's counts in a cell of a window, and the claims granted there that it has settled."""

    cell: int
    used: int
    settled: int


class Window(NamedTuple):
    """At most `limit` in any `cells` cells, and the one after them; `cell` is the present one.

    `changed`: the cells of which there is something new; all that count, where the hub does not know the host.
    """

    limit: int
    cells: int
    cell: int
    changed: tuple[Cell, ...] = ()


class Bucket(NamedTuple):
    """A leaky bucket of `depth`, which drains `rate` a second. `level`: what the host takes it to be at `now`, but for
    its `own`, which it has counted since the hub last answered.

    These two are looked at only where the hub does not know the host, or knows another row of it, so that what was
    counted long ago is not poured in at once: the level may be what others say too, and its own is on top of it.
    """

    depth: int
    rate: float
    level: float
    own: float = 0.0


class Report(NamedTuple):
    """One host's report of a rate: a window, a bucket, or both on one row, and claims must then suit both.

    `now`: edge time, seconds. `span`: seconds for which a host that counted matters to the others. `cum`: counted
    ever; `spent`: of the claims granted ever, those that were used or given back. `want`: claims asked for.
    """

    key: bytes
    instance: int
    seq: int
    born: int
    now: float
    span: float
    cum: int
    spent: int = 0
    want: int = 0
    window: Window | None = None
    bucket: Bucket | None = None


class ReportAnswer(NamedTuple):
    """The hub's answer about a rate. `known`: the hub knew this host; else the whole window is to be sent.

    `hosts`: that counted within the span, the asking one among them. `claims`: those of the asking host that are not
    spent. `foreign`: by cell, what others have there, claims included. `granted`, `settled`: the asking host's claims,
    by the cell in which they were granted. `level`: of the bucket, everybody's claims included, at `now`, which is the
    latest that any host has said; claims do not drain. `where`:
    over which connection it was heard; another one may lead to a server that has lost some of what was told before.
    """

    known: bool
    hosts: int
    claims: int
    foreign: Mapping[int, int]
    granted: Mapping[int, int]
    settled: Mapping[int, int]
    level: float = 0.0
    now: float = 0.0
    where: int = 0


class Period(NamedTuple):
    """One host's count of a quota in a period of the calendar; periods are numbered in their order."""

    key: bytes
    instance: int
    period: int
    amount: int


class PeriodTotal(NamedTuple):
    """The latest period that the hub knows, and the counts of other hosts in it."""

    period: int
    others: int


class Gauge(NamedTuple):
    """The number in use on one host, which holds until `until` (edge time, as `now`), unless it is said again."""

    key: bytes
    instance: int
    amount: int
    now: float
    until: float


class GaugeTotal(NamedTuple):
    """The number in use on other hosts, and how many hosts have any."""

    others: int
    hosts: int
