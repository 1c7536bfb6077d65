"""Concurrency: at most so many requests under way at once, in all workers together."""

from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.slots import Slots
from edgeproxy.edge.limits.window import HUB_RETRY_SECONDS


class Concurrency:
    """One rule as it applies to one subject. A slot is taken at admission, and given back when the request is over."""

    __slots__ = ("_slots", "limit", "name")

    def __init__(self, rule: Rule, slots: Slots) -> None:
        self.name = rule.name
        self.limit = rule.limit
        self._slots = slots

    @property
    def counts(self) -> Slots:
        """The slots in which it is counted."""
        return self._slots

    def acquire(self, now: float) -> bool:
        """Take a slot; False, and nothing taken, where all are taken."""
        return self._slots.acquire(self.limit, now)

    def release(self) -> None:
        """Give back the slot of a request that is over."""
        self._slots.release()

    def retry_after(self, now: float, cost: int = 1) -> int:
        """Seconds after which it may be worth a try: 1, for nobody knows; 0 where there is a slot now."""
        if not self._slots.is_full(self.limit, now):
            return 0
        return HUB_RETRY_SECONDS if self._slots.is_shut else 1
