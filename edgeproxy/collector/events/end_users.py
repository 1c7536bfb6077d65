"""Items of `unique` meters as they are stored where end users are hashed (collector/accounts/end_users.py)."""

from collections.abc import Sequence

from edgeproxy.collector.accounts.end_users import fetch_secrets, get_or_create_secrets, hash_item
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.events.event import UsageEvent


async def hash_events(database: Database, sent: Sequence[tuple[int, UsageEvent]]) -> list[tuple[int, UsageEvent]]:
    """Return events, each with its index, with their items as they are stored."""
    customers = {event.customer for _, event in sent if event.item is not None}
    if not customers:
        return list(sent)
    async with database.reading() as connection:
        secrets = await fetch_secrets(connection, customers)
    if customers - secrets.keys():
        async with database.writing() as connection:
            secrets = await get_or_create_secrets(connection, customers)
    hashed = []
    for index, event in sent:
        item = None if event.item is None else hash_item(secrets[event.customer], event.item)
        hashed.append((index, event._replace(item=item)))
    return hashed
