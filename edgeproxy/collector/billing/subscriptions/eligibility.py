"""The eligibility for a subscription: a new one, or the resumption of one that ended within its period."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.subscriptions import imported_rows, subscription_rows
from edgeproxy.collector.billing.subscriptions.subscription_rows import Subscriber, SubscriptionRow
from edgeproxy.collector.database.billing_tables import subscriptions
from edgeproxy.collector.problems import account_codes, billing_codes


async def check_may_subscribe(connection: AsyncConnection, customer: Subscriber, now: float) -> SubscriptionRow | None:
    """Return the subscription to resume, or None if a new one may begin.

    Raises ChangeRejectedError if neither is allowed.

    A subscription that ended within its running period must be resumed, because a new one would grant the included
    amounts of the period twice.
    """
    if customer.deleting_since is not None:
        raise ChangeRejectedError(account_codes.CUSTOMER_DELETING, "the customer is being deleted")
    if await subscription_rows.find_live(connection, customer.id) is not None:
        raise ChangeRejectedError(billing_codes.SUBSCRIPTION_EXISTS, "there is a subscription already: change that one")
    if (imported := await imported_rows.find_waiting(connection, customer.id)) is not None:
        raise ChangeRejectedError(
            billing_codes.SUBSCRIPTION_PLANNED,
            f"a subscription begins on {format_timestamp(imported.begins_at * 1000)}, at the end of the paid period",
        )
    columns = subscriptions.c
    is_paid = columns.period_end != sa.func.coalesce(columns.trial_ends_at, 0)  # The subscription is past its trial.
    of_now = (columns.customer == customer.id, columns.period_end > now, is_paid)
    ended = await subscription_rows.fetch_subscriptions(connection, *of_now)
    # Ids sort by time (accounts/ids.py), so this is the latest one.
    return max(ended, key=lambda row: row.id, default=None)


async def begins_trial(connection: AsyncConnection, customer: Subscriber, now: float) -> bool:
    """Return whether a plan with a trial would begin with its trial. Raises ChangeRejectedError.

    A change or a resumption has no trial, and each customer has one trial. The error means that no subscription can
    begin.
    """
    if await subscription_rows.find_live(connection, customer.id) is not None:
        return False
    is_new = await check_may_subscribe(connection, customer, now) is None
    return is_new and not await subscription_rows.has_had_trial(connection, customer.id)
