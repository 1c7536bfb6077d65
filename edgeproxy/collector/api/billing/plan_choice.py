"""Checks before a customer takes a plan: it is on sale, and invoices have a recipient. Staff may assign any plan.

A change and its preview share these checks.
"""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.api.auth import Holder
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.stripe.billing_details import find_details
from edgeproxy.collector.billing.stripe.customers import find_contact_email
from edgeproxy.collector.billing.subscriptions import plans_on_sale
from edgeproxy.collector.billing.subscriptions.subscription_rows import get_subscriber
from edgeproxy.collector.problems import billing_codes
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.catalog import Plan


async def check_choice(
    connection: AsyncConnection,
    holder: Holder,
    customer: str,
    plan: str,
    plans: Mapping[str, Plan],
    billing: Billing,
    *,
    held: str | None,
) -> None:
    """Raise ChangeRejectedError if a customer chooses a version that is no longer on sale, or has no invoice address.

    A customer may keep the version that it `held`. Staff may choose any.
    """
    if holder.customer is not None:
        plans_on_sale.check_sold(plan, plans, customer, held)
        await _check_invoice_address(connection, customer, plan, plans, billing)


async def _check_invoice_address(
    connection: AsyncConnection, name: str, plan: str, plans: Mapping[str, Plan], billing: Billing
) -> None:
    """Raise ChangeRejectedError if a customer takes a plan with costs, but has no invoice address or payment method."""
    if not plans[plans_on_sale.resolve_version(plan, plans, name)].has_prices:
        return
    if not (await charging.fetch_charging(connection, billing)).bills(name):
        return
    customer = await get_subscriber(connection, name)
    if await find_contact_email(connection, customer.id) is not None:
        return
    details = await find_details(connection, customer.id)
    if details is None or not (details.email or details.payment_method):
        why = "no invoice could reach you: add a contact, or an e-mail address by POST /billing/portal"
        raise ChangeRejectedError(billing_codes.INVOICE_ADDRESS_MISSING, why)
