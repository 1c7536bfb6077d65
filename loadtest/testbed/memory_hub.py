"""A hub in this process's memory: the exact reference for the scripts, and the hub of simulations."""

import math
from collections.abc import Iterable

from edgeproxy.hub.calls import JUMP_SECONDS, KEY_RETENTION_SECONDS
from edgeproxy.hub.report import Bucket, Gauge, GaugeTotal, Period, PeriodTotal, Report, ReportAnswer, Window

BEHIND = 2
"""Cells below a window that are stored, for hosts whose clocks are behind."""
FORGOTTEN = 60.0
"""Seconds that a silent host is remembered beyond its span."""


class Host:
    """The hub's state of one host on one rate."""

    def __init__(self, born: int, spent: int) -> None:
        self.seq = 0
        self.born = born
        self.cum = 0
        # A hub that lost its state granted the host's claims. They count when they are used.
        self.spent = self.claims = spent
        self.used: dict[int, int] = {}
        self.settled: dict[int, int] = {}
        self.granted: dict[int, int] = {}

    def holds(self, cell: int) -> int:
        """Return this host's part of a cell's total."""
        return self.used.get(cell, 0) + self.granted.get(cell, 0) - self.settled.get(cell, 0)

    def prune(self, lowest: int) -> None:
        """Forget the cells below."""
        for cells in (self.used, self.settled, self.granted):
            for cell in [cell for cell in cells if cell < lowest]:
                del cells[cell]


class Rate:
    """The hub's state of one rate."""

    def __init__(self) -> None:
        self.totals: dict[int, int] = {}
        self.seen: dict[int, float] = {}
        """By host, the edge time of its last report."""
        self.level = 0.0
        self.now = 0.0
        self.in_hand: dict[int, int] = {}
        """By host, unspent claims on the bucket. They do not drain; used claims drain from then on."""


class Memory:
    """A hub. `forget` empties it, as FLUSHALL would."""

    def __init__(self) -> None:
        self._rates: dict[bytes, Rate] = {}
        self._hosts: dict[tuple[bytes, int], Host] = {}
        self._periods: dict[tuple[bytes, int], dict[int, int]] = {}
        self._gauges: dict[bytes, dict[int, tuple[int, float]]] = {}

    def forget(self) -> None:
        """Drop all state."""
        self._rates.clear()
        self._hosts.clear()
        self._periods.clear()
        self._gauges.clear()

    def period(self, said: Period) -> PeriodTotal:
        """Record the counts of a period."""
        counts = self._periods.setdefault((said.key, said.period), {})
        counts[said.instance] = said.amount
        return PeriodTotal(said.period, sum(count for of, count in counts.items() if of != said.instance))

    def gauge(self, said: Gauge) -> GaugeTotal:
        """Record a host's slots in use."""
        gauges = self._gauges.setdefault(said.key, {})
        gauges[said.instance] = said.amount, said.until
        latest = said.now + math.ceil(said.until - said.now) + KEY_RETENTION_SECONDS
        for of in [of for of, (count, until) in gauges.items() if not count or not said.now <= until <= latest]:
            del gauges[of]
        return GaugeTotal(sum(count for of, (count, _) in gauges.items() if of != said.instance), len(gauges))

    def report(self, said: Report) -> ReportAnswer:
        """Record a report and return the answer."""
        rate = self._rates.setdefault(said.key, Rate())
        host = self._hosts.get((said.key, said.instance))
        known = host is not None
        if host is None:
            host = self._hosts[said.key, said.instance] = Host(said.born, said.spent)
        if rate.now > said.now + JUMP_SECONDS:
            rate.now = said.now
        now = max(rate.now, said.now)
        if said.bucket is not None:
            rate.level = max(sum(rate.in_hand.values()), rate.level - (now - rate.now) * said.bucket.rate)
        rate.now = now
        if said.window is not None:
            lowest = said.window.cell - said.window.cells - BEHIND
            for cell in [cell for cell in rate.totals if cell < lowest]:
                del rate.totals[cell]
            host.prune(lowest)
        if said.seq > host.seq:
            self._take(said, rate, host, known)
        for other in [other for other, at in rate.seen.items() if at < now - said.span - FORGOTTEN]:
            del rate.seen[other]
            rate.in_hand.pop(other, None)
        return _told(said, rate, host, known)

    def _take(self, said: Report, rate: Rate, host: Host, known: bool) -> None:
        """Add new counts, and grant claims if there is room."""
        goes_on = known and said.born == host.born
        if said.born != host.born:
            host.born, host.cum, host.spent, host.claims = said.born, 0, said.spent, said.spent
        if said.window is not None:
            for cell, used, settled in said.window.changed:
                if cell >= said.window.cell - said.window.cells - BEHIND:
                    more = max(0, used - host.used.get(cell, 0))
                    less = max(0, min(settled, host.granted.get(cell, 0)) - host.settled.get(cell, 0))
                    rate.totals[cell] = rate.totals.get(cell, 0) + more - less
                    host.used[cell] = host.used.get(cell, 0) + more
                    host.settled[cell] = host.settled.get(cell, 0) + less
        spent = min(said.spent, host.claims)
        if said.bucket is not None:
            if goes_on:
                poured = max(0, said.cum - host.cum) - max(0, spent - host.spent)
                rate.level = max(0.0, rate.level + poured)
            else:
                rate.level = max(rate.level, said.bucket.level) + said.bucket.own
        host.cum, host.spent = max(host.cum, said.cum), max(host.spent, spent)
        granted = min(said.want, *_rooms(said, rate)) if said.want else 0
        if granted > 0:
            host.claims += granted
            if said.window is not None:
                cell = said.window.cell
                rate.totals[cell] = rate.totals.get(cell, 0) + granted
                host.granted[cell] = host.granted.get(cell, 0) + granted
            rate.level += granted if said.bucket is not None else 0
        if said.bucket is not None:
            rate.in_hand[said.instance] = host.claims - host.spent
        host.seq = said.seq
        rate.seen[said.instance] = said.now


def _rooms(said: Report, rate: Rate) -> Iterable[int]:
    """Yield how many claims fit into the window, and into the bucket."""
    window: Window | None = said.window
    if window is not None:
        yield window.limit - sum(n for cell, n in rate.totals.items() if abs(cell - window.cell) <= window.cells)
    bucket: Bucket | None = said.bucket
    if bucket is not None:
        yield int(bucket.depth - rate.level)


def _told(said: Report, rate: Rate, host: Host, known: bool) -> ReportAnswer:
    foreign: dict[int, int] = {}
    if said.window is not None:
        cell, cells = said.window.cell, said.window.cells
        held = {of: total - host.holds(of) for of, total in rate.totals.items() if abs(of - cell) <= cells}
        foreign = {cell: count for cell, count in held.items() if count > 0}
    hosts = sum(at >= rate.now - said.span for at in rate.seen.values())
    granted, settled = dict(host.granted), dict(host.settled)
    return ReportAnswer(known, hosts, host.claims - host.spent, foreign, granted, settled, rate.level, rate.now)
