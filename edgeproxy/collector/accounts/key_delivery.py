"""The delivery of replacement keys for due keys to their customers' webhooks.

    due ──▶ next_key is made, and its secret sent ──▶ collected: it replaces the key, which ends after the grace
     ▲                    │
     └─────── withdrawn ──┘ no endpoint accepts the message, or the public key, the endpoint or the key has changed

The transaction that creates the key encrypts the secret to the customer's public key; the secret is stored nowhere
else. So a crash at any moment leaves either no new key, or one whose message will be sent. Until the customer has
collected the secret, the old key is unchanged: it stays due, and keeps working.
"""

from collections.abc import AsyncIterator

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import customers, keys, public_keys
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.accounts.key_changes import insert_key, withdraw_next_key
from edgeproxy.collector.accounts.key_owners import require_present
from edgeproxy.collector.accounts.key_rows import find_rotate_every, find_row, get_row, select_keys, transition
from edgeproxy.collector.accounts.rotation import is_due, select_due_keys
from edgeproxy.collector.accounts.rotation_models import KeyInRotation, KeyRotation
from edgeproxy.collector.accounts.rows import CustomerRow, KeyRow
from edgeproxy.collector.accounts.states import USABLE_KEY_STATES, WITHDRAWN, compute_key_state, compute_rotate_by
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.database.schema import keys as keys_table
from edgeproxy.collector.database.statements import AnySelect
from edgeproxy.collector.database.unreadable_rows import UNREADABLE, set_aside
from edgeproxy.collector.database.webhook_tables import webhook_deliveries, webhook_endpoints
from edgeproxy.collector.problems import account_codes
from edgeproxy.collector.webhooks.deliveries import WebhookState
from edgeproxy.collector.webhooks.event_types import EventType
from edgeproxy.collector.webhooks.messages import ENABLED, Occasion, build_name, includes_type, insert_message
from edgeproxy.config.collector.rotation import GRACE_SECONDS, Rotation
from edgeproxy.config.units import format_seconds

JOB = Caller("key-rotation")
"""The caller in the audit log."""
SECONDS_MIN = 86400.0
"""An uncollected key stays for at least this many seconds before the next one is created."""
KEYS_AT_ONCE = 100
AGE_SECONDS_MIN = 3600
"""The least age in seconds of a key before it is replaced, however short its customer's `rotate_every` is."""
WITHDRAWN_MAX = keys.KEYS_MAX
"""The most withdrawn keys of a customer in a day. Each change of its public key withdraws all pending keys."""
FAILURE = "a key could not be replaced"
LIMITED_LOG = log.RateLimitedLog(3600.0)
"""Keys that cannot be replaced are retried each minute, so their log lines are limited."""


async def deliver_due_keys(database: Database, every: float | None, now: float) -> None:
    """Create and send a replacement of each key that is due at this Unix second, if its customer can receive one.

    `every` is the setting `rotation.every`.
    """
    due = is_due(now, 0, every) & keys_table.c.next_key.is_(None) & customers_table.c.public_key.is_not(None)
    statement = select_due_keys(every).with_only_columns(keys_table.c.id).where(due)
    async for key in _iterate_ids(database, statement):
        try:
            async with database.writing() as connection:
                await send_replacement(connection, key)
        except ChangeRejectedError as error:
            LIMITED_LOG.info(FAILURE, error.why, key=key)
        except UNREADABLE as error:  # The keys of other customers go on.
            set_aside(keys_table.name, key, error)


async def settle_deliveries(database: Database, grace: float, now: float) -> None:
    """Let each collected key replace its predecessor, and withdraw keys that no endpoint accepts any more."""
    statement = sa.select(keys_table.c.id).where(keys_table.c.next_key.is_not(None))
    async for key in _iterate_ids(database, statement):
        try:
            async with database.writing() as connection:
                await settle_delivery(connection, key, round(grace), now)
        except ChangeRejectedError as error:
            LIMITED_LOG.info(FAILURE, error.why, key=key)
        except UNREADABLE as error:  # The keys of other customers go on.
            set_aside(keys_table.name, key, error)


