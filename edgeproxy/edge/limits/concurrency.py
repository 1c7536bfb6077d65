"""Concurrency: a limit on simultaneous requests, in all workers together."""

from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.slots import Slots
from edgeproxy.edge.limits.window import HUB_RETRY_SECONDS


class Concurrency:
    """A rule as it applies to one subject. A slot is acquired at admission and released at the request's end."""

    __slots__ = ("_rule", "counts")

    def __init__(self, rule: Rule, slots: Slots) -> None:
        self._rule = rule
        self.counts = slots
        """The counted slots."""

    @property
    def name(self) -> str:
        """The label of the limit."""
        return self._rule.name

    @property
    def limit(self) -> int:
        """The most slots in use at once."""
        return self._rule.limit

    def acquire(self, now: float) -> bool:
        """Acquire a slot. Return False if all are in use."""
        return self.counts.take(self._rule.limit, now)

    def release(self) -> None:
        """Release the slot of a request that has ended."""
        self.counts.release()

    def retry_after(self, now: float, cost: int = 1) -> int:
        """Return the seconds until a retry may succeed; 0 if there is a slot now.

        It is 1 otherwise, because the ends of requests are unknown.
        """
        if not self.counts.is_full(self._rule.limit, now):
            return 0
        return HUB_RETRY_SECONDS if self.counts.is_shut else 1


class OwnConcurrency(Slots):
    """The same with slots that no other limit of the process counts in: one object for both, as most customers have."""

    __slots__ = ()

    @property
    def counts(self) -> Slots:
        """The counted slots."""
        return self

    @property
    def name(self) -> str:
        """The label of the limit."""
        return self._gauges.rule.name

    @property
    def limit(self) -> int:
        """The most slots in use at once."""
        return self._gauges.rule.limit

    def acquire(self, now: float) -> bool:
        """Acquire a slot. Return False if all are in use."""
        return self.take(self._gauges.rule.limit, now)

    def retry_after(self, now: float, cost: int = 1) -> int:
        """Return the seconds until a retry may succeed, as Concurrency does."""
        if not self.is_full(self._gauges.rule.limit, now):
            return 0
        return HUB_RETRY_SECONDS if self.is_shut else 1


ConcurrencyLimit = Concurrency | OwnConcurrency
