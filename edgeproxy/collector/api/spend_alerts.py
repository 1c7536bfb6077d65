"""Spend alerts of a customer."""

from typing import Annotated

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.api.customer_billing import (
    NO_USAGE,
    CustomerBillingHandlers,
    CustomerChangeQuery,
    CustomerQuery,
)
from edgeproxy.collector.api.endpoint import CHANGERS, MONEY_READERS, OWN, Call, Nothing, get, put
from edgeproxy.collector.api.group import Group
from edgeproxy.collector.api.invoices.models import Cents
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.responses import ProblemError, Result
from edgeproxy.collector.billing.period_close.invoice_lines import compute_running_cost
from edgeproxy.collector.billing.period_close.quantities import QuantityTooLargeError, UsageNotStoredError
from edgeproxy.collector.billing.reports import spend_alerts
from edgeproxy.collector.billing.reports.spend_alerts import AMOUNTS_MAX
from edgeproxy.collector.billing.subscriptions import subscription_rows
from edgeproxy.collector.problems import billing_codes
from edgeproxy.config.collector.catalog import get_default_currency


class SpendAlertsRequest(Body):
    """All amounts that trigger an alert for a customer."""

    amounts: Annotated[tuple[Cents, ...], Field(max_length=AMOUNTS_MAX)]
    """The amounts before tax, in the smallest unit of the currency, for example cents. No amounts: no alerts."""


class SpendAlertsResponse(TypedDict):
    """The amounts that trigger an alert for a customer, and the cost of its period so far."""

    customer: str
    """The customer's name."""
    currency: str
    """The currency, for example `usd`."""
    amounts: list[int]
    """The amounts, in the smallest unit of the currency, for example cents, before tax, in ascending order."""
    spent: int | None
    """The cost of the current period so far, in the smallest unit, before tax; null without a subscription."""
    period_start: str | None
    """The start of the current period; null without a subscription."""


class SpendAlertHandlers(CustomerBillingHandlers):
    """Handlers of spend alerts."""

    @get("/billing/spend-alerts", roles=MONEY_READERS | OWN, rate=RequestRate(100, "customer"))
    async def fetch_spend_alerts(self, call: Call[CustomerQuery, Nothing]) -> SpendAlertsResponse:
        """Fetch a customer's spend alerts, and the cost of its period so far."""
        customer = self._get_customer(call)
        async with self._database.reading(whole=True) as connection:
            return await self._build_response(connection, await customers.get_row(connection, customer))

    @put("/billing/spend-alerts", roles=CHANGERS | OWN, example={"amounts": [20000, 50000]})
    async def put_spend_alerts(
        self, call: Call[CustomerChangeQuery, SpendAlertsRequest]
    ) -> Result[SpendAlertsResponse]:
        """Replace a customer's spend alerts."""
        customer = self._get_customer(call)
        # Before the change: reading the period's cost may take long, and would block other writers.
        async with self._database.reading(whole=True) as reading:
            row = await customers.get_row(reading, customer)
            response = await self._build_response(reading, row)

        async def make(connection: AsyncConnection) -> Result[SpendAlertsResponse]:
            await spend_alerts.put_amounts(connection, call.caller, customer, call.body.amounts)
            return Result({**response, "amounts": await spend_alerts.fetch_amounts(connection, row.id)})

        return await self._change(call, make)

    async def _build_response(self, connection: AsyncConnection, customer: CustomerRow) -> SpendAlertsResponse:
        response: SpendAlertsResponse = {
            "customer": customer.name,
            "currency": customer.currency or get_default_currency(self._settings.plans),
            "amounts": await spend_alerts.fetch_amounts(connection, customer.id),
            "spent": None,
            "period_start": None,
        }
        row = await subscription_rows.find_live(connection, customer.id)
        if row is not None:
            loaded = await subscription_rows.load_subscription(connection, row)
            try:
                response["spent"] = await compute_running_cost(connection, loaded, self._settings.meters)
            except (QuantityTooLargeError, UsageNotStoredError) as error:
                raise ProblemError(billing_codes.USAGE_NOT_PRICEABLE, str(error)) from None
            response["period_start"] = format_timestamp(loaded.current.period.start * 1000)
        return response


GROUP = Group(
    "spend-alerts",
    "Alerts for customers when the cost of their period reaches an amount.",
    SpendAlertHandlers,
    errors=NO_USAGE | {404: "Billing is not configured, or the customer does not exist."},
)
