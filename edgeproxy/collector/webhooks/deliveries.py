"""Deliveries as rows: messages on their way to the endpoints of customers.

    due ──▶ sent
    │ ▲ ▲      │
    ▼ │ └──────┘ redelivered
    dead

A delivery stays `due` between attempts. A collector holds a lease, `busy_until`, during an attempt, so only one
collector tries at a time. If it is killed, another one tries again once the lease is over.
"""

from collections.abc import Collection
from enum import StrEnum
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.database.webhook_tables import webhook_deliveries, webhook_endpoints, webhook_messages
from edgeproxy.collector.encryption.data_keys import SealedValueError
from edgeproxy.collector.encryption.keyring import KeysUnavailableError
from edgeproxy.collector.encryption.rows import fetch_rows
from edgeproxy.collector.webhooks.attempt_shares import Candidate, parse_receiver

LEASE_SECONDS = 60.0
"""Seconds of a collector's exclusive lease. An attempt takes at most a quarter of it."""
PER_ENDPOINT_MAX = 5
"""Concurrent attempts per endpoint."""
UNREADABLE_ERROR = "its message or its endpoint cannot be read"
columns = webhook_deliveries.c


class WebhookState(StrEnum):
    """The state of a delivery to an endpoint."""

    DUE = "due"
    """Not sent yet."""
    SENT = "sent"
    """Accepted by the endpoint."""
    DEAD = "dead"
    """Given up."""


class ClaimedDelivery(NamedTuple):
    """A delivery that this collector may attempt, with its message and its endpoint. Times are Unix milliseconds."""

    message: str
    endpoint: str
    attempts: int
    """The attempts before this one."""
    busy_until: int
    """The lease."""
    body: str
    url: str
    secret: bytes
    old_secret: bytes | None
    old_secret_until: int | None
    endpoint_state: str
    failing_since: int | None
    customer: str
    """The customer's name in the ledger."""
    display_name: str | None = None
    """The name of a customer with a pseudonym."""


class AttemptResult(NamedTuple):
    """The columns of a delivery after an attempt."""

    state: WebhookState
    attempts: int
    due_at: int
    status: int | None
    error: str | None
    attempted_at: int


ENDPOINT_COLUMNS = (
    "url",
    "secret",
    "old_secret",
    "old_secret_until",
    "state",
    "failing_since",
    "customer_name",
    "display_name",
)
"""The columns of an endpoint in a ClaimedDelivery."""
Pair = tuple[str, str]
"""The message and the endpoint of a delivery."""


def is_free(now: int) -> sa.ColumnElement[bool]:
    """Return the SQL condition that a delivery is due at this Unix millisecond and not leased."""
    return (columns.state == WebhookState.DUE) & (columns.due_at <= now) & (columns.busy_until <= now)


async def list_due(
    connection: AsyncConnection, now: int, busy: Collection[str], limit: int, *, has_retries: bool
) -> list[Candidate]:
    """Return due deliveries, except for `busy` endpoints.

    First comes the first delivery of each customer, then the second of each, and so on, so a customer with many
    deliveries does not delay others. First attempts precede retries. Without `has_retries` there are no retries.
    """
    rank = sa.func.row_number().over(partition_by=columns.endpoint, order_by=(columns.due_at, columns.message))
    due = sa.select(columns.message, columns.endpoint, columns.due_at, columns.attempts, rank.label("rank"))
    ranked = due.where(is_free(now), columns.endpoint.not_in(list(busy))).subquery()
    endpoint, is_first = webhook_endpoints.c, (ranked.c.attempts == 0) & webhook_endpoints.c.failing_since.is_(None)
    turn = sa.func.row_number().over(
        partition_by=(endpoint.customer, is_first), order_by=(ranked.c.rank, ranked.c.due_at)
    )
    statement = (
        sa.select(ranked.c.message, ranked.c.endpoint, endpoint.customer, ~is_first, endpoint.version)
        .join_from(ranked, webhook_endpoints, endpoint.id == ranked.c.endpoint)
        .where(ranked.c.rank <= PER_ENDPOINT_MAX, sa.true() if has_retries else is_first)
        .order_by(~is_first, turn, ranked.c.due_at)
        .limit(limit)
    )
    return [Candidate(row[0], row[1], row[2], bool(row[3]), row[4]) for row in await connection.execute(statement)]


