"""The allowance of a customer: the limits of the tier, replaced by the customer's own limits."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from edgeproxy.config.customers import Customer, DirectoryKey, Flag, Key, Subscriber
from edgeproxy.config.directory import FREE
from edgeproxy.config.limits import BurstCredits, Caps, ConcurrencyLimit, Entitlement, Limit, Messages, Quota
from edgeproxy.config.meters import MEASURES, Meter
from edgeproxy.config.selection import ANY_ROUTES, RouteSelector, SelectableRoute, Selecting, is_of_all
from edgeproxy.config.tiers import Tier
from edgeproxy.config.units import COUNT_MAX, Rate

ANONYMOUS = "anonymous"
"""The tier that limits requests without a key on open routes, by address."""

COST = "cost"
"""The meter of caps, in millicredits."""
SESSION = "session"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Allowance:
    """The complete limits of a customer, without references to look up elsewhere."""

    limits: tuple[Limit, ...]
    concurrency: ConcurrencyLimit | None
    """The limit of concurrent requests. None: any number."""
    quotas: tuple[Quota, ...]
    burst_credits: BurstCredits | None
    caps: Caps | None
    priority: int
    """Larger priorities are shed later."""
    message: str | Messages | None
    """Text for refused clients after the reason, for all kinds of limits or by kind."""


def compute_allowance(tier: Tier, customer: Customer | None) -> Allowance:
    """Return the limits of a customer of this tier. None: nothing else is known of the customer."""
    if customer is None:
        return Allowance(
            tier.limits, tier.concurrency, tier.quotas, tier.burst_credits, tier.caps, tier.priority, tier.message
        )
    concurrency, credits = customer.concurrency, customer.burst_credits
    allowance = Allowance(
        limits=_override(customer.limits, tier.limits),
        concurrency=None if concurrency == "none" else _override(concurrency, tier.concurrency),
        quotas=_override(customer.quotas, tier.quotas)
        + (customer.entitled if isinstance(customer, Subscriber) else ()),
        burst_credits=None if credits == "off" else _override(credits, tier.burst_credits),
        caps=_override(customer.caps, tier.caps),
        priority=_override(customer.priority, tier.priority),
        message=_override(customer.message, tier.message),
    )
    raised = customer.raised if isinstance(customer, Subscriber) else None
    return allowance if raised is None else raise_allowance(allowance, raised.factor)


def raise_allowance(allowance: Allowance, factor: int) -> Allowance:
    """Return the allowance with its rates, their bursts and its concurrency multiplied by `factor`.

    Rates of routes that customers share stay unchanged, as do quotas, credits and caps, which concern money.
    """
    limits = (limit if limit.scope == "route" else _raise_limit(limit, factor) for limit in allowance.limits)
    concurrency = allowance.concurrency
    raised = concurrency and concurrency.model_copy(update={"max": min(concurrency.max * factor, COUNT_MAX)})
    return replace(allowance, limits=tuple(limits), concurrency=raised)


def _raise_limit(limit: Limit, factor: int) -> Limit:
    rate = Rate(min(limit.count * factor, COUNT_MAX), limit.window)
    burst = None if limit.burst is None else min(limit.burst * factor, COUNT_MAX)
    return limit.model_copy(update={"rate": rate, "burst": burst})


def compute_effective_allowance(tier: Tier, customer: Customer, flags: Mapping[str, Flag]) -> Allowance:
    """Return the limits of a customer with these flags.

    FREE removes the limits about money: spending, prepaid credits, and usage included in a plan. Places of a plan stay.
    """
    allowance = compute_allowance(tier, customer)
    if not is_free(flags):
        return allowance
    quotas = tuple(quota for quota in allowance.quotas if not isinstance(quota, Entitlement) or quota.per is None)
    return replace(allowance, quotas=quotas, caps=None)


def is_free(flags: Mapping[str, Flag]) -> bool:
    """Return whether these flags stop all charges."""
    return FREE in flags and flags[FREE].percent > 0


def apply_key_limits(allowance: Allowance, key: Key, flags: Mapping[str, Flag]) -> Allowance:
    """Return the allowance with the budget and the limits of a key. These replace the customer's limits of equal kind.

    While charges are stopped, budgets of money are not enforced.
    """
    budget = key.budget if isinstance(key, DirectoryKey) else None
    if budget is not None and not (budget.is_of_money and is_free(flags)):
        allowance = replace(allowance, quotas=(*allowance.quotas, budget))
    if not key.limits:
        return allowance
    own = [_limit_identity(limit) for limit in key.limits]
    return replace(
        allowance, limits=(*(limit for limit in allowance.limits if _limit_identity(limit) not in own), *key.limits)
    )


class Spending(Limit):
    """A limit of spending, which may exist beside a limit of requests with an equal window.

    All spending counts. `routes` and `scopes` name the requests that it refuses.
    """

    scope: Literal["spending"] = "spending"  # type: ignore[assignment]

    @property
    def counts_all(self) -> bool:
        """True: the spending of all requests counts, including requests that it never refuses."""
        return True


class SpendingCap(Quota):
    """A quota of a day's spending: a cap."""


