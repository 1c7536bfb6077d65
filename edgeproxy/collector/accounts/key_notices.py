"""Notifications about keys: notices to a customer's owners, and messages to its webhooks."""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.accounts.models import Key
from edgeproxy.collector.accounts.notices import raise_notice_by
from edgeproxy.collector.accounts.rows import KeyRow
from edgeproxy.collector.alerts.alert import Alert
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.webhooks.event_types import EventType
from edgeproxy.collector.webhooks.messages import enqueue_event


async def notify_owners(
    connection: AsyncConnection, caller: Caller, kind: AlertKind, row: KeyRow, **facts: object
) -> None:
    """Notify a customer's owners of a change of a key. Every revocation is reported, other changes once per kind."""
    at = now_ms()
    alert = Alert(
        key=f"{kind}:{row.id}:{at}" if kind == AlertKind.KEY_REVOKED else f"{kind}:{row.id}",
        kind=kind,
        customer=row.customer_name,
        title=f"{row.customer_name}: {kind.value.replace('_', ' ')}",
        at=at / 1000,
        details={name: value for name, value in {"start": row.start, **facts}.items() if value is not None},
    )
    await raise_notice_by(connection, caller, alert)


async def enqueue_key_event(connection: AsyncConnection, event_type: EventType, row: KeyRow, key: Key) -> None:
    """Enqueue the customer's webhook event that a key has changed."""

    async def build_data() -> Mapping[str, object]:
        return key

    await enqueue_event(connection, row.customer, event_type, now_ms(), build_data)
