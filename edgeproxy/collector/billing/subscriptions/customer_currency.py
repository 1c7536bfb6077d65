"""The currency in which a customer is charged: the one that it chooses with a plan, else that of its first plan with a
price. From then on it stays. Nothing is converted.

Credits are sold in US dollars: customers who have some are charged in these, and others cannot get any.
"""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError, reject_field
from edgeproxy.collector.billing.subscriptions.plan_versions import fetch_moves
from edgeproxy.collector.billing.subscriptions.price_moves import list_next_moves
from edgeproxy.collector.billing.subscriptions.subscription_rows import Subscriber
from edgeproxy.collector.database.billing_tables import plan_versions, spend_alerts
from edgeproxy.collector.database.credit_tables import credit_balances
from edgeproxy.config.collector.catalog import Plan, parse_plan
from edgeproxy.config.collector.currency_units import USD

CREDITS_IN_USD = "credits are sold in usd, and nothing is converted"


async def choose_plan_currency(
    connection: AsyncConnection, customer: Subscriber, version: str, plan: Plan, currency: str | None
) -> Plan:
    """Return a plan with its prices in the customer's currency, which may be named; raises ChangeRejectedError."""
    if currency is not None and customer.currency not in (None, currency):
        raise ChangeRejectedError(409, f"the customer is charged in {customer.currency}, and that cannot change")
    chosen = currency or customer.currency or plan.currency
    _require_price(version, plan, chosen)
    if chosen != USD and (plan.has_prices or currency is not None) and await has_credits(connection, customer.id):
        raise ChangeRejectedError(409, f"the customer has credits, so that it cannot be charged in {chosen}")
    for move in list_next_moves(version, customer.name, await fetch_moves(connection)):
        settings = sa.select(plan_versions.c.settings).where(plan_versions.c.version == move.after)
        _require_price(move.after, parse_plan((await connection.execute(settings)).scalar_one()), chosen)
    return plan.in_currency(chosen)


def _require_price(version: str, plan: Plan, currency: str) -> None:
    if currency not in plan.currencies:
        raise reject_field("currency", f"{version} has no price in {currency}, only in {', '.join(plan.currencies)}")


async def fix_currency(
    connection: AsyncConnection, caller: Caller, customer: Subscriber, currency: str, *, before: str
) -> Subscriber:
    """Have a customer charged in a currency for good, where none was chosen yet, and return it.

    The amounts of its spend alerts were in the currency that it had `before`: in another one they say nothing, and are
    dropped.
    """
    if customer.currency is not None:
        return customer
    row = await customers.get_row(connection, customer.id, lock=True)
    if row.currency is None:
        await customers.transition(connection, row, currency=currency)
        entry = AuditEntry("customer.currency", customer.name, {"currency": None}, {"currency": currency})
        if currency != before:
            await connection.execute(sa.delete(spend_alerts).where(spend_alerts.c.customer == customer.id))
        await audit.append_entry(connection, caller, entry)
    elif row.currency != currency:
        raise ChangeRejectedError(409, f"the customer is charged in {row.currency}, and that cannot change")
    return customer._replace(currency=currency)


async def has_credits(connection: AsyncConnection, customer: str) -> bool:
    """Return whether a customer, by id, has or had prepaid credits."""
    statement = sa.select(credit_balances.c.customer).where(credit_balances.c.customer == customer)
    return (await connection.execute(statement)).first() is not None


def check_may_have_credits(currency: str | None) -> None:
    """Raise ChangeRejectedError where a customer who is charged in this currency cannot have credits."""
    if currency not in (None, USD):
        raise ChangeRejectedError(409, f"the customer is charged in {currency}: {CREDITS_IN_USD}")
