"""What holds a customer: the tier, and what the customer has of their own instead."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from edgeproxy.config.models import BurstCredits, Customer, Key, Limit, Quota, Tier

ANONYMOUS = "anonymous"
"""The tier that holds requests without a key on open routes, by their address."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a tier says, with nothing left to look up elsewhere."""

    limits: tuple[Limit, ...]
    concurrency: int | None
    """Requests at once; None: any number."""
    quotas: tuple[Quota, ...]
    burst_credits: BurstCredits | None
    priority: int
    """The larger, the later shed."""
    message: str | None
    """What is said on refusal, beside why."""


def plan_of(tier: Tier, customer: Customer | None) -> Plan:
    """Return the limits of a customer of this tier; None: of a customer of whom nothing else is known."""
    if customer is None:
        return Plan(tier.limits, tier.concurrency, tier.quotas, tier.burst_credits, tier.priority, tier.message)
    concurrency, credits = customer.concurrency, customer.burst_credits
    return Plan(
        limits=_own(customer.limits, tier.limits),
        concurrency=None if concurrency == "none" else _own(concurrency, tier.concurrency),
        quotas=_own(customer.quotas, tier.quotas),
        burst_credits=None if credits == "off" else _own(credits, tier.burst_credits),
        priority=_own(customer.priority, tier.priority),
        message=_own(customer.message, tier.message),
    )


def with_key(plan: Plan, key: Key) -> Plan:
    """Return the plan with the limits of a key, which come in the place of those that count the same of it."""
    if not key.limits:
        return plan
    own = {_counted(limit) for limit in key.limits}
    return replace(plan, limits=(*(limit for limit in plan.limits if _counted(limit) not in own), *key.limits))


def _counted(limit: Limit) -> tuple[str, float, str, str]:
    return limit.scope, limit.window, limit.algorithm, limit.mode


def unknown_in(customer: Customer, tiers: Mapping[str, Tier], meters: Container[str]) -> str | None:
    """Name what a customer's plan needs and these lack, such as `tier gold`; None where nothing is missing.

    For a customer from elsewhere: of those of the files it is checked when they are read.
    """
    if customer.tier not in tiers:
        return f"tier {customer.tier}"
    missing = [quota.meter for quota in customer.quotas or () if quota.meter not in meters]
    return f"meter {missing[0]}" if missing else None


def _own(own: T | None, otherwise: T) -> T:
    return otherwise if own is None else own
