"""Who may begin a subscription: none for the same time twice."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.subscriptions import imported_rows, subscription_rows
from edgeproxy.collector.billing.subscriptions.subscription_rows import Subscriber
from edgeproxy.collector.database.billing_tables import subscriptions


async def check_may_subscribe(connection: AsyncConnection, customer: Subscriber, now: float) -> None:
    """Raise ChangeRejectedError where a customer cannot begin a subscription now."""
    if customer.deleting_since is not None:
        raise ChangeRejectedError(409, "the customer is being deleted")
    if await subscription_rows.find_live(connection, customer.id) is not None:
        raise ChangeRejectedError(409, "there is a subscription already: change that one")
    if (imported := await imported_rows.find_waiting(connection, customer.id)) is not None:
        raise ChangeRejectedError(
            409, f"a subscription begins on {format_timestamp(imported.begins_at * 1000)}, when what is paid ends"
        )
    # Else ending and subscribing again would give the included amounts of this period twice.
    over = sa.select(sa.func.max(subscriptions.c.period_end)).where(
        subscriptions.c.customer == customer.id,
        subscriptions.c.period_end != sa.func.coalesce(subscriptions.c.trial_ends_at, 0),  # Not in its trial.
    )
    end = (await connection.execute(over)).scalar_one()
    if end is not None and end > now:
        raise ChangeRejectedError(
            409, f"the last subscription ended within its period: the next can begin on {format_timestamp(end * 1000)}"
        )
