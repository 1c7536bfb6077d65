"""The reasons why a customer cannot leave its residency now, and what stays there when it leaves, as sentences."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.plural import format_count
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import documents
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.accounts.states import CustomerState, compute_customer_state
from edgeproxy.collector.billing.credits import credits, top_ups
from edgeproxy.collector.billing.credits.top_up_decision import ON
from edgeproxy.collector.billing.stripe_sync.customer_deletion import SETTLED
from edgeproxy.collector.billing.subscriptions import imported_rows, subscription_rows
from edgeproxy.collector.database.billing_tables import invoices, spend_alerts
from edgeproxy.collector.database.privacy_tables import privacy_requests
from edgeproxy.collector.database.quota_tables import holdings
from edgeproxy.collector.database.schema import tokens
from edgeproxy.collector.database.webhook_tables import webhook_endpoints

FOREVER_MS = 1 << 62
END_PLAN = "end it when it is paid for (DELETE /billing/subscription), or let the move end it: end_plan"


async def find_obstacles(connection: AsyncConnection, row: CustomerRow, *, end_plan: bool) -> list[str]:
    """Return why a customer cannot leave now. `end_plan`: the end of the move ends its plan."""
    state = compute_customer_state(row)
    if state in (CustomerState.DELETING, CustomerState.DELETED):
        return [f"the customer is {state.value}"]
    obstacles = []
    if await _count(connection, privacy_requests, _is_open(row)):
        obstacles.append(
            "a request of a person about this customer is open: answer it first, the data lies elsewhere then"
        )
    live = await subscription_rows.find_live(connection, row.id)
    if live is not None and not end_plan:
        end = format_timestamp(live.period_end * 1000)
        obstacles.append(f"its plan {live.plan_version} runs, its period to {end}: {END_PLAN}")
    if await imported_rows.find_waiting(connection, row.id) is not None:
        obstacles.append("a subscription that was imported from Stripe waits to begin")
    unsettled = await _count(connection, invoices, (invoices.c.customer == row.id) & invoices.c.state.not_in(SETTLED))
    if unsettled:
        obstacles.append(f"{format_count(unsettled, 'invoice')} not settled: collect, settle or write off first")
    refunds = [
        unsettled_refund
        for unsettled_refund in await credits.list_unsettled_refunds(connection, FOREVER_MS)
        if unsettled_refund.customer == row.id
    ]
    if refunds:
        obstacles.append(f"{format_count(len(refunds), 'refund')} on the way")
    top_up = await top_ups.find_top_up(connection, row.id)
    if top_up is not None and top_up.purchase is not None:
        obstacles.append("an automatic purchase of credits is under way")
    return obstacles


async def list_staying(connection: AsyncConnection, row: CustomerRow) -> list[str]:
    """Return sentences about the things that a customer leaves behind, and about the necessary actions."""
    staying = [
        "usage, invoices and the journal: they stay in these books, under the pseudonym",
        "sessions: sign in anew",
    ]
    endpoints = await _count(connection, webhook_endpoints, webhook_endpoints.c.customer == row.id)
    if endpoints:
        staying.append(f"{format_count(endpoints, 'webhook endpoint')}: make them anew, their secrets are new")
    if row.public_key is not None:
        staying.append("the public key for new keys: register it anew")
    owned = await _count(connection, tokens, tokens.c.customer == row.name)
    if owned:
        staying.append(f"{format_count(owned, 'token')} of the customer: make them anew, the API is another one")
    held = await _count(connection, holdings, holdings.c.customer == row.name)
    if held:
        staying.append(
            f"{format_count(held, 'place')} held: services take them anew, and report to the other collector"
        )
    alerts = await _count(connection, spend_alerts, spend_alerts.c.customer == row.id)
    if alerts:
        staying.append(f"{format_count(alerts, 'spend alert')}: the customer sets them anew")
    top_up = await top_ups.find_top_up(connection, row.id)
    if top_up is not None and top_up.state == ON:
        staying.append("automatic top-up of credits: the customer turns it on anew")
    naming = [name for name, flag in (await documents.fetch_flags(connection)).items() if row.name in flag.customers]
    if naming:
        staying.append(f"its place in the flags {', '.join(sorted(naming))}: add it to those of the other residency")
    return staying


def _is_open(row: CustomerRow) -> sa.ColumnElement[bool]:
    return (privacy_requests.c.customer == row.id) & privacy_requests.c.ended_at.is_(None)


async def _count(connection: AsyncConnection, table: sa.Table, condition: sa.ColumnElement[bool]) -> int:
    statement = sa.select(sa.func.count()).select_from(table).where(condition)
    return int((await connection.execute(statement)).scalar_one())
