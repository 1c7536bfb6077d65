"""The currency of a customer: the one chosen with a plan, else the currency of its first plan with a price.

Once fixed it never changes, and nothing is converted. Credits have this currency, too, if they are sold in it. A
customer that got credits before a currency was chosen has them in US dollars, and is charged in US dollars.
"""

from collections.abc import Collection

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
from edgeproxy.collector.problems import billing_codes
from edgeproxy.config.collector.catalog import Plan, parse_plan
from edgeproxy.config.collector.currency_units import USD


async def choose_plan_currency(
    connection: AsyncConnection, customer: Subscriber, version: str, plan: Plan, currency: str | None
) -> Plan:
    """Return a plan with its prices in the customer's currency, which may be given. Raises ChangeRejectedError."""
    if currency is not None and customer.currency not in (None, currency):
        raise ChangeRejectedError(
            billing_codes.CURRENCY_FIXED, f"the customer is charged in {customer.currency}, and that cannot change"
        )
    chosen = currency or customer.currency or plan.currency
    _require_price(version, plan, chosen)
    is_choice = customer.currency is None and (plan.has_prices or currency is not None)
    # Credits without a chosen currency are in US dollars, and nothing is converted.
    if chosen != USD and is_choice and await has_credits(connection, customer.id):
        raise ChangeRejectedError(
            billing_codes.CURRENCY_FIXED, f"the customer has credits, so that it cannot be charged in {chosen}"
        )
    # Otherwise the subscription would begin, and its next price change would fail.
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
    """Fix the currency of a customer's charges if none was chosen yet, and return the customer.

    The amounts of its spend alerts were in the currency `before`. They mean nothing in another currency, so they are
    deleted.
    """
    if customer.currency is not None:
        return customer
    # Read again under the lock: another request may have chosen a currency meanwhile.
    row = await customers.get_row(connection, customer.id, lock=True)
    if row.currency is None:
        await customers.transition(connection, row, currency=currency)
        entry = AuditEntry("customer.currency", customer.name, {"currency": None}, {"currency": currency})
        if currency != before:
            await connection.execute(sa.delete(spend_alerts).where(spend_alerts.c.customer == customer.id))
        await audit.append_entry(connection, caller, entry)
    elif row.currency != currency:
        raise ChangeRejectedError(
            billing_codes.CURRENCY_FIXED, f"the customer is charged in {row.currency}, and that cannot change"
        )
    return customer._replace(currency=currency)


async def has_credits(connection: AsyncConnection, customer: str) -> bool:
    """Return whether a customer, by id, has or had prepaid credits."""
    statement = sa.select(credit_balances.c.customer).where(credit_balances.c.customer == customer)
    return (await connection.execute(statement)).first() is not None


async def choose_credit_currency(
    connection: AsyncConnection,
    customer: Subscriber,
    sold: Collection[str],
    default: str,
    currency: str | None = None,
) -> str:
    """Return the currency of a customer's credits. Raises ChangeRejectedError if credits are not available in it.

    It is the customer's own currency, else the given one, else `default` if credits are sold in it, else US dollars.
    """
    if currency is not None and customer.currency not in (None, currency):
        raise ChangeRejectedError(
            billing_codes.CURRENCY_FIXED, f"the customer is charged in {customer.currency}, and that cannot change"
        )
    chosen = customer.currency or currency or (default if default in sold else USD)
    if chosen not in sold:
        why = f"credits are sold in {', '.join(sold)}, and nothing is converted"
        raise ChangeRejectedError(billing_codes.CURRENCY_NOT_SOLD, f"the customer is charged in {chosen}: {why}")
    if customer.currency is None and chosen != USD and await has_credits(connection, customer.id):
        if currency is not None:
            raise ChangeRejectedError(
                billing_codes.CURRENCY_FIXED,
                f"the customer has credits in {USD}, so that it cannot be charged in {chosen}",
            )
        chosen = USD
    return chosen
