"""Limits in units that answers state, such as tokens: reserved by a request, charged once its answer states them.

A request passes if what it reserves fits beside what all requests under way have reserved. Reservations are slots in a
row of their own: those of a worker that died count no more, and none is left for ever. What an answer takes beyond its
reservation is charged whatever is left, and paid before the next request passes.
"""

from edgeproxy.config.units import COUNT_MAX
from edgeproxy.edge.limits.gate import Gate
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.slots import Slots


class UnitLimit:
    """A limit of units as it applies to one subject. `policy` is the rate, whose gate reports to other hosts."""

    __slots__ = ("_slots", "gate", "limit", "meter", "policy", "reserve")

    def __init__(self, policy: Policy, slots: Slots, meter: str, reserve: int, gate: Gate | None) -> None:
        self.policy = policy
        self.meter = meter
        self.reserve = reserve
        """Units that a request reserves."""
        self.limit = policy.most // reserve
        """Requests that may be under way while nothing is used."""
        self._slots = slots
        self.gate = gate

    @property
    def name(self) -> str:
        """The label of the limit."""
        return self.policy.name

    @property
    def counts(self) -> Slots:
        """The slots of the requests under way."""
        return self._slots

    def acquire(self, now: float) -> bool:
        """Reserve the units of a request; return False where they do not fit."""
        requests = self.policy.left(now) // self.reserve
        return requests > 0 and self._slots.acquire(requests, now)

    def release(self) -> None:
        """Release the reservation of a request that has ended."""
        self._slots.release()

    def count(self, units: int, now: float) -> None:
        """Charge the units that an answer took, whatever is left."""
        self.policy.left(now)
        self.policy.charge(min(units, COUNT_MAX))
        if self.gate is not None:
            self.gate.record_late_charge(now)

    def retry_after(self, now: float, cost: int = 1) -> int:
        """Return the whole seconds until a request may pass: until units have left the window, or one second where
        requests under way reserve those that there are; 0 where it passes now.
        """
        requests = self.policy.left(now) // self.reserve
        if requests < 1:
            return self.policy.retry_after(now, self.reserve)
        return 1 if self._slots.is_full(requests, now) else 0
