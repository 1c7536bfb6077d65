"""The costs of periods for the list of customers: computed as on each customer's page, and stored with the customer."""

from collections.abc import Mapping

from edgeproxy.collector.accounts import list_figures
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.period_close.invoice_lines import compute_running_cost
from edgeproxy.collector.billing.period_close.quantities import QuantityTooLargeError, UsageNotStoredError
from edgeproxy.collector.billing.subscriptions import subscription_rows
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.unreadable_rows import UNREADABLE
from edgeproxy.config.meters import Meter

NOT_COMPUTED = (ChangeRejectedError, QuantityTooLargeError, UsageNotStoredError, *UNREADABLE)
"""The errors of a customer whose cost cannot be computed. The list keeps its earlier cost with its time."""


async def record_costs(database: Database, after: str, limit: int, meters: Mapping[str, Meter], now: float) -> str:
    """Record the costs, as of the Unix second `now`, of the next subscribers after the customer id `after`.

    Returns the id of the last one of them; empty if there are no more.
    """
    costs: dict[str, int] = {}
    async with database.reading(whole=True) as connection:
        some = await subscription_rows.list_subscribed_customers(connection, after, limit)
        for customer in some:
            try:
                loaded = await subscription_rows.get_by_customer(connection, customer)
                costs[loaded.customer.name] = await compute_running_cost(connection, loaded, meters)
            except NOT_COMPUTED:
                continue
    if costs:
        async with database.writing() as connection:
            await list_figures.record_spent(connection, costs, int(now))
    return some[-1] if some else ""
