"""A rate in use on this host, as the map has it: what was counted in its row, and what the hub said of it.

Read from the map: what all columns have counted, how many claims they want and have spent. Written into it: the hub's
column, the claims given, and how much may be counted before the hub has to be asked, or should be told. What follows
from the one for the other, plan.py says; when it is done, shared.py. No I/O. Times are edge time in seconds.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from edgeproxy.counters import layout as at
from edgeproxy.counters.cells import MASK, SHIFT, bounds, cell_number
from edgeproxy.counters.rows import LimitTable, milliseconds
from edgeproxy.hub.report import Report, Told
from edgeproxy.limits.gate import HELD, NEVER
from edgeproxy.limits.levels import level_in, scale_of
from edgeproxy.sync.plan import AFRESH, COLD, Counted, OnLoss, Plan, RateTerms, held_to, worth_telling

LATELY = 0.25
"""Seconds over which it is seen how many requests come."""
GOOD = COLD
"""Seconds for which an answer is good."""
ON_LOSS: Mapping[OnLoss, int] = {"full": at.FULL, "share": at.SHARE, "deny": at.DENY}
"""As the header of a table says it."""


class Parts:
    """A table with a column of the hub, and where in each of its rows the parts are that are read or written here."""

    __slots__ = ("first_ring", "heads", "heads_end", "hub", "layout", "stride", "table", "theirs", "words")

    def __init__(self, table: LimitTable) -> None:
        layout, hub = table.layout, table.layout.hub
        assert hub is not None
        self.table, self.words, self.layout = table, table.words, layout
        self.stride = layout.width
        """Words of a head."""
        self.first_ring, self.theirs = at.FOREIGN, layout.rings + layout.ring * hub
        """Where the rings begin, with the foreign column's, and where that of the hub does."""
        self.heads, self.hub, self.heads_end = layout.heads, layout.head(hub), layout.head(layout.columns)
        """Where the heads begin, with the foreign column's, where that of the hub does, and what comes after them."""


class Withheld(NamedTuple):
    """Of a bucket, while the hub is away: what really is in it, with so much ever counted, as of when; and how much is
    still to be poured in for the other hosts."""

    level: float
    cum: int
    at: float
    owed: float

    def level_now(self, now: float, cum: int, rate: float) -> float:
        """What is in it now, nothing of it for others."""
        return max(0.0, self.level - (now - self.at) * rate) + cum - self.cum


