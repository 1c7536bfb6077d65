"""A model of Stripe's meter events, with faults by a seed: for the exporter's many schedules, within one process.

It replays Idempotency-Keys, counts each identifier once a day, and sums by time. Its faults are answers lost before
and after the effect, failures with and without effect, and storms of refusals. It raises `Killed` if the exporter
must die.
"""

import random
from collections import Counter
from collections.abc import Callable

from edgeproxy.collector.billing.meter_export.exporter import MeterEventsUnavailableError
from edgeproxy.collector.billing.meter_export.outbox import Answer
from edgeproxy.collector.billing.meter_export.outbox_rows import OutboxRow
from edgeproxy.collector.billing.rating.rater import Span

DAY = 86400.0
FAULTS = ("lost before", "lost after", "failed before", "failed after", "limited", "locked", "busy", "killed before")
FAULTS += ("killed after",)


class Killed(BaseException):
    """The exception that stands for a kill -9: no later code runs."""


class CountingStripe:
    """Counts each identifier once a day; a `share` of the calls fails."""

    def __init__(self, seed: int, clock: Callable[[], float], share: float = 0.3) -> None:
        self._random = random.Random(seed)
        self._clock = clock
        self.share = share
        self.away_until = 0.0
        self.skew = 0.0
        self.events: list[tuple[str, str, str, int, int]] = []
        """Identifier, customer, meter, value and time of all counted events."""
        self.calls: Counter[str] = Counter()
        self._seen: dict[str, float] = {}
        self._answers: dict[str, tuple[float, Answer]] = {}

    async def send(self, row: OutboxRow) -> Answer:
        """Accept or refuse an event."""
        now = self._clock()
        if now < self.away_until:
            return Answer(None)
        fault = self._random.choice(FAULTS) if self._random.random() < self.share else ""
        self.calls[fault] += 1
        if fault in ("lost before", "killed before", "limited", "locked", "busy"):
            return self._early(fault)
        key = row.idempotency_key
        if key in self._answers and now - self._answers[key][0] < DAY:
            return self._answers[key][1]
        answer = self._effect(row, now) if fault != "failed before" else Answer(500)
        if fault == "failed after":
            answer = Answer(500)
        self._answers[key] = now, answer
        if fault == "killed after":
            raise Killed
        return Answer(None) if fault == "lost after" else answer

    def _early(self, fault: str) -> Answer:
        """Return the answer of a fault before the effect, which is not stored for replays."""
        if fault == "killed before":
            raise Killed
        answers = {
            "lost before": Answer(None),
            "limited": Answer(429, "too many", "rate_limit", "endpoint-rate"),
            "locked": Answer(429, "locked", "lock_timeout"),
            "busy": Answer(409, "under way"),
        }
        return answers[fault]

    def _effect(self, row: OutboxRow, now: float) -> Answer:
        assert row.dated is not None
        if not now - 35 * DAY <= row.dated <= now + 300:
            return Answer(400, "The timestamp must be within the past 35 days")
        if now - self._seen.get(row.identifier, -DAY) < DAY:
            return Answer(400, f"An event already exists with identifier {row.identifier}.")
        self._seen[row.identifier] = now
        self.events.append((row.identifier, row.customer, row.meter, row.value, row.dated))
        return Answer(200)

    async def fetch_sum(self, customer: str, meter: str, span: Span) -> int:
        """Return the sum of a span."""
        if self._clock() < self.away_until:
            raise MeterEventsUnavailableError("no answer")
        return sum(
            value for _, *of, value, at in self.events if of == [customer, meter] and span.start <= at < span.end
        )

    def totals(self) -> Counter[tuple[str, str]]:
        """Return the counts by customer and meter."""
        counts: Counter[tuple[str, str]] = Counter()
        for _, customer, meter, value, _ in self.events:
            counts[customer, meter] += value
        return counts
