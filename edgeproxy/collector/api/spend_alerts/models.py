"""Spend alerts as the API shows them."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.api.invoices.models import Cents
from edgeproxy.collector.billing.reports.spend_alerts import AMOUNTS_MAX


class SpendAlertsRequest(Body):
    """All amounts at which a customer wants an alert."""

    amounts: Annotated[tuple[Cents, ...], Field(max_length=AMOUNTS_MAX)]
    """The amounts, in smallest units of the currency, such as cents, before tax; an empty list: no alerts."""


class SpendAlertsResponse(TypedDict):
    """The amounts at which a customer has an alert, and what the period has cost so far."""

    customer: str
    """The customer's name."""
    currency: str
    """The currency, such as `usd`."""
    amounts: list[int]
    """The amounts, in smallest units of the currency, such as cents, before tax, the least first."""
    spent: int | None
    """What the current period has cost so far, in smallest units before tax; null without a subscription."""
    period_start: str | None
    """When the current period began; null without a subscription."""
