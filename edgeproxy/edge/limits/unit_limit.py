"""Limits in units that answers state, for example tokens: a request reserves units, and its answer's statement is
charged.

A request passes if its reserve fits beside the reservations of all current requests. Reservations are a gauge in a row
of their own. Reservations of a dead worker no longer count, so none stays for ever. An answer that exceeds its
reservation is charged whatever is left, and the debt must expire before the next request passes.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from edgeproxy.config.units import COUNT_MAX
from edgeproxy.edge.limits.gate import Gate
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.slots import Slots


class RequestTokens(Protocol):
    """The tokens that a request states; None if it does not."""

    @property
    def input(self) -> int | None: ...
    @property
    def output(self) -> int | None: ...


PARTS: Final[Mapping[str, tuple[bool, bool]]] = {
    "input_tokens": (True, False),
    "cached_tokens": (True, False),
    "uncached_tokens": (True, False),
    "output_tokens": (False, True),
    "total_tokens": (True, True),
    "cache_write_tokens": (True, False),
    "fresh_tokens": (True, False),
    "reasoning_tokens": (False, True),
    "audio_input_tokens": (True, False),
    "audio_output_tokens": (False, True),
    "image_input_tokens": (True, False),
    "image_output_tokens": (False, True),
}
"""True for tokens of input, and True for tokens of output, if the count of a meter includes them."""


class RequestReserve(NamedTuple):
    """The reserve of a request that states its tokens."""

    has_input: bool
    has_output: bool
    output: int
    """The reserve of output tokens if the request does not state their maximum."""
    most: int
    """The maximum reserve of any request, and the reserve of a request without a statement."""

    def compute(self, request: RequestTokens) -> int:
        """Return the units that a request reserves."""
        if request.input is None:
            return self.most
        units = request.input if self.has_input else 0
        if self.has_output:
            units += self.output if request.output is None else request.output
        return max(1, min(units, self.most))


OUTPUT_RESERVED: Final = 4096
"""The output tokens that a request reserves of a budget if it does not state their maximum."""


class Budget(Protocol):
    """A hard quota that is charged when answers state their usage."""

    limit: int
    name: str

    def left(self, now: float) -> int:
        """Return the units that are left at edge time `now`."""

    def retry_after(self, now: float, cost: int = 1) -> int:
        """Return the whole seconds until the next period begins; 0 if `cost` passes now."""


class BudgetReservation:
    """The reservation of one request in a budget, whose units are charged when the answer states them.

    A request reserves at most the units that are left, so a large one passes if no other is active. All requests
    together overrun the budget by at most one reservation.
    """

    __slots__ = ("_budget", "_by_request", "_reserved", "_slots", "_units", "limit", "name")

    def __init__(self, budget: Budget, slots: Slots, by_request: RequestReserve, units: int) -> None:
        self._budget, self._slots, self._by_request, self._units = budget, slots, by_request, units
        self._reserved = 0
        self.limit, self.name = budget.limit, budget.name

    @property
    def counts(self) -> Slots:
        """The gauge of the reserved units."""
        return self._slots

    @property
    def budget(self) -> Budget:
        """The budget of the reservation."""
        return self._budget

    def with_request(self, request: RequestTokens) -> "BudgetReservation":
        """Return the reservation of one request."""
        return BudgetReservation(self._budget, self._slots, self._by_request, self._by_request.compute(request))

    def acquire(self, now: float) -> bool:
        """Reserve the units of a request. Return False if they do not fit."""
        left = self._budget.left(now)
        self._reserved = min(self._units, left)
        return left > 0 and self._slots.take(left, now, self._reserved)

    def release(self) -> None:
        """Release the reservation of a request that has ended."""
        self._slots.release(self._reserved)

    def retry_after(self, now: float, cost: int = 1) -> int:
        """Return one second while current requests reserve the rest; 0 if there is room."""
        left = self._budget.left(now)
        if left <= 0:
            return self._budget.retry_after(now, cost)
        return 1 if self._slots.is_full(left, now, min(self._units, left)) else 0


class UnitLimit:
    """A limit of units as it applies to one subject. `policy` is the rate; its gate reports to other hosts."""

    __slots__ = ("_slots", "by_request", "gate", "limit", "meter", "policy", "reserve")

    def __init__(
        self,
        policy: Policy,
        slots: Slots,
        meter: str,
        reserve: int,
        gate: Gate | None,
        by_request: RequestReserve | None = None,
    ) -> None:
        self.policy = policy
        self.meter = meter
        self.reserve = reserve
        """Units that a request reserves."""
        self.by_request = by_request
        """The reserve by a request's own statement; None if all reserve an equal amount."""
        self.limit = policy.most
        """Units that may be reserved while nothing is used."""
        self._slots = slots
        self.gate = gate

    @property
    def name(self) -> str:
        """The label of the limit."""
        return self.policy.name

    @property
    def counts(self) -> Slots:
        """The gauge of the reserved units."""
        return self._slots

    def with_request(self, request: RequestTokens) -> "UnitLimit":
        """Return this limit for one request."""
        if self.by_request is None:
            return self
        reserve = self.by_request.compute(request)
        return UnitLimit(self.policy, self._slots, self.meter, reserve, self.gate, self.by_request)

    def acquire(self, now: float) -> bool:
        """Reserve the units of a request. Return False if they do not fit."""
        left = self.policy.left(now)
        return left >= self.reserve and self._slots.take(left, now, self.reserve)

    def release(self) -> None:
        """Release the reservation of a request that has ended."""
        self._slots.release(self.reserve)

    def count(self, units: int, now: float) -> None:
        """Charge the units that an answer took, whatever is left."""
        self.policy.left(now)
        self.policy.charge_late(min(units, COUNT_MAX))
        if self.gate is not None:
            self.gate.record_late_charge(now)

    def retry_after(self, now: float, cost: int = 1) -> int:
        """Return the whole seconds until a request may pass; 0 if it passes now.

        That is the time until units have left the window, or one second while current requests reserve the rest.
        """
        left = self.policy.left(now)
        if left < self.reserve:
            return self.policy.retry_after(now, self.reserve)
        return 1 if self._slots.is_full(left, now, self.reserve) else 0