async def _iterate_ids(database: Database, statement: AnySelect) -> AsyncIterator[str]:
    """Yield the ids of keys that a statement selects, in order."""
    last = ""
    while True:
        following = statement.where(keys_table.c.id > last).order_by(keys_table.c.id).limit(KEYS_AT_ONCE)
        async with database.reading() as connection:
            ids: list[str] = list(await connection.scalars(following))
        for key in ids:
            yield key
        if len(ids) < KEYS_AT_ONCE:
            return
        last = ids[-1]


async def send_replacement(connection: AsyncConnection, ref: str) -> None:
    """Create the replacement of a key, by id, and write the message with its secret.

    Nothing happens if the customer has no public key, or no endpoint that explicitly lists the message's type. An
    endpoint for all types may be a log. Raises ChangeRejectedError.
    """
    owner = await customers.get_row(connection, (await get_row(connection, ref)).customer, lock=True)
    row = await get_row(connection, ref, lock=True)
    if owner.public_key is None or row.next_key is not None or row.successor is not None:
        return  # Another collector was faster.
    if row.created_at > now_ms() - AGE_SECONDS_MIN * 1000:
        return
    endpoints = await list_endpoints(connection, owner.id)
    if not endpoints:
        return
    keys.require_usable(row)
    require_present(owner)
    now = now_ms()
    await _require_few_withdrawn(connection, owner.id, now)
    await keys.require_room(connection, owner.id, now)
    new, secret = keys.build_replacement(owner, row, now, own=False)
    created = await insert_key(connection, JOB, new)
    await transition(connection, row, next_key=new.id)
    payload = orjson.dumps({"id": new.id, "secret": secret, "replaces": row.id})
    data = {"key": created, "replaces": row.id, "jwe": public_keys.encrypt(owner.public_key, payload)}
    await insert_message(connection, owner.id, endpoints, EventType.KEY_DELIVERED, now, data, _name_occasion(new))


async def _require_few_withdrawn(connection: AsyncConnection, customer: str, now: int) -> None:
    own = (keys_table.c.customer == customer) & (keys_table.c.revoked_for == WITHDRAWN)
    statement = sa.select(sa.func.count()).where(own, keys_table.c.created_at > now - round(SECONDS_MIN * 1000))
    if (await connection.execute(statement)).scalar_one() >= WITHDRAWN_MAX:
        raise ChangeRejectedError(
            account_codes.WITHDRAWN_KEYS_FULL, f"{WITHDRAWN_MAX} keys were withdrawn within a day"
        )


async def list_endpoints(connection: AsyncConnection, customer: str) -> list[str]:
    """Return the endpoints of a customer, by id, that receive new keys."""
    own = webhook_endpoints.c
    statement = sa.select(own.id, own.types).where(
        own.customer == customer, own.state == ENABLED, own.types.is_not(None)
    )
    rows = await connection.execute(statement.order_by(own.id))
    return [row.id for row in rows if includes_type(row.id, row.types, EventType.KEY_DELIVERED)]


async def settle_delivery(connection: AsyncConnection, ref: str, grace: int, now: float) -> None:
    """Let a key's collected replacement take its place, or withdraw it. Raises ChangeRejectedError."""
    owner = await customers.get_row(connection, (await get_row(connection, ref)).customer, lock=True)
    row = await get_row(connection, ref, lock=True)
    if row.next_key is None:
        return
    new = await find_row(connection, row.next_key, lock=True)
    is_live = all(one is not None and _is_usable(one) for one in (row, new)) and owner.deleting_since is None
    if new is None or not is_live:
        await withdraw_next_key(connection, JOB, row, "one of the two keys has ended")
        return
    states = await fetch_states(connection, new)
    if WebhookState.SENT in states or new.last_used_on is not None:
        await keys.end_replaced(connection, JOB, row, new, grace)
    elif WebhookState.DUE not in states and new.created_at <= (now - SECONDS_MIN) * 1000:
        await withdraw_next_key(connection, JOB, row, "no webhook takes it")