def apply_caps(allowance: Allowance, meters: Mapping[str, Meter]) -> Allowance:
    """Return the allowance with its caps as a limit and a quota. Caps per request stay.

    Entitlements of meters that are not counted here are dropped.
    """
    if any(isinstance(quota, Entitlement) and quota.meter not in meters for quota in allowance.quotas):
        known = (quota for quota in allowance.quotas if not isinstance(quota, Entitlement) or quota.meter in meters)
        allowance = replace(allowance, quotas=tuple(known))
    caps, meter = allowance.caps, meters.get(COST)
    if caps is None or meter is None:  # Without the meter nothing is spent.
        return allowance
    limits, quotas, held = allowance.limits, allowance.quotas, get_selection(caps, meter)
    named = {"routes": held.routes, "scopes": held.scopes}
    if caps.session is not None:
        limits = (*limits, Spending(name=SESSION, rate=caps.session, cost_header=meter.header, **named))
    if caps.day is not None:
        quotas = (*quotas, SpendingCap(meter=COST, per="day", included=caps.day, cap="hard", **named))
    return replace(allowance, limits=limits, quotas=quotas, caps=caps.model_copy(update=named))


def get_concurrency(allowance: Allowance) -> int | None:
    """Return the maximum of concurrent requests. None: any number."""
    return None if allowance.concurrency is None else allowance.concurrency.max


def get_selection(part: Selecting, meter: Selecting) -> Selecting:
    """Return the requests that a quota or a cap selects: by default the requests of its meter."""
    return meter if is_of_all(part) else part


def feeds_meter(meter: Meter, route: SelectableRoute, selector: RouteSelector = ANY_ROUTES) -> bool:
    """Return whether requests of this route feed a meter. Bodies contain usage only if the route names its format."""
    states_usage = MEASURES[meter.count].in_body is None or route.response_usage is not None
    return states_usage and selector.selects(meter, route)


def holds_route(quota: Quota, meter: Meter, route: SelectableRoute, selector: RouteSelector = ANY_ROUTES) -> bool:
    """Return whether a quota of a meter applies to this route: by default if the route feeds the meter."""
    return feeds_meter(meter, route, selector) if is_of_all(quota) else selector.selects(quota, route)


def _limit_identity(limit: Limit) -> tuple[object, ...]:
    return limit.scope, limit.window, limit.algorithm, limit.mode, sorted(limit.routes), sorted(limit.scopes)


def find_missing_reference(
    customer: Customer, tiers: Mapping[str, Tier], meters: Container[str], key: Key | None = None
) -> str | None:
    """Return the first missing reference in the allowance of a customer and its key, as `tier gold`, or None.

    This is for customers from elsewhere. The customers of the files are checked when they are read.
    """
    if customer.tier not in tiers:
        return f"tier {customer.tier}"
    # Only the collector knows how many exist.
    needed = [quota.meter for quota in customer.quotas or () if quota.per is not None]
    needed += [COST] if customer.caps is not None else []
    needed += [limit.of for limit in customer.limits or () if limit.of is not None]
    if key is not None:
        needed += [limit.of for limit in key.limits if limit.of is not None]
        budget = key.budget if isinstance(key, DirectoryKey) else None
        needed += [budget.meter] if budget is not None and not budget.is_of_money else []
    missing = [meter for meter in needed if meter not in meters]
    return f"meter {missing[0]}" if missing else None


def _override(own: T | None, otherwise: T) -> T:
    return otherwise if own is None else own
