"""What holds a customer: the tier, and what the customer has of their own instead."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import TypeVar

from edgeproxy.config.models import BurstCredits, Customer, Limit, Quota, Tier

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
