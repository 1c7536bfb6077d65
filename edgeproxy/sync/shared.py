"""The rows of one table of limits that are in use on this host, as the hub is to see them, and what it said of them.

Read from the map: what all columns have counted, how many claims they want and have spent. Written into it: the hub's
column, the claims given, and how much may be counted before the hub has to be asked, or should be told. No I/O: who
owns this sends the reports and brings the answers. Times are edge time in seconds.
"""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from edgeproxy.counters import claims
from edgeproxy.counters import layout as at
from edgeproxy.counters.cells import MASK, SHIFT, bounds, cell_number
from edgeproxy.counters.rows import LimitTable, milliseconds
from edgeproxy.limits.gate import NEVER, UNUSED
from edgeproxy.limits.levels import level_in, scale_of
from edgeproxy.sync.plan import COLD, IN_TURN, TICK, Counted, OnLoss, Plan, Terms, held_to, worth_telling
from edgeproxy.sync.report import Report, Told

LATELY = 0.25
"""Seconds over which it is seen how many requests come."""
IDLE = 5.0
"""Seconds without anything counted after which a row is no longer looked at, unless the hub forgets what it counted."""
GOOD = COLD
"""Seconds for which an answer is good."""
SPREAD = 5.0
"""Seconds over which rows are told once the hub is there again, of which nothing was counted meanwhile."""
MOST = 1000
"""Rows that are looked at in one go, at most."""
FOUND = 200
"""The same of those that are told again."""
FIRST = 0.75
"""Of what may be told, the part that those may take which matter most, and of the rest those which matter more than
others. What they leave is the others', and the other way round."""


class Use(NamedTuple):
    """What a worker says of a row that it uses: where it is, and what it is held to. `refused`: something was."""

    row: int
    generation: int
    terms: Terms
    refused: bool = False


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


class Asleep(NamedTuple):
    """A row that is not in use any more, of which the hub has been told, and that counts still."""

    generation: int
    terms: Terms
    until: float


