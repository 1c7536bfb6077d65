"""Cancellations: the reasons that customers give for ending a plan. The reasons are Stripe's, and are sent there."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.collector.database.billing_tables import cancellations, subscriptions
from edgeproxy.collector.encryption.rows import fetch_rows, seal_rows

CancellationReason = Literal[
    "too_expensive",
    "missing_features",
    "switched_service",
    "unused",
    "customer_service",
    "too_complex",
    "low_quality",
    "other",
]
REASONS: tuple[CancellationReason, ...] = get_args(CancellationReason)
LISTED_MAX = 20
"""The most listed cancellations of a customer."""
TABLE = cancellations.name
columns = cancellations.c


class Feedback(NamedTuple):
    """The customer's feedback on ending its plan; None if not given."""

    reason: CancellationReason | None
    comment: str | None


class ListedCancellation(NamedTuple):
    """A customer's cancellation: the version of the plan, and the Unix second when it ends."""

    subscription: str
    plan_version: str
    reason: CancellationReason | None
    comment: str | None
    created_at: int
    """Unix milliseconds."""
    cancel_at: int | None


async def record_feedback(
    connection: AsyncConnection, subscription: str, customer: str, feedback: Feedback, now: float
) -> None:
    """Record the reason for the end of a subscription, replacing earlier feedback."""
    await drop_feedback(connection, subscription)
    if feedback.reason is None and feedback.comment is None:
        return
    row = {"subscription": subscription, "customer": customer, **feedback._asdict(), "created_at": int(now * 1000)}
    await connection.execute(sa.insert(cancellations), await seal_rows(connection, TABLE, [row]))


async def drop_feedback(connection: AsyncConnection, subscription: str) -> None:
    """Delete the feedback on a subscription that continues after all."""
    await connection.execute(sa.delete(cancellations).where(columns.subscription == subscription))


async def list_cancellations(connection: AsyncConnection, customer: str) -> list[ListedCancellation]:
    """Return the latest cancellations of a customer, by id, with feedback, newest first."""
    statement = sa.select(cancellations, subscriptions.c.plan_version, subscriptions.c.cancel_at)
    statement = statement.join_from(cancellations, subscriptions, subscriptions.c.id == columns.subscription)
    own = statement.where(columns.customer == customer).order_by(columns.created_at.desc()).limit(LISTED_MAX)
    return [_parse_row(row) for row in await fetch_rows(connection, TABLE, own)]


def _parse_row(row: Mapping[str, object]) -> ListedCancellation:
    comment, created_at, cancel_at = row["comment"], row["created_at"], row["cancel_at"]
    assert isinstance(created_at, int)
    return ListedCancellation(
        subscription=str(row["subscription"]),
        plan_version=str(row["plan_version"]),
        reason=next((reason for reason in REASONS if reason == row["reason"]), None),
        comment=None if comment is None else str(comment),
        created_at=created_at,
        cancel_at=cancel_at if isinstance(cancel_at, int) else None,
    )


async def build_stripe_details(connection: AsyncConnection, subscription: str) -> StripeObject:
    """Return the parameters of Stripe's cancellation for the feedback; empty if none was given."""
    statement = sa.select(cancellations).where(columns.subscription == subscription)
    rows = await fetch_rows(connection, TABLE, statement)
    if not rows:
        return {}
    (row,) = rows
    details = {"feedback": row["reason"], "comment": row["comment"]}
    return {"cancellation_details": {name: value for name, value in details.items() if value is not None}}
