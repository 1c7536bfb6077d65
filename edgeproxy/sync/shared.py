"""The rows of one table of limits that are in use on this host, as the hub is to see them, and what it said of them.

Read from the map: what all columns have counted, how many claims they want and have spent. Written into it: the hub's
column, the claims given, and how much may be counted before the hub has to be asked, or should be told. No I/O: who
owns this sends the reports and brings the answers. Times are edge time in seconds.
"""

import heapq
import random
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from edgeproxy.counters import layout as at
from edgeproxy.counters.cells import MASK, SHIFT, bounds, cell_number
from edgeproxy.counters.rows import LimitTable, milliseconds
from edgeproxy.limits.gate import NEVER
from edgeproxy.limits.levels import level_in, scale_of
from edgeproxy.sync.plan import COLD, TICK, Counted, OnLoss, Plan, Terms, held_to, worth_telling
from edgeproxy.sync.report import Report, Told

LATELY = 0.25
"""Seconds over which it is seen how many requests come."""
IDLE = 5.0
"""Seconds without anything counted after which a row is no longer looked at."""
GOOD = COLD
"""Seconds for which an answer is good."""


class Use(NamedTuple):
    """What a worker says of a row that it uses: where it is, and what it is held to. `refused`: something was."""

    row: int
    generation: int
    terms: Terms
    refused: bool = False


class Row:
    """A row in use."""

    __slots__ = ("_counts", "due", "generation", "held", "key", "plan", "refused", "row", "used_at", "width")

    def __init__(self, row: int, generation: int, width: int, plan: Plan) -> None:
        self.row = row
        self.generation = generation
        self.width = width
        self.plan = plan
        self.refused = False
        self.used_at = 0.0
        self.due = 0.0
        self.held: int | None = None
        """What this host may use while the hub is away."""
        self._counts: list[tuple[float, int]] = []

    def lately(self, now: float, cum: int) -> float:
        """Requests a second over the last moments."""
        counts = self._counts
        if not counts or cum != counts[-1][1]:
            counts.append((now, cum))
        while len(counts) > 2 and counts[1][0] < now - LATELY:
            counts.pop(0)
        before, then = counts[0]
        return (cum - then) / max(LATELY, now - before)


