"""The set of limits that apply to requests of a customer on a route."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

from edgeproxy.edge.counters.rows import LimitTable, RowUnavailableError
from edgeproxy.edge.limits.concurrency import ConcurrencyLimit
from edgeproxy.edge.limits.counts import Counts
from edgeproxy.edge.limits.gate import Gate
from edgeproxy.edge.limits.policies import Total
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.quota import Quota
from edgeproxy.edge.limits.slots import Slots
from edgeproxy.edge.limits.unit_limit import BudgetReservation, RequestTokens, UnitLimit

NOTHING: Mapping[str, tuple[Quota | UnitLimit, ...]] = MappingProxyType({})
NO_GATES: Mapping[Policy, Gate] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class OtherRates:
    """Rates that are charged or enforced in another way than rates that refuse at admission."""

    reported: tuple[Policy, ...]
    """Rates that are charged the cost that the upstream reports in its answer; their debt is remembered."""
    spending: tuple[Policy, ...]
    """Rates that are charged the reported cost but limit only other routes: here they refuse nothing."""
    shadows: tuple[Policy, ...]
    """Shadow rates: they refuse no request, and only report the requests that they would refuse."""
    units: tuple[UnitLimit, ...]
    """Rates of units: each request reserves some of them, and its answer is charged."""
    trials: tuple[Policy, ...]
    """Shadow rates that are charged the cost that the upstream reports."""


@dataclass(frozen=True, slots=True)
class SharedLimits:
    """The limits of a set that other hosts share."""

    gates: tuple[tuple[Policy, Gate], ...]
    """The gates before rates: each decides whether the hub must be asked first, and reports charges."""
    paying: tuple[tuple[Policy, Gate], ...]
    """The gate before credits, for requests that draw on them only."""
    reporting_gates: Mapping[Policy, Gate]
    """The gates of the other rates, all or none of them. They only report, and their requests never ask."""
    totals: tuple[Total, ...]
    """The totals that report quotas and concurrency to other hosts."""


NO_OTHER_RATES = OtherRates((), (), (), (), ())
UNSHARED = SharedLimits((), (), NO_GATES, ())
"""Shared objects, because most sets have these values."""


class SetTraits:
    """The facts that follow from the kinds of a set's limits, and all of its limits but rates and concurrency.

    Customers who have only these two, on one host, share one object.
    """

    __slots__ = (
        "applies", "credits", "has_end_work", "impossible_costs", "may_ask", "metered", "other_rates", "plan_policies",
        "quotas", "shares", "sharing", "simple",
    )  # fmt: skip

    def __init__(
        self,
        *,
        has_policies: bool,
        has_slots: bool,
        plan_policies: int = 0,
        credits: Policy | None = None,
        other_rates: OtherRates = NO_OTHER_RATES,
        quotas: tuple[Quota, ...] = (),
        metered: Mapping[str, tuple[Quota | UnitLimit, ...]] = NOTHING,
        sharing: SharedLimits = UNSHARED,
    ) -> None:
        other = other_rates
        self.simple = credits is None and not quotas and other is NO_OTHER_RATES
        """True if there are only rates and concurrency, so that `admit_fast` may decide."""
        self.other_rates = other
        self.quotas = quotas
        """Quotas. Each is charged its cost at admission. The cost is refunded if the request does not count after
        all.
        """
        self.metered = metered
        """Quotas that are charged later, by their meter's counts. They pass while anything is left."""
        self.credits = credits
        self.plan_policies = plan_policies if credits is not None else 0
        """The number of policies, the first ones, that belong to the customer's plan: `credits` pay if these refuse."""
        self.sharing = sharing
        self.applies = has_policies or has_slots or not self.simple
        """True if any limit can refuse or be charged."""
        self.may_ask = bool(sharing.gates or sharing.reporting_gates)
        """True if a request may have to ask the hub first, or may be refused while the hub is away."""
        self.shares = sharing is not UNSHARED
        """True if charges are reported to other hosts."""
        self.impossible_costs: tuple[ImpossibleCost, ...] | None = None
        """The limits that never pass a request, once computed."""
        self.has_end_work = bool(has_slots or quotas or other.reported or other.spending or other.trials)
        """True if the end of a request releases or charges something."""


Slot = ConcurrencyLimit | UnitLimit | BudgetReservation
Several = tuple[tuple[Policy, ...], tuple[Slot, ...]]
NONE_ELSE: Several = ((), ())


