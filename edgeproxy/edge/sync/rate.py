"""A rate in use on this host, from its row in the map: the counts there, and the hub's answers about it.

Read from the map: the counts of all columns, and the claims that they want and have spent. Written into it: the hub's
column, the claims granted, and how much may be counted before the hub must be asked, or should get a report. plan.py
computes the second from the first; shared.py decides when. No I/O. Times are edge time in seconds.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from edgeproxy.edge.counters import claims
from edgeproxy.edge.counters.cells import CELLS_AHEAD, cell_number
from edgeproxy.edge.counters.hub_column import NEVER, HubColumn, OnLoss
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.levels import compute_level, compute_scale
from edgeproxy.edge.limits.rate_terms import RateTerms
from edgeproxy.edge.sync.plan import (
    COLD_SECONDS,
    COUNTS_PER_REPORT_MAX,
    HostCounts,
    RatePlan,
    compute_host_share,
    compute_report_threshold,
)
from edgeproxy.hub.report import Report, ReportAnswer

LATELY_SECONDS = 0.25
"""The rate of requests is measured over these seconds."""
GOOD_SECONDS = COLD_SECONDS
"""An answer of the hub is good for these seconds."""


class WithheldLevel(NamedTuple):
    """The state of a bucket while the hub is away: its real level, the count ever at that moment, and the amount still
    to be poured in for the other hosts.
    """

    level: float
    cum: int
    at: float
    owed: float

    def compute_level(self, now: float, cum: int, rate: float) -> float:
        """Return the level now, without the amounts poured in for others."""
        return max(0.0, self.level - (now - self.at) * rate) + cum - self.cum


class HostRate:
    """A rate in use. `row`: the first word of its row; `generation`: the row's, while it belongs to this rate.

    It continues with the data that a previous supervisor left in the map.
    """

    __slots__ = (
        "_cells",
        "_cells_of",
        "_counts",
        "_foreign",
        "_hold_terms",
        "_hub",
        "_table",
        "_width",
        "_withheld",
        "generation",
        "given_at",
        "held",
        "plan",
        "refused",
        "row",
    )

    def __init__(self, table: LimitTable, row: int, generation: int, terms: RateTerms, now: float) -> None:
        assert table.hub is not None
        self._table = table
        self._hub: HubColumn = table.hub
        self.row = row
        self.generation = generation
        self._width = table.cell_width(row)
        """Microseconds of a cell."""
        born = table.born(row) << 10 | generation & 0x3FF
        self.plan = RatePlan(table.stored_key(row), terms, born, width=self._width / 1e6)
        heads = table.heads(row)
        self.plan.claims = heads.given
        self.plan.spent = heads.spent
        self.plan.acknowledged = table.acknowledged(row)
        self.plan.others = heads.counted_elsewhere
        self.refused = False
        """True if a request was refused since the last report."""
        self.given_at = now
        """When claims were last granted."""
        self.held: int | None = None
        """This host's part while the hub is away."""
        self._hold_terms: tuple[OnLoss, RateTerms] | None = None
        """The settings that `held` was computed from."""
        self._cells: dict[int, int] = {}
        """Count in each cell, as of the sum of all counts and the cell in `_cells_of`."""
        self._cells_of = (-1, -1)
        self._foreign: Mapping[int, int] | None = None
        """The cells of the hub's column; None: they must be read from the map."""
        self._withheld: WithheldLevel | None = None
        self._counts: list[tuple[float, int]] = []

    @property
    def is_there(self) -> bool:
        """True if the row still belongs to this rate."""
        return self._table.has(self.row, self.generation)

    @property
    def has_claims(self) -> bool:
        """True if workers have claims, or want some."""
        return self._table.heads(self.row).has_claims

    # ---- counts

    def read_counts(self, now: float) -> HostCounts:
        """Return this host's counts, including the counts in older files."""
        table, row, terms = self._table, self.row, self.plan.terms
        heads = table.heads(row)
        cum = heads.counted
        cells: Mapping[int, int] = {}
        left = terms.most
        if terms.cells:
            cell = cell_number(now, self._width)
            if self._cells_of != (cum, cell):
                # A count is in its cell before it is in the sum of all counts ever made.
                self._cells, self._cells_of = table.own_counts(row, cell), (cum, cell)
            cells = self._cells
            if self._foreign is None:
                self._foreign = self._hub.counts(row, cell)
            left = terms.limit - sum(cells.values())
            if self._foreign:
                oldest, latest = max(1, cell - table.layout.cells), cell + CELLS_AHEAD
                left -= sum([count for of, count in self._foreign.items() if oldest <= of <= latest])
        level = 0.0
        if terms.depth:
            level = compute_level(heads.each, heads.width, now, terms.rate, compute_scale(self._width)).level
            left = min(left, int(terms.depth - level)) if terms.cells else int(terms.depth - level)
        return HostCounts(
            cells, cum, left, heads.spent, heads.waiting, self.refused, self._measure_rate(now, cum), level
        )

    def _measure_rate(self, now: float, cum: int) -> float:
        """Return the counts a second over the last LATELY_SECONDS."""
        counts = self._counts
        if not counts or cum != counts[-1][1]:
            counts.append((now, cum))
        while len(counts) > 2 and counts[1][0] < now - LATELY_SECONDS:
            counts.pop(0)
        before, then = counts[0]
        return (cum - then) / max(LATELY_SECONDS, now - before)

    def build_report(self, now: float, instance: int, seq: int, counted: HostCounts, tick: float) -> Report:
        """Build the report to send now. `tick`: seconds until the next report, unless something makes it due before."""
        self.refused = False
        if self._withheld is not None:
            level = self._withheld.compute_level(now, counted.cum, self.plan.terms.rate)
            counted = counted._replace(level=level)
        return self.plan.build_report(now, cell_number(now, self._width), instance, seq, counted, tick)

    # ---- the hub's answers

    def apply_answer(self, now: float, seq: int, answer: ReportAnswer) -> tuple[int, HostCounts]:
        """Write an answer into the map. Return how many claims it grants, and the present counts."""
        cell = cell_number(now, self._width)
        granted = self.plan.apply_answer(now, cell, seq, answer)
        self.end_hold(now)
        self._withheld = None
        if granted:
            self.given_at = now
            claims.grant_claims(self._table, self.row, granted)
        return granted, self._write_others(now)

    @property
    def is_withholding(self) -> bool:
        """True if the hub's column has counts for others that no host is known to have used."""
        return self._hub.withheld(self.row) > 0

    def rewrite_withheld(self, now: float) -> None:
        """Write the amount kept for other hosts again, because no report of this row is due for now."""
        self._write_others(now)

    def _write_others(self, now: float) -> HostCounts:
        """Write the counts of others, and the amount kept for hosts that may return. Return the counts."""
        foreign, cell = self.plan.foreign, cell_number(now, self._width)
        withheld = self.plan.compute_withheld(now) if self.plan.terms.cells else 0
        if withheld:
            foreign = {**foreign, cell: foreign.get(cell, 0) + withheld}
        return self._write_column(now, foreign, withheld)

    def _write_column(self, now: float, foreign: Mapping[int, int], withheld: int) -> HostCounts:
        """Write the hub's column and the allowance of its answer. Return the row's counts after that.

        `withheld`: the part of the column that is kept for other hosts.
        """
        hub, row, plan = self._hub, self.row, self.plan
        hub.write_counts(row, cell_number(now, self._width), foreign)
        self._foreign = foreign
        self._table.acknowledge(row, plan.acknowledged)
        hub.withhold(row, withheld)
        if plan.terms.depth and self.held is None:
            level, moment = plan.level
            scale = compute_scale(self._width)
            tick = int(moment * scale.ticks)
            # Written as of that tick: a reader subtracts the drain since then.
            level += (moment - tick / scale.ticks) * plan.terms.rate
            hub.write_level(row, tick << scale.bits | scale.pack(level), plan.acknowledged + plan.others)
        hub.write_total(row, plan.others)
        counted = self.read_counts(now)
        self._write_allowance(now, counted.left)
        # Last, because it makes workers read the row.
        self._table.notify_readers(row)
        return counted

    def _write_allowance(self, now: float, left: int) -> None:
        """Write how much may be counted before the hub must be asked, and before it should get a report."""
        hub, row, plan = self._hub, self.row, self.plan
        vain_until = plan.no_use_until
        if self.held is None:
            ask = plan.compute_claim_threshold(now, left)
            allowed = NEVER if ask is None else max(0, ask - plan.acknowledged)
            hub.allow(row, allowed, compute_report_threshold(plan.terms.most, left, plan.count_users(now)))
        elif self.held:
            # The hub has just not answered, so no request should wait for it.
            hub.hold(row)
        else:
            # Not even the apparent rest of a bucket passes until it is filled again.
            hub.shut(row)
            vain_until = now + GOOD_SECONDS
        hub.write_useless_until(row, vain_until if vain_until > now else 0.0)
        self.keep_warm(now)

    def keep_warm(self, now: float) -> None:
        """Keep workers from reporting their use while an answer is good."""
        self._hub.write_warm_until(self.row, now + GOOD_SECONDS)

    # ---- the hub is away

    def hold(self, now: float, hosts: int, on_loss: OnLoss) -> None:
        """Limit the rate to this host's part. Call it repeatedly: buckets drain, and windows move on."""
        terms = self.plan.terms
        is_other = self.held is not None and self._hold_terms != (on_loss, terms)
        is_forgotten = False
        if is_other or (self.held is None and on_loss == "full" and self.is_withholding):
            # The settings have changed since.
            is_forgotten = self._release_hold(now)
        self._hold_terms = on_loss, terms
        counted = self.read_counts(now)
        own = sum(counted.cells.values())
        foreign = max(0, terms.limit - own - counted.left) if terms.cells else 0
        if self.held is None:
            # Since the last answer nothing is known of other hosts; by the present counts, each would get the greater
            # part. Counts made at this very moment were in the cells before they were in any sum, so the sum is read
            # once more.
            known = self.plan.acknowledged
            own = max(0, min(known, own - max(0, self._table.heads(self.row).counted - known)))
            self.held = compute_host_share(terms, hosts, 0 if is_forgotten else own, foreign, on_loss)
        if on_loss == "full" and terms.mode != "strict":
            self._write_allowance(now, counted.left)
        else:
            theirs = max(0, terms.limit - terms.limit * self.held // terms.most)
            withheld = theirs if terms.cells else 0
            if terms.depth:
                poured = self._pour_for_others(now, counted, 1 - self.held / terms.most)
                self.plan.others += poured
                if not terms.cells and self._withheld is not None:
                    withheld = max(0, math.ceil(counted.level + poured - self._withheld.level))
            self._write_column(now, {cell_number(now, self._width): theirs} if terms.cells else {}, withheld)

    def _release_hold(self, now: float) -> bool:
        """Stop limiting the rate to a part, and use the last answer. Return whether there never was one.

        Without an answer, the level of a bucket without a window is taken without the amounts poured in for others.
        """
        plan, never = self.plan, self.plan.answered_at < 0
        if never and plan.terms.depth:
            withheld = 0 if plan.terms.cells else self._hub.withheld(self.row)
            plan.level = max(0.0, self.read_counts(now).level - withheld), now
        self.held = self._withheld = None
        plan.others += COUNTS_PER_REPORT_MAX
        self._write_column(now, plan.foreign, 0)
        return never

    def _pour_for_others(self, now: float, counted: HostCounts, theirs: float) -> int:
        """Return how much to pour into a bucket for the other hosts, whose part is `theirs`, while the hub is away.

        It is their part of the rest when the hub was lost, and then of the drain; at least this amount always stays in
        the bucket. Whole tokens; fractions are poured in later.
        """
        depth, rate = self.plan.terms.depth, self.plan.terms.rate
        before, level = self._withheld, counted.level
        if before is None:
            owed = theirs * (depth - level)
        else:
            owed = max(before.owed + theirs * rate * (now - before.at), theirs * depth - level)
            level = before.compute_level(now, counted.cum, rate)
        poured = max(0, int(owed))
        self._withheld = WithheldLevel(level, counted.cum, now, owed - poured)
        return poured

    def end_hold(self, now: float) -> None:
        """Stop limiting the rate to this host's part, after other hosts had time to return too."""
        if self.held:
            self.plan.resume(now, self.held)
        self.held = None