class Row:
    """A row in use."""

    __slots__ = (
        "_counts",
        "cells",
        "cells_of",
        "due",
        "foreign",
        "generation",
        "given_at",
        "held",
        "plan",
        "refused",
        "row",
        "times",
        "used_at",
        "why",
        "width",
        "withheld",
    )

    def __init__(self, row: int, generation: int, width: int, plan: Plan) -> None:
        self.row = row
        self.generation = generation
        self.width = width
        self.plan = plan
        self.refused = False
        self.used_at = 0.0
        self.given_at = 0.0
        """When claims were last given."""
        self.due = 0.0
        """When it is to be looked at, 0: at no time; and for which of the reasons of plan.py."""
        self.why = IN_TURN
        self.times = 0
        """How often the hub had been lost or found when that was said."""
        self.cells: dict[int, int] = {}
        """What was counted in each cell, as of this sum of all counts, and this present cell."""
        self.cells_of = (-1, -1)
        self.foreign: Mapping[int, int] | None = None
        """What stands in the hub's column; None: it has to be looked up."""
        self.held: int | None = None
        """What this host may use while the hub is away."""
        self.withheld: Withheld | None = None
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
        layout, hub = table.layout, table.layout.hub
        assert hub is not None
        self.table = table
        self.instance = instance
        self.hosts = 1
        self.rtt = 0.0
        self.tick = TICK
        """Seconds between two reports of a row in use, a fifth more or less."""
        self._chance = chance or random.Random()
        self._rows: dict[int, Row] = {}
        self._asleep: dict[int, Asleep] = {}
        self._woken: deque[int] = deque()
        """Of these, the ones of which the hub is to be told again, as it may have forgotten them."""
        self._claimed: set[int] = set()
        """Rows of which there may be claims in columns, or wanted there."""
        self._due: tuple[list[tuple[float, int]], ...] = ([], [], [])
        """By why they are: which rows are to be looked at, and when, the next first."""
        self._times = 0
        """How often the hub was lost or found."""
        self._away = False
        self._left: deque[Row] = deque()
        """Rows that are still to be held, where the hub was lost, or to be told, where it was found."""
        self._first_ring, self._theirs = at.FOREIGN, layout.rings + layout.ring * hub
        self._heads, self._hub, self._heads_end = layout.heads, layout.head(hub), layout.head(layout.columns)
        """In a row: where its rings begin, that of the hub, the heads, that of the hub, and what comes after them."""

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
            self._asleep.pop(use.row, None)
            row = self._rows[use.row] = self._enter(use, now)
        row.plan.terms = use.terms
        row.refused |= use.refused
        row.used_at = now
        if not self._away:
            self._schedule(row, now)
        elif row.held is None:
            # At once: whatever this host's part is, it must not pass more.
            self._left.appendleft(row)
        else:
            # It is known, and there is nobody to tell: not with every request.
            table.words[row.row + self._hub + at.WARM_UNTIL] = milliseconds(now + GOOD)

    def _enter(self, use: Use, now: float) -> Row:
        """Begin to take part. What is in the map of a supervisor before this one goes on."""
        words, layout = self.table.words, self.table.layout
        key = self.table.stored_key(use.row)
        born = words[use.row + at.ROW_BORN] << 10 | use.generation & 0x3FF
        cell = words[use.row + at.ROW_WIDTH]
        plan = Plan(key, use.terms, born, hosts=self.hosts, rtt=self.rtt, width=cell / 1e6)
        heads = words[use.row + layout.head(0) : use.row + layout.head(layout.columns)].tolist()
        plan.claims = sum(heads[at.GIVEN :: layout.width][:-1])
        plan.spent = sum(heads[at.USED :: layout.width][:-1])
        plan.acknowledged = words[use.row + at.ROW_ACKNOWLEDGED]
        plan.others = heads[-layout.width + at.CUM]
        row = Row(use.row, use.generation, cell, plan)
        row.given_at = now
        width = layout.width
        want, used, given = [heads[width + word : -width : width] for word in (at.WANT, at.USED, at.GIVEN)]
        if used != given or any(some > has for some, has in zip(want, given, strict=True)):
            self._claimed.add(use.row)
        return row

    def _schedule(self, row: Row, now: float, counted: Counted | None = None) -> None:
        """See when the row is due. `counted`: in it by now."""
        if self._away:
            return  # When to hold it again is known.
        self._keep_up(row)
        plan = row.plan
        plan.hosts, plan.rtt = self.hosts, self.rtt
        due = plan.next(now, counted or self._counted(row, now))
        if due is None:
            # While it is warm workers do not say that they use it, unless that is worth telling.
            step, warm_until = plan.step(now), plan.answered_at + GOOD
            again = min(plan.told_at + step if plan.told_at + step > now else now + step, warm_until)
            self._look(row, again if again > now else max(now, row.used_at) + IDLE, IN_TURN)
        elif row.held is not None and plan.told_at + self.tick > now:
            self._look(row, plan.told_at + self.tick, IN_TURN)
        else:
            self._look(row, max(now, due.at), due.why)

    def _look(self, row: Row, due: float, why: int) -> None:
        """Look at the row then, unless that is to be done before, or for a better reason."""
        if not row.due or why < row.why or (why == row.why and due < row.due):
            row.due, row.why = due, why
            heapq.heappush(self._due[why], (due, row.row))

    def _keep_up(self, row: Row) -> None:
        """What was under way when the hub was lost has come or not, and when the row was due before is forgotten."""
        if row.times != self._times:
            row.times = self._times
            row.plan.lost()
            row.due = 0.0

    def _next(self, why: int) -> tuple[float, Row] | None:
        """Of those that are due for this reason the next one, and when."""
        heap = self._due[why]
        while heap:
            due, number = heap[0]
            row = self._rows.get(number)
            if row is not None and row.due == due and row.why == why and row.times == self._times:
                return due, row
            heapq.heappop(heap)
        return None

    def due(self) -> float | None:
        """When the next row is due."""
        if self._left or self._woken:
            return 0.0
        return min([found[0] for why in range(len(self._due)) if (found := self._next(why)) is not None], default=None)

    def reports(self, now: float, seqs: Iterator[int], most: int = MOST) -> Iterator[tuple[Row, Report]]:
        """What is to be told now, first what matters most; of each kind what has been due for the longest time.

        Where less may be told than is due, some of it is of those that matter less, so that all have their turn.
        """
        self._find(now)
        looks = MOST
        for part in (FIRST, 1.0):
            for why in range(len(self._due)):
                enough = most if why == IN_TURN else math.ceil(most * part)
                while enough > 0 and looks > 0 and (found := self._next(why)) is not None and found[0] <= now:
                    heapq.heappop(self._due[why])
                    looks -= 1
                    row = found[1]
                    row.due = 0.0
                    report = self._report(row, now, seqs)
                    if report is not None:
                        enough -= 1
                        most -= 1
                        yield row, report

    def _report(self, row: Row, now: float, seqs: Iterator[int]) -> Report | None:
        """What is to be told of a row that was due, if anything; and when to look at it again, if at all."""
        plan, report = row.plan, None
        if self.table.words[row.row + at.ROW_GENERATION] != row.generation:
            del self._rows[row.row]
            return None
        counted = self._counted(row, now)
        if counted.cum != plan.told or counted.waiting or row.refused:
            row.used_at = now
        if counted.waiting:
            self._claimed.add(row.row)
        due = plan.next(now, counted)
        # What the hub has refused is tried again with the next tick.
        if due is not None and due.at <= now and (row.held is None or plan.told_at + self.tick <= now):
            row.refused = False
            tick = self.tick * self._chance.uniform(0.8, 1.2)
            if row.withheld is not None:
                level = row.withheld.level_now(now, counted.cum, plan.terms.rate)
                counted = counted._replace(level=level)
            report = plan.report(now, cell_number(now, row.width), self.instance, next(seqs), counted, tick)
            self._look(row, now + plan.step(now), IN_TURN)
        elif now - row.used_at > IDLE and not counted.waiting and not plan.in_hand and plan.is_through(counted):
            del self._rows[row.row]
            self._sleep(row, now)
        else:
            self._schedule(row, now, counted)
        return report

    def _sleep(self, row: Row, now: float) -> None:
        """Keep in mind, as long as it counts, a row that is not looked at any more."""
        self._asleep[row.row] = Asleep(row.generation, row.plan.terms, row.used_at + row.plan.terms.span)
        # For each that comes two are looked at, so that those which count no more are never many.
        for number in tuple(itertools.islice(self._asleep, 2)):
            asleep = self._asleep.pop(number)
            if asleep.until > now:
                self._asleep[number] = asleep

    def _awake(self, now: float) -> None:
        """Of rows that are not in use, see that the next ones are told again."""
        for _ in range(min(FOUND, len(self._woken))):
            number = self._woken.popleft()
            asleep = self._asleep.pop(number, None)
            if asleep is None or asleep.until <= now:
                continue
            use = Use(number, asleep.generation, asleep.terms)
            if self.table.words[number + at.ROW_GENERATION] == use.generation:
                row = self._rows[number] = self._enter(use, now)
                row.used_at = asleep.until - use.terms.span
                row.times = self._times
                row.plan.told = self._counted(row, now).cum
                self._look(row, now + self._chance.uniform(0, SPREAD), IN_TURN)

    def overdue(self, now: float) -> float:
        """Seconds for which the row has waited to be told that waits for the longest time."""
        return max([0.0, *[now - found[0] for why in range(len(self._due)) if (found := self._next(why)) is not None]])

    # ---- the map

    def _counted(self, row: Row, now: float) -> Counted:
        """What this host has counted in a row, older files' counts among it."""
        words, layout, place = self.table.words, self.table.layout, row.row
        terms = row.plan.terms
        heads = words[place + self._heads : place + self._heads_end].tolist()
        width = layout.width
        cum = sum(heads[at.CUM : -width : width])
        given, wanted = heads[width + at.GIVEN : -width : width], heads[width + at.WANT : -width : width]
        spent = sum(heads[width + at.USED : -width : width])
        waiting = 0
        if wanted != given:
            waiting = sum([max(0, want - has) for want, has in zip(wanted, given, strict=True)])
        cells: Mapping[int, int] = {}
        left = terms.most
        if terms.cells:
            cell = cell_number(now, row.width)
            low, high = bounds(cell, layout.cells)
            cells = row.cells
            if row.cells_of != (cum, cell):
                # A count is in its cell before it is in the sum of all that was ever counted.
                cells = {}
                for word in words[place + self._first_ring : place + self._theirs].tolist():
                    if low <= word < high:
                        cells[word >> SHIFT] = cells.get(word >> SHIFT, 0) + (word & MASK)
                row.cells, row.cells_of = cells, (cum, cell)
            if row.foreign is None:
                theirs = words[place + self._theirs : place + self._heads].tolist()
                row.foreign = {word >> SHIFT: word & MASK for word in theirs if low <= word < high}
            left = terms.limit - sum(cells.values())
            if row.foreign:
                left -= sum([count for of, count in row.foreign.items() if low <= of << SHIFT < high])
        level = 0.0
        if terms.depth:
            level = level_in(heads, width, now, terms.rate, scale_of(row.width)).level
            left = min(left, int(terms.depth - level)) if terms.cells else int(terms.depth - level)
        return Counted(cells, cum, left, spent, waiting, row.refused, row.lately(now, cum), level)

    def answer(self, row: Row, now: float, seq: int, told: Told) -> bool:
        """Write an answer into the map; returns whether somebody may have waited for it."""
        if self._rows.get(row.row) is not row or not self._is_there(row):
            return False
        cell = cell_number(now, row.width)
        granted = row.plan.answer(now, cell, seq, told)
        self._let_go(row, now)
        row.withheld = None
        self._give(row, granted, now)
        foreign = row.plan.foreign
        if row.plan.terms.cells and (more := row.plan.withheld(now)):
            foreign = {**foreign, cell: foreign.get(cell, 0) + more}
        counted = self._write(row, now, foreign)
        self._schedule(row, now, counted)
        return bool(granted or counted.waiting)

    # ---- claims that nobody uses

    @property
    def has_claims(self) -> bool:
        """Whether it is worth looking at `left_behind` and `unused`."""
        return bool(self._claimed)

    def left_behind(self, column: int) -> list[Row]:
        """The rows that are not settled in a column: for one that nobody holds, see `settle`."""
        rows = [row for number in self._claimed if (row := self._rows.get(number)) is not None]
        return [row for row in rows if self._is_there(row) and not claims.is_settled(self.table, row.row, column)]

    def settle(self, row: Row, column: int, now: float) -> None:
        """Give back what is left in a column that nobody uses; for its holder."""
        claims.settle(self.table, row.row, column)
        self._schedule(row, now)

    def unused(self, now: float) -> list[tuple[int, int]]:
        """The rows, and their generations, whose claims nobody has used for a while: workers give them back.

        The hub is told of it when they have.
        """
        found = []
        workers = range(self.table.layout.columns - 1)
        for number in tuple(self._claimed):
            row = self._rows.get(number)
            if row is None or not self._is_there(row):
                self._claimed.discard(number)
            elif all(claims.is_settled(self.table, number, column) for column in workers):
                self._claimed.discard(number)
                self._schedule(row, now)
            elif now - row.given_at >= UNUSED[row.plan.terms.mode] and self._has_any(row):
                found.append((number, row.generation))
        return found

    def _has_any(self, row: Row) -> bool:
        return any(claims.in_hand(self.table, row.row, column) for column in range(self.table.layout.columns - 1))

    def _is_there(self, row: Row) -> bool:
        return self.table.words[row.row + at.ROW_GENERATION] == row.generation

    # ---- answers

    def _give(self, row: Row, granted: int, now: float) -> None:
        """Claims go to the columns that wait for them; what is left over to the first of those, for who comes next."""
        if not granted:
            return
        row.given_at = now
        self._claimed.add(row.row)
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

    def _write(self, row: Row, now: float, foreign: Mapping[int, int]) -> Counted:
        """The hub's column, and what its answer allows; what is counted in the row then."""
        words, layout, place, plan = self.table.words, self.table.layout, row.row, row.plan
        hub, ring = place + self._hub, place + self._theirs
        there = words[ring : ring + layout.ring].tolist()
        if foreign or any(there):
            # Those far ahead are of a clock that was wrong; they would take the places of others.
            lowest = cell_number(now, row.width) - layout.cells
            cells = range(lowest, lowest + layout.ring)
            by_slot = {of % layout.ring: of << SHIFT | min(foreign[of], MASK) for of in foreign if of in cells}
            for slot, word in enumerate(there):
                if (wanted := by_slot.get(slot, 0)) != word:
                    words[ring + slot] = wanted
        row.foreign = foreign
        words[place + at.ROW_ACKNOWLEDGED] = plan.acknowledged
        if plan.terms.depth and row.held is None:
            level, moment = plan.level
            scale = scale_of(row.width)
            tick = int(moment * scale.ticks)
            # As it would have been at that tick: a reader takes off what has drained since then.
            level += (moment - tick / scale.ticks) * plan.terms.rate
            words[hub + at.LEVEL] = tick << scale.bits | scale.packed(level)
            words[hub + at.SEEN_CUM] = plan.acknowledged + plan.others
        # After the level that knows of it: else it would seem to be on top of that.
        words[hub + at.CUM] = plan.others
        counted = self._counted(row, now)
        self._allow(row, now, counted.left)
        # Last, for it is what makes workers look.
        words[place + at.ROW_SYNC] += 1
        return counted

    def _allow(self, row: Row, now: float, left: int) -> None:
        """How much may be counted before the hub has to be asked, and before it should be told."""
        words, plan, hub = self.table.words, row.plan, row.row + self._hub
        # Of what has just not answered nobody is to wait for an answer.
        ask = plan.ask_from(now, left) if row.held is None else None
        allowed = NEVER if ask is None else max(0, ask - plan.acknowledged)
        worth = NEVER if row.held is not None else worth_telling(plan.terms.most, left, plan.users(now))
        words[hub + at.THRESHOLDS] = min(allowed, NEVER) << 32 | min(worth, NEVER)
        words[hub + at.NO_USE_UNTIL] = milliseconds(plan.no_use_until) if plan.no_use_until > now else 0
        words[hub + at.WARM_UNTIL] = milliseconds(now + GOOD)

    # ---- the hub is away

    def lost(self, now: float, on_loss: OnLoss, most: int = MOST) -> None:
        """The hub is away: hold so many rows to this host's part. Call it again and again, when some are due.

        What is known of others counts on where that has not been done yet.
        """
        if not self._away:
            self._turn(away=True)
        for _ in range(most):
            if self._left:
                row = self._left.popleft()
            elif (found := self._next(IN_TURN)) is not None and found[0] <= now:
                row = found[1]
            else:
                break
            self._keep_up(row)
            row.due = 0.0
            if self._rows.get(row.row) is not row:
                continue  # Its place is another one's by now.
            if not self._is_there(row):
                del self._rows[row.row]
            else:
                self._hold(row, now, on_loss)
                # Buckets drain all the time; in a window it stands as long as the window is.
                terms = row.plan.terms
                self._look(row, now + (self.tick if terms.depth else max(self.tick, terms.span / 4)), IN_TURN)

    def _turn(self, *, away: bool) -> None:
        """The hub was lost, or found: all rows are to be looked at anew."""
        self._away = away
        self._times += 1
        self._due = [], [], []
        self._left = deque(self._rows.values())
        self._woken.clear()

    def _hold(self, row: Row, now: float, on_loss: OnLoss) -> None:
        counted = self._counted(row, now)
        own = sum(counted.cells.values())
        foreign = max(0, row.plan.terms.limit - own - counted.left) if row.plan.terms.cells else 0
        terms = row.plan.terms
        if row.held is None:
            # Of others nothing is known since the last answer; by what is, each would have the greater part.
            own = max(0, own - max(0, counted.cum - row.plan.acknowledged))
            row.held = held_to(terms, self.hosts, own, foreign, on_loss)
        if on_loss == "full" and terms.mode != "strict":
            self._allow(row, now, counted.left)
        else:
            if terms.depth:
                row.plan.others += _withheld(row, now, counted, 1 - row.held / terms.most)
            theirs = terms.limit - terms.limit * row.held // terms.most
            self._write(row, now, {cell_number(now, row.width): theirs} if terms.cells else {})

    def away(self, row: Row, now: float, on_loss: OnLoss) -> None:
        """The part of the hub that has this row did not answer."""
        if self._rows.get(row.row) is row and self._is_there(row):
            row.plan.lost()
            self._hold(row, now, on_loss)
            row.plan.told_at = now
            self._schedule(row, now)

    def renew(self, has: Callable[[bytes], bool], now: float) -> None:
        """Tell everything of these keys again, in the next seconds: who has them may not have heard the last of it."""
        for row in self._rows.values():
            if has(row.plan.key):
                row.plan.is_whole = True
                self._look(row, now + self._chance.uniform(0, SPREAD), IN_TURN)
        if not self._away:
            self._woken.extend([number for number in self._asleep if has(self.table.stored_key(number))])

    def restart(self, now: float) -> None:
        """The clock was set back, and no moment that was noted means anything: begin as another supervisor would."""
        rows = [row for row in self._rows.values() if self._is_there(row)]
        self._rows = {row.row: self._enter(Use(row.row, row.generation, row.plan.terms), now) for row in rows}
        for row in self._rows.values():
            row.used_at = now
        if self._away:
            self._turn(away=True)
        else:
            self.found()

    def found(self) -> None:
        """The hub is there again, or another one: it is to be told everything.

        At once of what was counted meanwhile, over the next seconds of all else.
        """
        self._turn(away=False)
        self._woken.extend(self._asleep)

    def _find(self, now: float) -> None:
        """Of the rows that the hub is to be told of again, see when the next ones are due."""
        self._awake(now)
        for _ in range(min(FOUND, len(self._left))):
            row = self._left.popleft()
            if self._rows.get(row.row) is not row or not self._is_there(row):
                continue
            self._keep_up(row)
            self._let_go(row, now)
            row.plan.told_at = -1e9
            counted = self._counted(row, now)
            if counted.cum != row.plan.told or counted.waiting:
                self._schedule(row, now, counted)
            else:
                self._look(row, now + self._chance.uniform(0, SPREAD), IN_TURN)

    def _let_go(self, row: Row, now: float) -> None:
        """A row is held to this host's part no longer than others may take to come back too."""
        if row.held:
            row.plan.found(now, row.held)
        row.held = None


def _withheld(row: Row, now: float, counted: Counted, theirs: float) -> int:
    """What is to be poured into a bucket for the other hosts, whose part of it is `theirs`, while the hub is away.

    Of what was left when it was lost, and then of what drains; and so much is always in it. Whole tokens; what is less
    is poured in later.
    """
    depth, rate = row.plan.terms.depth, row.plan.terms.rate
    before, level = row.withheld, counted.level
    if before is None:
        owed = theirs * (depth - level)
    else:
        owed = max(before.owed + theirs * rate * (now - before.at), theirs * depth - level)
        level = before.level_now(now, counted.cum, rate)
    poured = max(0, int(owed))
    row.withheld = Withheld(level, counted.cum, now, owed - poured)
    return poured
