"""The terms of a customer's tier for the portal."""

from collections.abc import Mapping
from typing import NamedTuple

from edgeproxy.base.json_values import JsonValue
from edgeproxy.config.allowance import Allowance, compute_allowance
from edgeproxy.config.customers import Customer
from edgeproxy.config.tiers import Tier
from edgeproxy.config.units import DAY_SECONDS


class TierTerms(NamedTuple):
    """The terms of a tier, replaced by a customer's own terms where set."""

    allowance: Allowance
    detail_days: int | None
    """Days of detailed usage; None: all."""


def compute_terms(tier: Tier, customer: Mapping[str, JsonValue] | None = None) -> TierTerms:
    """Return the terms of a tier. `customer` comes from the API. Its own settings replace the tier's."""
    own = None
    if customer is not None:
        written = {name: customer[name] for name in Customer.model_fields if customer.get(name) is not None}
        own = Customer.model_validate(written)
    enforced = compute_allowance(tier, own)
    days = None if tier.analytics is None else int(tier.analytics // DAY_SECONDS)
    return TierTerms(enforced, days)
