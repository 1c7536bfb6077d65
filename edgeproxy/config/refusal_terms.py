"""The kinds of refusals, with their statuses, remedies and words. Pure.

Edges send them as problems. The collector shows them before a request is made.
"""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from edgeproxy.config.allowance import SpendingCap
from edgeproxy.config.limits import Entitlement, KeyBudget, Quota

QuotaKind = Literal["quota", "plan", "cap", "budget", "credits"]
"""The kinds of quotas: of a tier or customer, of a plan, of spending, of a key, and of prepaid credits."""
LimitKind = Literal["rate", "concurrency"] | QuotaKind
RefusalKind = Literal["account", "key"] | LimitKind
"""`account`: the customer is paused or deleted. `key`: it has no working key. All others are limits."""
Remedy = Literal["wait", "upgrade", "top_up", "change_request", "pay", "contact", "create_key"]


class RefusalTerms(NamedTuple):
    """A refusal of a kind."""

    status: int
    remedy: Remedy
    """The usual way to end it."""
    lead: str
    """The beginning of its sentence."""


TERMS: Final[Mapping[RefusalKind, RefusalTerms]] = {
    "account": RefusalTerms(403, "contact", "The customer is paused"),
    "key": RefusalTerms(401, "create_key", "No API key works"),
    "rate": RefusalTerms(429, "wait", "The rate limit is reached"),
    "concurrency": RefusalTerms(429, "wait", "Too many requests at once"),
    "quota": RefusalTerms(429, "wait", "The quota is used up"),
    "plan": RefusalTerms(429, "upgrade", "The amount that the plan includes is used up"),
    "cap": RefusalTerms(429, "wait", "The spending cap is reached"),
    "budget": RefusalTerms(429, "wait", "The budget is used up"),
    "credits": RefusalTerms(402, "top_up", "The credits that were paid in advance are spent"),
}
"""The terms of each kind. A payment ends a pause of status 402, so its remedy is `pay`."""


def get_quota_kind(quota: Quota) -> QuotaKind:
    """Return the kind of a configured quota."""
    if isinstance(quota, Entitlement):
        return "credits" if quota.is_credits else "plan"
    if isinstance(quota, KeyBudget):
        return "budget"
    return "cap" if isinstance(quota, SpendingCap) else "quota"
