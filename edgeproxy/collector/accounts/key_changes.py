"""Changes of key rows: each with its audit entry, its outbox row and its webhook event."""

from collections.abc import Mapping

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, documents, key_budgets
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import compute_difference, drop_empty_values
from edgeproxy.collector.accounts.customers import Columns
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.accounts.key_notices import enqueue_key_event
from edgeproxy.collector.accounts.key_rows import find_row, insert_rows, transition
from edgeproxy.collector.accounts.models import Key, ShownKeyState
from edgeproxy.collector.accounts.rows import KeyRow
from edgeproxy.collector.accounts.states import (
    WITHDRAWN,
    KeyState,
    compute_key_state,
    compute_restorable_until,
    compute_rotate_by,
)
from edgeproxy.collector.webhooks.event_types import EventType
from edgeproxy.wire.key_uses import format_usage_key

SHOWN_STATES: Mapping[KeyState, ShownKeyState] = {
    KeyState.ACTIVE: "active",
    KeyState.DUE: "due",
    KeyState.ROTATING: "rotating",
    KeyState.EXPIRED: "expired",
    KeyState.RESTORABLE: "revoked",
    KeyState.REVOKED: "revoked",
}
EVENT_TYPES: Mapping[str, EventType] = {
    "key.change": EventType.KEY_UPDATED,
    "key.revoke": EventType.KEY_REVOKED,
    "key.restore": EventType.KEY_RESTORED,
    "key.rotate": EventType.KEY_ROTATED,
}
"""The types of webhook events, by the actions of the audit log."""


def to_response(row: KeyRow) -> Key:
    """Return a key in the form of the API."""
    now = now_ms()
    state, until = compute_key_state(row, now), compute_restorable_until(row)
    budget = key_budgets.parse_budget(row.budget)
    day = None if row.last_used_on is None else format_timestamp(row.last_used_on * 1000)[:10]
    return {
        "id": row.id,
        "customer": row.customer_name,
        "start": row.start,
        "usage_key": format_usage_key(bytes.fromhex(row.sha256)).decode(),
        "name": row.name,
        "scopes": None if row.scopes is None else orjson.loads(row.scopes),
        "limits": None if row.limits is None else orjson.loads(row.limits),
        "budget": None if budget is None else budget.to_response(),
        "created_at": format_timestamp(row.created_at),
        "expires_at": format_timestamp(row.expires_at),
        "revoked_at": format_timestamp(row.revoked_at),
        "last_used_on": day,
        "rotate_by": format_timestamp(compute_rotate_by(row)),
        "rotated_to": row.successor,
        "restorable_until": format_timestamp(until) if state is KeyState.RESTORABLE else None,
        "state": SHOWN_STATES[state],
    }


async def insert_key(connection: AsyncConnection, caller: Caller, row: KeyRow) -> Key:
    """Insert a new key with its audit entry and outbox row, and return it."""
    await insert_rows(connection, [row])
    created = to_response(row)
    await documents.enqueue_changes(connection, "customer", [row.customer_name])
    entry = AuditEntry("key.create", f"{row.customer_name}/{row.id}", None, drop_empty_values(created))
    await audit.append_entry(connection, caller, entry)
    await enqueue_key_event(connection, EventType.KEY_CREATED, row, created)
    return created


async def update_key_row(
    connection: AsyncConnection,
    caller: Caller,
    row: KeyRow,
    values: Columns,
    action: str,
    why: str | None = None,
) -> tuple[Key, int]:
    """Change a key by `transition`, with its audit entry and outbox row. Return the key and its version."""
    before = to_response(row)
    changed = await transition(connection, row, **values)
    after = to_response(changed)
    changed_from, changed_to = compute_difference(before, after)
    await documents.enqueue_changes(connection, "customer", [row.customer_name])
    entry = AuditEntry(
        action, f"{row.customer_name}/{row.id}", changed_from, {**changed_to, **({"why": why} if why else {})}
    )
    await audit.append_entry(connection, caller, entry)
    await enqueue_key_event(connection, EVENT_TYPES[action], row, after)
    return after, changed.version


async def withdraw_next_key(connection: AsyncConnection, caller: Caller, row: KeyRow, why: str) -> KeyRow:
    """Revoke the pending replacement of this locked key, if there is one, for a reason.

    Its secret is still on its way to the customer. Returns the new row of the locked key.
    """
    if row.next_key is None:
        return row
    following = await find_row(connection, row.next_key, lock=True)
    if following is not None and following.revoked_at is None:
        values: Columns = {"revoked_at": now_ms(), "revoked_for": WITHDRAWN}
        await update_key_row(connection, caller, following, values, "key.revoke", why)
    return await transition(connection, row, next_key=None)
