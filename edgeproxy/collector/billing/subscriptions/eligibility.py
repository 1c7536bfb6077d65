"""Who may begin a subscription, and how: anew, or by going on with one that ended within its period."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.subscriptions import imported_rows, subscription_rows
from edgeproxy.collector.billing.subscriptions.subscription_rows import Subscriber, SubscriptionRow
from edgeproxy.collector.database.billing_tables import subscriptions


async def check_may_subscribe(connection: AsyncConnection, customer: Subscriber, now: float) -> SubscriptionRow | None:
    """Return the subscription that ended within its running period, which has to go on: a new one would give the
    included amounts of the period twice. None where a new one can begin. Raises ChangeRejectedError where none can."""
    if customer.deleting_since is not None:
        raise ChangeRejectedError(409, "the customer is being deleted")
    if await subscription_rows.find_live(connection, customer.id) is not None:
        raise ChangeRejectedError(409, "there is a subscription already: change that one")
    if (imported := await imported_rows.find_waiting(connection, customer.id)) is not None:
        raise ChangeRejectedError(
            409, f"a subscription begins on {format_timestamp(imported.begins_at * 1000)}, when what is paid ends"
        )
    columns = subscriptions.c
    is_paid = columns.period_end != sa.func.coalesce(columns.trial_ends_at, 0)  # Not in its trial.
    of_now = (columns.customer == customer.id, columns.period_end > now, is_paid)
    ended = await subscription_rows.fetch_subscriptions(connection, *of_now)
    return max(ended, key=lambda row: row.id, default=None)


async def begins_trial(connection: AsyncConnection, customer: Subscriber, now: float) -> bool:
    """Return whether a plan with a trial would begin with it: neither a change nor a resumption does, and each customer
    has one. Raises ChangeRejectedError where no subscription can begin."""
    if await subscription_rows.find_live(connection, customer.id) is not None:
        return False
    is_new = await check_may_subscribe(connection, customer, now) is None
    return is_new and not await subscription_rows.has_had_trial(connection, customer.id)
