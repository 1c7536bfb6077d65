"""Limits that hosts share: this worker reports their use to its supervisor, and requests wait for claims of the hub.

A request that must ask waits here, first come first served, for a quarter of a second at most (strict: half a second):
until an answer of the hub has been written into the map, or the time is over. Waiting requests do not delay requests
that need not ask.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic
from typing import NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

from edgeproxy.edge.counters import claims
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.counts import Counts
from edgeproxy.edge.limits.gate import QUIET_SECONDS, WAIT_SECONDS_MAX, Gate, is_quiet
from edgeproxy.edge.limits.quota import QuotaCounts
from edgeproxy.edge.limits.rate_terms import Mode, RateTerms, build_terms
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.slots import Slots
from edgeproxy.edge.messages import LimitRow, LimitsUsed, RateUse, TotalUse
from edgeproxy.edge.proxy.routing.supervisor_requests import CoalescingSender, Waiter, resume_waiter


class WaitingRequest(NamedTuple):
    """A request at a gate: its number of claims, the timer that ends its wait, and the gate's news when the wait
    began.
    """

    who: Waiter
    cost: int
    over: asyncio.TimerHandle
    news: tuple[float, ...]


class UseReporter:
    """Reports to the supervisor that a quota or a concurrency limit is in use."""

    __slots__ = ("_claim_waiter", "_counts", "_limit", "_quiet_until", "_table")

    def __init__(self, claim_waiter: "ClaimWaiter", table: LimitTable, counts: Slots | QuotaCounts, limit: int) -> None:
        self._claim_waiter, self._table, self._counts, self._limit = claim_waiter, table, counts, limit
        self._quiet_until = 0.0

    def used(self, now: float) -> None:
        """Report that something was counted, at edge time `now`."""
        if not is_quiet(self._quiet_until, now) and (place := self._counts.place) is not None:
            self._quiet_until = now + QUIET_SECONDS
            self._claim_waiter.report_total(self._table, *place, self._limit)


class ClaimWaiter:
    """The gates of one worker. `offer` sends its supervisor a message."""

    def __init__(self, offer: Callable[[LimitsUsed], bool]) -> None:
        """`offer` returns False if the message was not taken, because the supervisor has yet to read the previous
        one.
        """
        self._outbox = CoalescingSender(offer, self._collect_uses, self._on_sent)
        # The terms hold their gates. Subjects come and go, and this dictionary must not keep their gates alive.
        self._gates: WeakValueDictionary[tuple[str, bytes], Gate] = WeakValueDictionary()
        self._gate_rows: WeakKeyDictionary[Gate, tuple[LimitTable, RateTerms]] = WeakKeyDictionary()
        """The row and the terms of each gate, as reported to the supervisor."""
        self._tables: dict[str, LimitTable] = {}
        self._reported_gates: dict[Gate, None] = {}
        self._totals: dict[tuple[str, int], TotalUse] = {}
        self._waiting: dict[Gate, deque[WaitingRequest]] = {}
        """The requests at each gate, in order of arrival."""

    @property
    def is_orphaned(self) -> bool:
        """True if the supervisor is gone. Then nothing can be asked, and the last known use of other hosts applies."""
        return self._outbox.closed

    def on_supervisor_lost(self) -> None:
        """Let all waiting requests decide again, because nothing can be asked any more."""
        self._outbox.closed = True
        self.on_hub_answer()

    def gate(self, table: LimitTable, rule: Rule, subject: bytes, counts: Counts, mode: Mode) -> Gate:
        """Return the gate before a row, under these terms."""
        key = table.name, rule.key(subject)
        self._tables[table.name] = table
        gate = self._gates.get(key)
        if gate is None:
            gate = self._gates[key] = Gate(table, counts, rule.most, mode, self.report_gate)
        gate.update_terms(rule.most, mode)
        self._gate_rows[gate] = table, build_terms(rule, table.layout.cells, mode)
        return gate

    # ---- reports to the supervisor

    def report_gate(self, gate: Gate) -> None:
        """Report a gate's row to the supervisor, at the end of the loop's turn."""
        self._reported_gates[gate] = None
        self._outbox.schedule()

    def report_total(self, table: LimitTable, row: int, generation: int, limit: int) -> None:
        """Report the row of a quota or of a concurrency limit to the supervisor."""
        self._totals[table.name, row] = TotalUse(table.name, table.file.generation, row, generation, limit)
        self._outbox.schedule()

    def total(self, table: LimitTable, counts: Slots | QuotaCounts, limit: int) -> "UseReporter":
        """Return the reporter of a quota or of a concurrency limit."""
        return UseReporter(self, table, counts, limit)

    def _collect_uses(self) -> LimitsUsed:
        """Return all uses to report, as one message."""
        rates = []
        for gate in self._reported_gates:
            row = gate.row
            if not row:
                continue  # Its row has been removed, and the table has no other.
            table, terms = self._gate_rows[gate]
            generation = table.generation(row)
            rates.append(
                RateUse.from_terms(table.name, table.file.generation, row, generation, terms, gate.has_refused)
            )
        return LimitsUsed(rates, list(self._totals.values()))

    def _on_sent(self) -> None:
        for gate in self._reported_gates:
            gate.has_refused = False
        self._reported_gates.clear()
        self._totals.clear()

    # ---- waiting requests

    def compute_wait_seconds(self, gate: Gate, since: float) -> float:
        """Return the seconds that a request may still wait if it came at `since` (monotonic)."""
        return since + WAIT_SECONDS_MAX[gate.mode] - monotonic()

    def add_waiter(self, gate: Gate, cost: int, who: Waiter, seconds: float) -> None:
        """Add a request that waits at a gate for `cost` claims, for `seconds` at most."""
        over = asyncio.get_running_loop().call_later(seconds, self._time_out, gate, who)
        self._waiting.setdefault(gate, deque()).append(WaitingRequest(who, cost, over, gate.news))
        gate.add_waiting(cost)

    def remove_waiter(self, gate: Gate, who: Waiter) -> None:
        """Remove a request that no longer waits."""
        waiting = self._waiting.get(gate, deque())
        for place, one in enumerate(waiting):
            if one.who is who:
                del waiting[place]
                one.over.cancel()
                gate.remove_waiting(one.cost)
                break
        if not waiting:
            self._waiting.pop(gate, None)

    def _time_out(self, gate: Gate, who: Waiter) -> None:
        self.remove_waiter(gate, who)
        who.resume()

    def on_hub_answer(self) -> None:
        """Let the requests decide again whose row has news: the hub has answered, or is away."""
        for gate, waiting in tuple(self._waiting.items()):
            if self.is_orphaned or waiting[0].news != gate.news:
                self._resume_waiting(gate)

    def _resume_waiting(self, gate: Gate) -> None:
        """Let the requests at a gate decide again, one after another, until one must continue to wait."""
        for _ in range(len(self._waiting[gate])):
            if gate not in self._waiting:
                break  # A resumed request has removed the other waiters.
            who = self._waiting[gate][0].who
            self.remove_waiter(gate, who)
            resume_waiter(who, "the hub")
            waiting = self._waiting.get(gate)
            if waiting and waiting[-1].who is who:
                # It still comes first, and the requests behind it cannot get anything either.
                waiting.rotate(1)
                break

    def return_claims(self, rows: Iterable[LimitRow]) -> None:
        """Return the claims of rows that have been unused for a while."""
        for place in rows:
            table = self._tables.get(place.table)
            if table is None or table.file.generation != place.file:
                continue  # Older workers count in that file.
            if table.has(place.row, place.generation):
                claims.return_claims(table, place.row)