class LimitSet:
    """All limits of a customer's requests on a route. Created once, used for every request.

    Most customers have one rate, and at most one limit on concurrency beside it. Two tuples for these would take 96
    bytes of each customer.
    """

    __slots__ = ("rate", "several", "slot", "traits")

    def __init__(
        self,
        policies: tuple[Policy, ...] = (),
        traits: SetTraits | None = None,
        slots: tuple[Slot, ...] = (),
        *,
        plan_policies: int = 0,
        credits: Policy | None = None,
        credits_gate: Gate | None = None,
        reported: tuple[Policy, ...] = (),
        spending: tuple[Policy, ...] = (),
        shadows: tuple[Policy, ...] = (),
        trials: tuple[Policy, ...] = (),
        quotas: tuple[Quota, ...] = (),
        units: tuple[UnitLimit, ...] = (),
        metered: Mapping[str, tuple[Quota | UnitLimit, ...]] = NOTHING,
        gates: tuple[tuple[Policy, Gate], ...] = (),
        reporting_gates: Mapping[Policy, Gate] = NO_GATES,
        totals: tuple[Total, ...] = (),
    ) -> None:
        """`traits` are those of other sets with rates and concurrency alone; then only `policies` and `slots` are
        given beside them.
        """
        if traits is None:
            slots += units
            if credits is not None and credits.cost > credits.most:
                credits = None  # There are never enough of them for such a request.
            has_others = reported or spending or shadows or units or trials
            paying = () if credits is None or credits_gate is None else ((credits, credits_gate),)
            is_shared = gates or paying or reporting_gates or totals
            traits = SetTraits(
                has_policies=bool(policies),
                has_slots=bool(slots),
                plan_policies=plan_policies,
                credits=credits,
                other_rates=OtherRates(reported, spending, shadows, units, trials) if has_others else NO_OTHER_RATES,
                quotas=quotas,
                metered=metered,
                sharing=SharedLimits(gates, paying, reporting_gates, totals) if is_shared else UNSHARED,
            )
        self.traits = traits
        self.rate: Policy | None = None
        """The only rate of a `simple` set that is not shared and has at most one slot; None in other sets."""
        self.slot: Slot | None = None
        """The slot beside this `rate`."""
        self.several = NONE_ELSE
        """The policies and slots of other sets."""
        if len(policies) == 1 and len(slots) < 2 and traits.simple and not traits.shares:
            (self.rate,) = policies
            if slots:
                (self.slot,) = slots
        else:
            self.several = policies, slots

    @staticmethod
    def create_lone(rate: Policy, slot: Slot | None, traits: SetTraits) -> "LimitSet":
        """Return a set of one rate and at most one slot, whose traits are those of such sets: as the constructor does,
        in a third of the time.
        """
        limit_set = LimitSet.__new__(LimitSet)
        limit_set.traits, limit_set.rate, limit_set.slot, limit_set.several = traits, rate, slot, NONE_ELSE
        return limit_set

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Rates that are charged their cost at admission."""
        return self.several[0] if self.rate is None else (self.rate,)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Concurrency, and reservations of units."""
        return self.several[1] if self.slot is None else (self.slot,)

    @property
    def bounds(self) -> "tuple[Bound, ...]":
        """Limits that refuse beside the policies: each passes a request while it has room for one."""
        traits = self.traits
        if traits.simple:
            return self.slots
        return (*traits.other_rates.reported, *traits.quotas, *self.slots)

    def with_request(self, request: RequestTokens) -> "LimitSet":
        """Return these limits for one request, which reserves the units that it states."""
        traits = self.traits
        other, sharing = traits.other_rates, traits.sharing
        units = tuple([limit.with_request(request) for limit in other.units])
        return LimitSet(
            self.policies,
            plan_policies=traits.plan_policies,
            credits=traits.credits,
            credits_gate=sharing.paying[0][1] if sharing.paying else None,
            reported=other.reported,
            spending=other.spending,
            shadows=other.shadows,
            trials=other.trials,
            slots=tuple(
                [
                    slot.with_request(request) if isinstance(slot, BudgetReservation) else slot
                    for slot in self.slots[: len(self.slots) - len(units)]
                ]
            ),
            quotas=traits.quotas,
            units=units,
            metered=traits.metered,
            gates=sharing.gates,
            reporting_gates=sharing.reporting_gates,
            totals=sharing.totals,
        )

    def find_rows(self, table: LimitTable, now: float) -> None:
        """Find or claim the rows of all limits at once, at edge time `now`: all are rates and concurrency in `table`.

        Otherwise, or if there is no row to be had, each looks for its own row at its first decision.
        """
        holders: list[Counts | Slots] = []
        keys: list[tuple[bytes, int, int]] = []
        rate, slot = self.rate, self.slot
        limits = (*self.policies, *self.slots) if rate is None or slot is None else (rate, slot)
        for limit in limits:
            counts = limit.counts
            key = counts.describe_row()
            if key is not None:
                holders.append(counts)
                keys.append(key)
        try:
            rows = iter(table.find_all(keys, now))
        except RowUnavailableError:
            return
        for counts in holders:
            counts.bind_row(next(rows), now)  # A strict `zip` would cost 2,000 instructions more.

    def release(self) -> None:
        """Release the slots of an admitted request at its end, whatever its outcome."""
        if self.slot is not None:
            self.slot.release()
        for slot in self.several[1]:
            slot.release()

    def refund(self, now: float, counts: Callable[[str], bool]) -> None:
        """Refund a request at its end for meters that do not count it. `counts` returns False for their `when`.

        `now` is the edge time of its admission.
        """
        for quota in self.traits.quotas:
            if quota.cost and not counts(quota.when):
                quota.refund(quota.cost, now)


class Bound(Protocol):
    """A limit that a refusal may name."""

    @property
    def name(self) -> str:
        """The label of the limit."""

    def retry_after(self, now: float, cost: int = 1) -> int:
        """Return the whole seconds until `cost` passes if no other request comes; 0 if it passes now."""


class ImpossibleCost(NamedTuple):
    """A limit that is lower than the cost of one request."""

    name: str
    cost: int
    most: int
    """The highest cost that passes while nothing is used."""
