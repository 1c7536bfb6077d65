"""What Stripe does with meter events, with faults by a seed: for the exporter's many schedules, within one process.

Replayed Idempotency-Keys, identifiers that are unique for a day, sums by time; answers lost before and after the
effect, failures with and without one, storms of refusals. `Killed` is raised where the exporter is to die.
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
    """As by kill -9: nothing after it is done."""


class CountingStripe:
    """Counts each identifier once a day; `share` of the calls go wrong."""

    def __init__(self, seed: int, clock: Callable[[], float], share: float = 0.3) -> None:
        self._random = random.Random(seed)
        self._clock = clock
        self.share = share
        self.away_until = 0.0
        self.skew = 0.0
        self.events: list[tuple[str, str, str, int, int]] = []
        """Identifier, customer, meter, value and time of all that is counted."""
        self.calls: Counter[str] = Counter()
        self._seen: dict[str, float] = {}
        self._answers: dict[str, tuple[float, Answer]] = {}

    async def send(self, row: OutboxRow) -> Answer:
        """Take an event, or not."""
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
        """What comes before anything is done, and is not remembered."""
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
        """The sum of a time."""
        if self._clock() < self.away_until:
            raise MeterEventsUnavailableError("no answer")
        return sum(
            value for _, *of, value, at in self.events if of == [customer, meter] and span.start <= at < span.end
        )

    def totals(self) -> Counter[tuple[str, str]]:
        """What is counted of each customer and meter."""
        found: Counter[tuple[str, str]] = Counter()
        for _, customer, meter, value, _ in self.events:
            found[customer, meter] += value
        return found
