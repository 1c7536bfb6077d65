"""Subscriptions imported from a Stripe account: recorded with an audit entry, begun, or dropped."""

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.subscriptions import (
    changes,
    customer_currency,
    eligibility,
    imported_rows,
    plan_versions,
    plans_on_sale,
    subscriptions,
)
from edgeproxy.collector.billing.subscriptions.imported_rows import ImportedRow
from edgeproxy.collector.billing.subscriptions.subscription_rows import get_subscriber
from edgeproxy.config.collector.settings import CollectorSettings


async def record_imported(connection: AsyncConnection, caller: Caller, row: ImportedRow) -> None:
    """Record a subscription that begins later. Raises ChangeRejectedError if the customer cannot have it."""
    customer = await get_subscriber(connection, row.customer, lock=True)
    await eligibility.check_may_subscribe(connection, customer, row.begins_at)
    await imported_rows.put_row(connection, row)
    values = {
        "stripe_subscription": row.stripe_id,
        "plan": row.plan_version,
        "interval": "year" if row.is_yearly else "month",
        "begins_at": format_timestamp(row.begins_at * 1000),
    }
    await audit.append_entry(connection, caller, AuditEntry("subscription.import", customer.name, None, values))


async def begin_imported(connection: AsyncConnection, row: ImportedRow, *, settings: CollectorSettings) -> bool:
    """Begin a subscription at the end of the time paid at Stripe, with the invoice of its first fee.

    Returns whether it began. If the customer is being deleted, the subscription is dropped. Raises ChangeRejectedError.
    """
    customer = await get_subscriber(connection, row.customer, lock=True)
    if customer.deleting_since is not None:
        await drop_imported(connection, subscriptions.RUNNER, row, "the customer is being deleted")
        return False
    if not await imported_rows.update_waiting(connection, row.stripe_id, state=imported_rows.BEGUN):
        return False
    await eligibility.check_may_subscribe(connection, customer, row.begins_at)
    plans = await plan_versions.fetch_plans_on_sale(connection, settings.plans, row.begins_at, customer.name)
    version = plans_on_sale.resolve_version(row.plan_version, plans, customer.name)
    terms = await customer_currency.choose_plan_currency(connection, customer, version, plans[version], None)
    assert settings.billing is not None
    try:
        current = changes.begin_subscription(
            version,
            terms,
            now=row.begins_at,
            anchor=row.anchor if settings.billing.anchor == "signup" else None,
            is_yearly=bool(row.is_yearly),
        )
    except changes.PlanChangeError as error:
        raise ChangeRejectedError(error.code, error.why, params=error.params) from None
    created = await subscriptions.begin_prepared(
        connection, subscriptions.RUNNER, customer, current, settings=settings, now=row.begins_at
    )
    await imported_rows.link_subscription(connection, row.stripe_id, created["id"])
    return True


async def drop_imported(connection: AsyncConnection, caller: Caller, row: ImportedRow, why: str) -> bool:
    """Drop a waiting subscription that Stripe charges or that is not wanted any more. Return whether it was waiting."""
    if not await imported_rows.update_waiting(connection, row.stripe_id, state=imported_rows.DROPPED, why=why):
        return False
    customer = await get_subscriber(connection, row.customer)
    values = {"stripe_subscription": row.stripe_id, "why": why}
    await audit.append_entry(connection, caller, AuditEntry("subscription.import_dropped", customer.name, None, values))
    return True