def _is_usable(row: KeyRow) -> bool:
    return compute_key_state(row, now_ms()) in USABLE_KEY_STATES


async def fetch_states(connection: AsyncConnection, new: KeyRow) -> frozenset[WebhookState]:
    """Return the states of the deliveries that carry the secret of a key."""
    message = webhook_deliveries.c.message == build_name(_name_occasion(new))
    rows = await connection.execute(sa.select(webhook_deliveries.c.state).where(message))
    return frozenset(WebhookState(state) for state in rows.scalars())


def _name_occasion(new: KeyRow) -> Occasion:
    return new.created_at, f"key:{new.id}"


async def describe_rotation(connection: AsyncConnection, ref: str, rotation: Rotation | None) -> KeyRotation:
    """Return the state of a customer's rotation. `rotation` is the collector's setting. Raises ChangeRejectedError."""
    owner = await customers.get_row(connection, ref)
    endpoints = await list_endpoints(connection, owner.id)
    every = find_rotate_every(connection) if owner.rotate_every is None else owner.rotate_every
    by_webhook = rotation is not None and rotation.deliver == "webhook" and owner.public_key is not None and endpoints
    ends, is_due_now = keys_table.c.expires_at, is_due(now_ms() / 1000, 0, find_rotate_every(connection))
    is_replaced = keys_table.c.successor.is_not(None) & (ends > now_ms())
    shown = (keys_table.c.customer == owner.id) & keys_table.c.revoked_at.is_(None)
    shown &= keys_table.c.next_key.is_not(None) | is_replaced | is_due_now
    statement = select_keys(connection).where(shown).order_by(keys_table.c.id).limit(KEYS_AT_ONCE)
    rows = [KeyRow._make(row) for row in await connection.execute(statement)]
    return {
        "customer": owner.name,
        "every": None if every is None else format_seconds(every),
        "grace": format_seconds(GRACE_SECONDS if rotation is None else rotation.grace),
        "deliver": "webhook" if by_webhook else "portal",
        "public_key": None if owner.public_key is None else public_keys.describe(owner.public_key),
        "endpoints": len(endpoints),
        "keys": [await _describe_key(connection, row) for row in rows],
    }


async def _describe_key(connection: AsyncConnection, row: KeyRow) -> KeyInRotation:
    new = None if row.next_key is None else await find_row(connection, row.next_key)
    states = frozenset[WebhookState]() if new is None else await fetch_states(connection, new)
    ranked = (WebhookState.SENT, WebhookState.DUE, WebhookState.DEAD)
    return {
        "id": row.id,
        "start": row.start,
        "name": row.name,
        "state": "rotating" if row.successor is not None else "due" if row.next_key is None else "sent",
        "rotate_by": format_timestamp(compute_rotate_by(row)),
        "next_key": row.next_key or row.successor,
        "delivery": next((state for state in ranked if state in states), None),
        "expires_at": format_timestamp(row.expires_at),
    }


async def put_public_key(connection: AsyncConnection, caller: Caller, ref: str, public_key: str | None) -> CustomerRow:
    """Register the public key of a customer, or remove it with None. Return the customer.

    Pending keys, which were encrypted to the previous public key, are withdrawn; later keys use the new one. Raises
    ChangeRejectedError.
    """
    owner = await customers.get_row(connection, ref, lock=True)
    if owner.public_key == public_key:
        return owner
    if public_key is not None:
        require_present(owner)
    statement = sa.select(keys_table.c.id).where(keys_table.c.customer == owner.id, keys_table.c.next_key.is_not(None))
    for key in list(await connection.scalars(statement.order_by(keys_table.c.id))):
        row = await get_row(connection, key, lock=True)
        await withdraw_next_key(connection, caller, row, "the customer has another public key")
    return await customers.set_public_key(connection, caller, owner, public_key)