class Shared:
    """The rows of a table that take part. `instance`: of this host on the hub. Windows and buckets only."""

    def __init__(self, table: LimitTable, instance: int, chance: random.Random | None = None) -> None:
        assert table.layout.hub is not None
        self.table = table
        self.instance = instance
        self.hosts = 1
        self.rtt = 0.0
        self.tick = TICK
        """Seconds between two reports of a row in use, a fifth more or less."""
        self._chance = chance or random.Random()
        self._rows: dict[int, Row] = {}
        self._due: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._rows)

    # ---- what is due

    def use(self, use: Use, now: float) -> None:
        """A worker uses a row, wants claims, or has refused something."""
        table = self.table
        if table.words[use.row + at.ROW_GENERATION] != use.generation:
            return
        row = self._rows.get(use.row)
        if row is None or row.generation != use.generation:
            row = self._rows[use.row] = self._enter(use, now)
        row.plan.terms = use.terms
        row.refused |= use.refused
        row.used_at = now
        self._schedule(row, now)

    def _enter(self, use: Use, now: float) -> Row:
        """Begin to take part. What is in the map of a supervisor before this one goes on."""
        words, layout = self.table.words, self.table.layout
        key = self.table.stored_key(use.row)
        born = words[use.row + at.ROW_BORN] << 10 | use.generation & 0x3FF
        plan = Plan(key, use.terms, born, hosts=self.hosts, rtt=self.rtt)
        heads = words[use.row + layout.head(0) : use.row + layout.head(layout.columns)].tolist()
        plan.claims = sum(heads[at.GIVEN :: layout.width][:-1])
        plan.spent = sum(heads[at.USED :: layout.width][:-1])
        plan.acknowledged = words[use.row + at.ROW_ACKNOWLEDGED]
        plan.others = heads[-layout.width + at.CUM]
        return Row(use.row, use.generation, words[use.row + at.ROW_WIDTH], plan)

    def _schedule(self, row: Row, now: float) -> None:
        plan = row.plan
        plan.hosts, plan.rtt = self.hosts, self.rtt
        due = plan.due(now, self._counted(row, now))
        again = plan.told_at + self.tick
        if row.held is not None and again > now:
            due = again
        elif due is None:
            due = max(now, plan.told_at) + 1.0
        if not row.due or due < row.due:
            row.due = due
            heapq.heappush(self._due, (due, row.row))

    def due(self) -> float | None:
        """When the next row is due."""
        return self._due[0][0] if self._due else None

    def reports(self, now: float, seqs: Iterator[int], most: int = 1000) -> Iterator[tuple[Row, Report]]:
        """What is to be told now."""
        while self._due and self._due[0][0] <= now and most > 0:
            at_, number = heapq.heappop(self._due)
            row = self._rows.get(number)
            if row is None or row.due != at_:
                continue
            row.due = 0.0
            if self.table.words[number + at.ROW_GENERATION] != row.generation:
                del self._rows[number]
                continue
            counted = self._counted(row, now)
            if counted.cum != row.plan.told or counted.waiting or row.refused:
                row.used_at = now
            cell = cell_number(now, row.width)
            when = row.plan.due(now, counted)
            # What the hub has refused is tried again with the next tick.
            if when is not None and when <= now and (row.held is None or row.plan.told_at + self.tick <= now):
                row.refused = False
                most -= 1
                tick = self.tick * self._chance.uniform(0.8, 1.2)
                yield row, row.plan.report(now, cell, self.instance, next(seqs), counted, tick)
            if now - row.used_at > IDLE and not counted.waiting and not row.plan.in_hand:
                del self._rows[number]
            else:
                self._schedule(row, now)

    # ---- the map

    def _counted(self, row: Row, now: float) -> Counted:
        """What this host has counted in a row, older files' counts among it."""
        words, layout, place = self.table.words, self.table.layout, row.row
        terms = row.plan.terms
        cell = cell_number(now, row.width)
        low, high = bounds(cell, layout.cells)
        heads = words[place + layout.heads : place + layout.head(layout.columns)].tolist()
        hub = -layout.width
        width = layout.width
        cum = sum(heads[at.CUM : hub : width])
        given, spent = heads[width + at.GIVEN : hub : width], heads[width + at.USED : hub : width]
        wanted = heads[width + at.WANT : hub : width]
        waiting = sum(max(0, want - has) for want, has in zip(wanted, given, strict=True))
        cells: dict[int, int] = {}
        foreign = 0
        left = terms.most
        if terms.cells:
            theirs = layout.rings + layout.ring * (layout.columns - 1)
            for word in words[place + at.FOREIGN : place + theirs].tolist():
                if low <= word < high:
                    cells[word >> SHIFT] = cells.get(word >> SHIFT, 0) + (word & MASK)
            for word in words[place + theirs : place + layout.heads].tolist():
                if low <= word < high:
                    foreign += word & MASK
            left = terms.limit - sum(cells.values()) - foreign
        level = 0.0
        if terms.depth:
            level = level_in(heads, width, now, terms.rate, scale_of(row.width)).level
            left = min(left, int(terms.depth - level)) if terms.cells else int(terms.depth - level)
        return Counted(cells, cum, left, sum(spent), waiting, row.refused, row.lately(now, cum), level)

    def answer(self, row: Row, now: float, seq: int, told: Told) -> int:
        """Write an answer into the map; returns how many claims were given to columns."""
        if self.table.words[row.row + at.ROW_GENERATION] != row.generation:
            return 0
        cell = cell_number(now, row.width)
        granted = row.plan.answer(now, cell, seq, told)
        row.held = None
        self._give(row, granted)
        self._write(row, now, row.plan.foreign)
        self._schedule(row, now)
        return granted

    def _give(self, row: Row, granted: int) -> None:
        """Claims go to the columns that wait for them; what is left over to the first of those, for who comes next."""
        words, layout = self.table.words, self.table.layout
        heads = [row.row + layout.head(column) for column in range(layout.columns - 1)]
        wanting = [head for head in heads if words[head + at.WANT] > words[head + at.GIVEN]]
        for head in wanting:
            some = min(granted, words[head + at.WANT] - words[head + at.GIVEN])
            words[head + at.GIVEN] += some
            granted -= some
        if granted:
            # Nobody waits any more, or more will come before the next answer does. Unused ones are given back.
            head = (wanting or [max(heads, key=lambda head: words[head + at.CUM])])[0]
            words[head + at.GIVEN] += granted

    def _write(self, row: Row, now: float, foreign: Mapping[int, int]) -> None:
        """The hub's column, and what its answer allows."""
        words, layout, place, plan = self.table.words, self.table.layout, row.row, row.plan
        assert layout.hub is not None
        hub = place + layout.head(layout.hub)
        ring = place + layout.rings + layout.ring * layout.hub
        by_slot = {cell % layout.ring: cell << SHIFT | min(count, MASK) for cell, count in foreign.items()}
        for slot, word in enumerate(words[ring : ring + layout.ring].tolist()):
            if (wanted := by_slot.get(slot, 0)) != word:
                words[ring + slot] = wanted
        words[place + at.ROW_ACKNOWLEDGED] = plan.acknowledged
        words[hub + at.CUM] = plan.others
        if plan.terms.depth:
            level, moment = plan.level
            scale = scale_of(row.width)
            tick = int(moment * scale.ticks)
            # As it would have been at that tick: a reader takes off what has drained since then.
            there = level + (moment - tick / scale.ticks) * plan.terms.rate
            words[hub + at.LEVEL] = tick << scale.bits | scale.packed(there)
            words[hub + at.SEEN_CUM] = plan.acknowledged + plan.others
        self._allow(row, now)
        # Last, for it is what makes workers look.
        words[place + at.ROW_SYNC] += 1

    def _allow(self, row: Row, now: float) -> None:
        """How much may be counted before the hub has to be asked, and before it should be told."""
        words, layout, plan = self.table.words, self.table.layout, row.plan
        assert layout.hub is not None
        hub = row.row + layout.head(layout.hub)
        left = self._counted(row, now).left
        ask = plan.ask_from(now, left)
        allowed = NEVER if ask is None else max(0, ask - plan.acknowledged)
        worth = worth_telling(plan.terms.most, left, plan.hosts)
        words[hub + at.THRESHOLDS] = min(allowed, NEVER) << 32 | min(worth, NEVER)
        words[hub + at.NO_USE_UNTIL] = milliseconds(plan.no_use_until) if plan.no_use_until > now else 0
        words[hub + at.WARM_UNTIL] = milliseconds(now + GOOD)

    # ---- the hub is away

    def lost(self, now: float, on_loss: OnLoss) -> None:
        """The hub is away: hold every row in use to this host's part."""
        for row in self._rows.values():
            row.plan.lost()
            self._hold(row, now, on_loss)

    def _hold(self, row: Row, now: float, on_loss: OnLoss) -> None:
        counted = self._counted(row, now)
        own = sum(counted.cells.values())
        foreign = max(0, row.plan.terms.limit - own - counted.left) if row.plan.terms.cells else 0
        if row.held is None:
            row.held = held_to(row.plan.terms, self.hosts, own, foreign, on_loss)
        if on_loss != "full":
            self._write(row, now, {cell_number(now, row.width): row.plan.terms.most - row.held})

    def away(self, row: Row, now: float, on_loss: OnLoss) -> None:
        """The part of the hub that has this row did not answer."""
        if self.table.words[row.row + at.ROW_GENERATION] == row.generation:
            row.plan.lost()
            self._hold(row, now, on_loss)
            row.plan.told_at = now

    def found(self, now: float) -> None:
        """The hub is there again: tell it everything, at once."""
        for row in self._rows.values():
            row.held = None
            row.plan.told_at = -1e9
            row.refused = True
            self._schedule(row, now)
