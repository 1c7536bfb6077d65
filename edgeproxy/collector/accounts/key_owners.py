"""The customers whose keys may be created and changed here."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.problems import account_codes
from edgeproxy.config.directory import find_next_residency


def require_present(owner: CustomerRow) -> None:
    """Raise ChangeRejectedError if the customer of a key has moved or is being deleted."""
    _require_not_moved(owner.settings)
    if owner.deleting_since is not None:
        raise ChangeRejectedError(account_codes.CUSTOMER_DELETING, "the customer is being deleted")


async def require_owner_not_moved(connection: AsyncConnection, customer: str) -> None:
    """Raise ChangeRejectedError if a customer, by id, has moved: edges then use the keys of the other residency."""
    statement = sa.select(customers.c.settings).where(customers.c.id == customer)
    _require_not_moved((await connection.execute(statement)).scalar_one())


def _require_not_moved(settings: str) -> None:
    if (residency := find_next_residency(settings)) is not None:
        raise ChangeRejectedError(
            account_codes.CUSTOMER_MOVED, f"the customer has moved to {residency}: its keys are changed there"
        )