class Rate:
    """A rate in use. `row`: the word at which its row begins; `generation`: that of the row, while it is this rate's.

    What is in the map of a supervisor before this one goes on.
    """

    __slots__ = (
        "_cells",
        "_cells_of",
        "_counts",
        "_foreign",
        "_held_by",
        "_parts",
        "_width",
        "_withheld",
        "generation",
        "given_at",
        "held",
        "plan",
        "refused",
        "row",
    )

    def __init__(self, parts: Parts, row: int, generation: int, terms: RateTerms, now: float) -> None:
        words, stride = parts.words, parts.stride
        self._parts = parts
        self.row = row
        self.generation = generation
        self._width = words[row + at.ROW_WIDTH]
        """Microseconds of a cell."""
        born = words[row + at.ROW_BORN] << 10 | generation & 0x3FF
        self.plan = Plan(parts.table.stored_key(row), terms, born, width=self._width / 1e6)
        heads = words[row + parts.heads + stride : row + parts.heads_end].tolist()
        self.plan.claims = sum(heads[at.GIVEN : -stride : stride])
        self.plan.spent = sum(heads[at.USED : -stride : stride])
        self.plan.acknowledged = words[row + at.ROW_ACKNOWLEDGED]
        self.plan.others = heads[-stride + at.CUM]
        self.refused = False
        """Something was, since the last report."""
        self.given_at = now
        """When claims were last given."""
        self.held: int | None = None
        """What this host may use while the hub is away."""
        self._held_by: tuple[OnLoss, RateTerms] | None = None
        """What that goes by."""
        self._cells: dict[int, int] = {}
        """What was counted in each cell, as of this sum of all counts, and this present cell."""
        self._cells_of = (-1, -1)
        self._foreign: Mapping[int, int] | None = None
        """What stands in the hub's column; None: it has to be looked up."""
        self._withheld: Withheld | None = None
        self._counts: list[tuple[float, int]] = []

    @property
    def is_there(self) -> bool:
        """Whether the row is this rate's still."""
        return self._parts.words[self.row + at.ROW_GENERATION] == self.generation

    @property
    def has_claims(self) -> bool:
        """Whether claims are in columns, or wanted there."""
        parts, stride = self._parts, self._parts.stride
        heads = parts.words[self.row + parts.heads + stride : self.row + parts.heads_end].tolist()
        want, used, given = [heads[word:-stride:stride] for word in (at.WANT, at.USED, at.GIVEN)]
        return used != given or any(some > has for some, has in zip(want, given, strict=True))

    # ---- what is counted

    def counted(self, now: float) -> Counted:
        """What this host has counted, older files' counts among it."""
        parts, row, terms = self._parts, self.row, self.plan.terms
        words, stride = parts.words, parts.stride
        heads = words[row + parts.heads : row + parts.heads_end].tolist()
        cum = sum(heads[at.CUM : -stride : stride])
        given, wanted = heads[stride + at.GIVEN : -stride : stride], heads[stride + at.WANT : -stride : stride]
        spent = sum(heads[stride + at.USED : -stride : stride])
        waiting = 0
        if wanted != given:
            waiting = sum([max(0, want - has) for want, has in zip(wanted, given, strict=True)])
        cells: Mapping[int, int] = {}
        left = terms.most
        if terms.cells:
            cell = cell_number(now, self._width)
            low, high = bounds(cell, parts.layout.cells)
            cells = self._cells
            if self._cells_of != (cum, cell):
                # A count is in its cell before it is in the sum of all that was ever counted.
                cells = {}
                for word in words[row + parts.first_ring : row + parts.theirs].tolist():
                    if low <= word < high:
                        cells[word >> SHIFT] = cells.get(word >> SHIFT, 0) + (word & MASK)
                self._cells, self._cells_of = cells, (cum, cell)
            if self._foreign is None:
                theirs = words[row + parts.theirs : row + parts.heads].tolist()
                self._foreign = {word >> SHIFT: word & MASK for word in theirs if low <= word < high}
            left = terms.limit - sum(cells.values())
            if self._foreign:
                left -= sum([count for of, count in self._foreign.items() if low <= of << SHIFT < high])
        level = 0.0
        if terms.depth:
            level = level_in(heads, stride, now, terms.rate, scale_of(self._width)).level
            left = min(left, int(terms.depth - level)) if terms.cells else int(terms.depth - level)
        return Counted(cells, cum, left, spent, waiting, self.refused, self._lately(now, cum), level)

    def _lately(self, now: float, cum: int) -> float:
        """Requests a second over the last moments."""
        counts = self._counts
        if not counts or cum != counts[-1][1]:
            counts.append((now, cum))
        while len(counts) > 2 and counts[1][0] < now - LATELY:
            counts.pop(0)
        before, then = counts[0]
        return (cum - then) / max(LATELY, now - before)

    def report(self, now: float, instance: int, seq: int, counted: Counted, tick: float) -> Report:
        """What to tell the hub of it. `tick`: seconds until the next report, unless something makes it due before."""
        self.refused = False
        if self._withheld is not None:
            level = self._withheld.level_now(now, counted.cum, self.plan.terms.rate)
            counted = counted._replace(level=level)
        return self.plan.report(now, cell_number(now, self._width), instance, seq, counted, tick)

    # ---- what the hub says

    def answer(self, now: float, seq: int, told: Told) -> tuple[int, Counted]:
        """Write an answer into the map; returns how many claims it grants, and what is counted now."""
        cell = cell_number(now, self._width)
        granted = self.plan.answer(now, cell, seq, told)
        self.let_go(now)
        self._withheld = None
        if granted:
            self._give(granted, now)
        return granted, self._write_others(now)

    @property
    def withholds(self) -> bool:
        """Whether something stands in the hub's column for others that nobody is known to have used."""
        return self._parts.words[self.row + self._parts.hub + at.WITHHELD] > 0

    def withhold(self, now: float) -> None:
        """Nothing more is heard of it for now: see that no more stands there for others than should by now."""
        self._write_others(now)

    def _write_others(self, now: float) -> Counted:
        """What is known of others, and what is kept for those who may still come back; returns what is counted."""
        foreign, cell = self.plan.foreign, cell_number(now, self._width)
        withheld = self.plan.withheld(now) if self.plan.terms.cells else 0
        if withheld:
            foreign = {**foreign, cell: foreign.get(cell, 0) + withheld}
        return self._write(now, foreign, withheld)

    def _give(self, granted: int, now: float) -> None:
        """Claims go to the columns that wait for them; what is left over to the first of those, for who comes next."""
        self.given_at = now
        words, layout = self._parts.words, self._parts.layout
        heads = [self.row + layout.head(column) for column in range(layout.columns - 1)]
        wanting = [head for head in heads if words[head + at.WANT] > words[head + at.GIVEN]]
        for head in wanting:
            some = min(granted, words[head + at.WANT] - words[head + at.GIVEN])
            words[head + at.GIVEN] += some
            granted -= some
        if granted:
            # Nobody waits any more, or more will come before the next answer does. Unused ones are given back.
            head = (wanting or [max(heads, key=lambda head: words[head + at.CUM])])[0]
            words[head + at.GIVEN] += granted

    def _write(self, now: float, foreign: Mapping[int, int], withheld: int) -> Counted:
        """The hub's column, and what its answer allows; what is counted in the row then. `withheld`: of what stands in
        the column, for other hosts."""
        parts, row, plan = self._parts, self.row, self.plan
        words, layout = parts.words, parts.layout
        hub, ring = row + parts.hub, row + parts.theirs
        there = words[ring : ring + layout.ring].tolist()
        if foreign or any(there):
            # Those far ahead are of a clock that was wrong; they would take the places of others.
            lowest = cell_number(now, self._width) - layout.cells
            cells = range(lowest, lowest + layout.ring)
            by_slot = {of % layout.ring: of << SHIFT | min(foreign[of], MASK) for of in foreign if of in cells}
            for slot, word in enumerate(there):
                if (wanted := by_slot.get(slot, 0)) != word:
                    words[ring + slot] = wanted
        self._foreign = foreign
        words[row + at.ROW_ACKNOWLEDGED] = plan.acknowledged
        words[hub + at.WITHHELD] = withheld
        if plan.terms.depth and self.held is None:
            level, moment = plan.level
            scale = scale_of(self._width)
            tick = int(moment * scale.ticks)
            # As it would have been at that tick: a reader takes off what has drained since then.
            level += (moment - tick / scale.ticks) * plan.terms.rate
            words[hub + at.LEVEL] = tick << scale.bits | scale.packed(level)
            words[hub + at.SEEN_CUM] = plan.acknowledged + plan.others
        # After the level that knows of it: else it would seem to be on top of that.
        words[hub + at.CUM] = plan.others
        counted = self.counted(now)
        self._allow(now, counted.left)
        # Last, for it is what makes workers look.
        words[row + at.ROW_SYNC] += 1
        return counted

    def _allow(self, now: float, left: int) -> None:
        """How much may be counted before the hub has to be asked, and before it should be told."""
        words, plan, hub = self._parts.words, self.plan, self.row + self._parts.hub
        no_use_until = plan.no_use_until
        if self.held is None:
            ask = plan.ask_from(now, left)
            allowed = NEVER if ask is None else min(NEVER, max(0, ask - plan.acknowledged))
            worth = worth_telling(plan.terms.most, left, plan.users(now))
            words[hub + at.THRESHOLDS] = allowed << 32 | min(worth, NEVER)
        elif self.held:
            # Of what has just not answered nobody is to wait for an answer.
            words[hub + at.THRESHOLDS] = HELD
        else:
            # Not even what a bucket seems to have until it is filled again.
            words[hub + at.THRESHOLDS] = 0
            no_use_until = now + GOOD
        words[hub + at.NO_USE_UNTIL] = milliseconds(no_use_until) if no_use_until > now else 0
        self.keep_warm(now)

    def keep_warm(self, now: float) -> None:
        """Workers need not say that they use it, for as long as an answer is good."""
        self._parts.words[self.row + self._parts.hub + at.WARM_UNTIL] = milliseconds(now + GOOD)

    # ---- the hub is away

    def hold(self, now: float, hosts: int, on_loss: OnLoss) -> None:
        """Hold it to this host's part. Call it again and again: buckets drain, and windows move on."""
        terms = self.plan.terms
        is_other = self.held is not None and self._held_by != (on_loss, terms)
        is_forgotten = False
        if is_other or (self.held is None and on_loss == "full" and self.withholds):
            # Somebody says otherwise since.
            is_forgotten = self._forget(now)
        self._held_by = on_loss, terms
        counted = self.counted(now)
        own = sum(counted.cells.values())
        foreign = max(0, terms.limit - own - counted.left) if terms.cells else 0
        if self.held is None:
            # Of others nothing is known since the last answer; by what is, each would have the greater part.
            # What is counted at this very moment was in the cells before it was in any sum, so that is read once more.
            parts, known = self._parts, self.plan.acknowledged
            heads = parts.words[self.row + parts.heads : self.row + parts.hub].tolist()
            own = max(0, min(known, own - max(0, sum(heads[at.CUM :: parts.stride]) - known)))
            self.held = held_to(terms, hosts, 0 if is_forgotten else own, foreign, on_loss)
        if on_loss == "full" and terms.mode != "strict":
            self._allow(now, counted.left)
        else:
            theirs = max(0, terms.limit - terms.limit * self.held // terms.most)
            withheld = theirs if terms.cells else 0
            if terms.depth:
                poured = self._pour(now, counted, 1 - self.held / terms.most)
                self.plan.others += poured
                if not terms.cells and self._withheld is not None:
                    withheld = max(0, math.ceil(counted.level + poured - self._withheld.level))
            self._write(now, {cell_number(now, self._width): theirs} if terms.cells else {}, withheld)

    def _forget(self, now: float) -> bool:
        """It is held to no part any more, and the others are as they were last heard of; returns whether they never
        were, as this supervisor found the hub away. What of a bucket is for others is known then, if it is alone."""
        plan, never = self.plan, self.plan.answered_at < 0
        if never and plan.terms.depth:
            withheld = 0 if plan.terms.cells else self._parts.words[self.row + self._parts.hub + at.WITHHELD]
            plan.level = max(0.0, self.counted(now).level - withheld), now
        self.held = self._withheld = None
        plan.others += AFRESH
        self._write(now, plan.foreign, 0)
        return never

    def _pour(self, now: float, counted: Counted, theirs: float) -> int:
        """What is to be poured into a bucket for the other hosts, whose part of it is `theirs`, while the hub is away.

        Of what was left when it was lost, and then of what drains; and so much is always in it. Whole tokens; what is
        less is poured in later.
        """
        depth, rate = self.plan.terms.depth, self.plan.terms.rate
        before, level = self._withheld, counted.level
        if before is None:
            owed = theirs * (depth - level)
        else:
            owed = max(before.owed + theirs * rate * (now - before.at), theirs * depth - level)
            level = before.level_now(now, counted.cum, rate)
        poured = max(0, int(owed))
        self._withheld = Withheld(level, counted.cum, now, owed - poured)
        return poured

    def let_go(self, now: float) -> None:
        """It is held to this host's part no longer than others may take to come back too."""
        if self.held:
            self.plan.found(now, self.held)
        self.held = None