async def fetch_receivers(connection: AsyncConnection, endpoints: Collection[str]) -> dict[str, str]:
    """Return the receivers of endpoints, by id, or none if a URL cannot be decrypted."""
    statement = sa.select(webhook_endpoints).where(webhook_endpoints.c.id.in_(endpoints))
    try:
        rows = await fetch_rows(connection, webhook_endpoints.name, statement)
    except (KeysUnavailableError, SealedValueError):
        return {}
    return {str(row["id"]): parse_receiver(str(row["url"])) for row in rows}


async def claim_due(connection: AsyncConnection, pairs: Collection[Pair], now: int) -> list[ClaimedDelivery]:
    """Lease these deliveries as far as they are still free, and return the leased ones.

    A delivery with an unreadable message or endpoint is given up. It can be redelivered after a repair.
    """
    chosen = sa.tuple_(columns.message, columns.endpoint).in_(list(pairs))
    lease = now + round(LEASE_SECONDS * 1000)
    claim = sa.update(webhook_deliveries).where(chosen, is_free(now)).values(busy_until=lease)
    returned = (columns.message, columns.endpoint, columns.attempts, columns.busy_until)
    ours = (await connection.execute(claim.returning(*returned))).all()
    of_messages = sa.select(webhook_messages).where(webhook_messages.c.id.in_({row.message for row in ours}))
    of_endpoints = (
        sa.select(webhook_endpoints, customers.c.name.label("customer_name"), customers.c.display_name)
        .join_from(webhook_endpoints, customers, customers.c.id == webhook_endpoints.c.customer)
        .where(webhook_endpoints.c.id.in_({row.endpoint for row in ours}))
    )
    messages = {str(row["id"]): row for row in await fetch_rows(connection, webhook_messages.name, of_messages)}
    endpoints = {str(row["id"]): row for row in await fetch_rows(connection, webhook_endpoints.name, of_endpoints)}
    unreadable = [
        (row.message, row.endpoint) for row in ours if row.message not in messages or row.endpoint not in endpoints
    ]
    if unreadable:
        given_up = {"state": WebhookState.DEAD, "busy_until": 0, "error": UNREADABLE_ERROR, "attempted_at": now}
        own = sa.tuple_(columns.message, columns.endpoint).in_(unreadable)
        await connection.execute(sa.update(webhook_deliveries).where(own).values(**given_up))
    return [
        ClaimedDelivery(  # type: ignore[call-arg]
            *row,
            messages[row.message]["body"],
            *(endpoints[row.endpoint][name] for name in ENDPOINT_COLUMNS),
        )
        for row in ours
        if row.message in messages and row.endpoint in endpoints
    ]


async def record_attempt(connection: AsyncConnection, delivery: ClaimedDelivery, result: AttemptResult) -> bool:
    """Record the result of an attempt. Return False if the lease has passed to another sender or the row is gone."""
    own = (columns.message == delivery.message) & (columns.endpoint == delivery.endpoint)
    own &= (columns.state == WebhookState.DUE) & (columns.busy_until == delivery.busy_until)
    statement = sa.update(webhook_deliveries).where(own).values(**result._asdict(), busy_until=0)
    return (await connection.execute(statement)).rowcount == 1


async def redeliver(connection: AsyncConnection, message: str, endpoint: str, now: int) -> bool:
    """Make a delivery due at this Unix millisecond, with no attempts. Return False if it is due already."""
    own = (columns.message == message) & (columns.endpoint == endpoint) & (columns.state != WebhookState.DUE)
    fresh = {"state": WebhookState.DUE, "attempts": 0, "due_at": now, "busy_until": 0}
    return (await connection.execute(sa.update(webhook_deliveries).where(own).values(**fresh))).rowcount == 1


class Backlog(NamedTuple):
    """The outstanding deliveries."""

    due: int
    dead: int
    oldest_due_at: int | None
    """The due time of the oldest due delivery in Unix milliseconds, or None."""


async def fetch_backlog(connection: AsyncConnection) -> Backlog:
    """Return the number of outstanding deliveries."""
    statement = sa.select(columns.state, sa.func.count(), sa.func.min(columns.due_at)).group_by(columns.state)
    rows = {row[0]: row for row in await connection.execute(statement.where(columns.state != WebhookState.SENT))}
    due, dead = rows.get(WebhookState.DUE), rows.get(WebhookState.DEAD)
    return Backlog(0 if due is None else due[1], 0 if dead is None else dead[1], None if due is None else due[2])
