"""Spend alerts as the API shows them."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.api.invoices.models import Cents
from edgeproxy.collector.billing.reports.spend_alerts import AMOUNTS_MAX


class SpendAlertsRequest(Body):
    """All amounts that trigger an alert for a customer."""

    amounts: Annotated[tuple[Cents, ...], Field(max_length=AMOUNTS_MAX)]
    """The amounts, in the smallest unit of the currency, such as cents, before tax. An empty list turns the alerts off.
    """


class SpendAlertsResponse(TypedDict):
    """The amounts that trigger an alert for a customer, and the cost of its period so far."""

    customer: str
    """The customer's name."""
    currency: str
    """The currency, such as `usd`."""
    amounts: list[int]
    """The amounts, in the smallest unit of the currency, such as cents, before tax, in ascending order."""
    spent: int | None
    """The cost of the current period so far, in the smallest unit, before tax; null without a subscription."""
    period_start: str | None
    """The start of the current period; null without a subscription."""
