"""Messages for customers' endpoints as rows, written in the transaction of the event.

So both exist or neither does. A message has a delivery for each endpoint with its type. Without such an endpoint no
message is written. `sender.py` sends them.
"""

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.database.database import build_insert_new
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.database.unreadable_rows import UNREADABLE, parse_texts, set_aside
from edgeproxy.collector.database.webhook_tables import webhook_deliveries, webhook_endpoints, webhook_messages
from edgeproxy.collector.encryption.rows import seal_rows
from edgeproxy.collector.webhooks.deliveries import WebhookState
from edgeproxy.collector.webhooks.event_types import EventType

ENABLED, DISABLED = "enabled", "disabled"
"""The states of an endpoint."""
RETENTION_SECONDS = 30 * 86400
"""Retention of messages in seconds."""
DROPPED_MAX = 500
"""Messages deleted per transaction."""

Data = Mapping[str, object]
"""The `data` of a message, for JSON."""
Occasion = tuple[int, str]
"""The Unix millisecond and the subject of an event that may be detected several times."""


def generate_name(prefix: str, at: int) -> str:
    """Return a new id that begins with a prefix, and sorts by this Unix millisecond."""
    return f"{prefix}_{at:012x}{secrets.token_hex(10)}"


def build_name(occasion: Occasion) -> str:
    """Return the id of the message for an occasion."""
    at, subject = occasion
    return f"msg_{at:012x}{hashlib.sha256(subject.encode()).hexdigest()[:20]}"


def select_id(name: str) -> sa.ScalarSelect[str]:
    """Return the SQL expression for the id of the customer with this name."""
    return sa.select(customers.c.id).where(customers.c.name == name).scalar_subquery()


async def enqueue_event(
    connection: AsyncConnection,
    customer: str | sa.ScalarSelect[str],
    event_type: EventType,
    at: int,
    build_data: Callable[[], Awaitable[Data]],
    once: Occasion | None = None,
) -> None:
    """Write a message to each endpoint of a customer (by id) with this type, in the current transaction.

    `at` is the Unix millisecond of the event. `build_data` is called only if there is such an endpoint. With `once`
    there is one message per occasion, however often it is written.
    """
    columns = webhook_endpoints.c
    statement = sa.select(columns.id, columns.customer, columns.types).where(
        columns.customer == customer, columns.state == ENABLED
    )
    rows = (await connection.execute(statement.order_by(columns.id))).all()
    endpoints = [row.id for row in rows if includes_type(row.id, row.types, event_type)]
    if endpoints:
        await insert_message(connection, rows[0].customer, endpoints, event_type, at, await build_data(), once)


def includes_type(endpoint: str, types: str | None, event_type: EventType) -> bool:
    """Return True if an endpoint's stored types include a type.

    An endpoint with unreadable types is set aside and gets no messages.
    """
    try:
        return types is None or event_type in parse_texts(types)
    except UNREADABLE as error:
        set_aside(webhook_endpoints.name, endpoint, error)
        return False


async def insert_message(
    connection: AsyncConnection,
    customer: str,
    endpoints: Sequence[str],
    event_type: EventType,
    at: int,
    data: Data,
    once: Occasion | None = None,
) -> str:
    """Insert a message of a customer (by id) to these endpoints, due at once. Return its id."""
    message = generate_name("msg", at) if once is None else build_name(once)
    content = {"type": event_type, "timestamp": format_timestamp(at), "data": dict(data)}
    body = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS).decode()
    row = {"id": message, "customer": customer, "type": event_type, "body": body, "at": at}
    (stored,) = await seal_rows(connection, webhook_messages.name, [row])
    inserted = await connection.execute(
        build_insert_new(connection, webhook_messages, "id").values(stored).returning(webhook_messages.c.id)
    )
    if inserted.first() is None:
        return message
    about = {"state": WebhookState.DUE, "attempts": 0, "due_at": at, "busy_until": 0}
    deliveries = [{"message": message, "endpoint": endpoint, **about} for endpoint in endpoints]
    await connection.execute(sa.insert(webhook_deliveries), deliveries)
    return message


async def drop_messages(connection: AsyncConnection, before: int) -> int:
    """Delete at most DROPPED_MAX messages from before this Unix millisecond. Return their number."""
    columns = webhook_messages.c
    statement = sa.select(columns.id).where(columns.at < before).order_by(columns.at).limit(DROPPED_MAX)
    old = list(await connection.scalars(statement))
    if old:
        await connection.execute(sa.delete(webhook_deliveries).where(webhook_deliveries.c.message.in_(old)))
        await connection.execute(sa.delete(webhook_messages).where(columns.id.in_(old)))
    return len(old)
