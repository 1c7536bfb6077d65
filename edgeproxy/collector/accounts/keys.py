"""Keys as data: made, changed, rotated and revoked, each change with its audit entry and its row in the outbox, in one
transaction. Of the secret only the SHA-256 is kept.
"""

import hashlib
from collections.abc import Collection, Sequence
from typing import Any, Literal, cast

import orjson
import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, bounds, customers, documents, faults
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.bounds import KeyBounds
from edgeproxy.collector.accounts.change import ChangeRejectedError, require_version
from edgeproxy.collector.accounts.customers import compute_difference, drop_empty_values
from edgeproxy.collector.accounts.ids import generate_id, is_id, now_ms
from edgeproxy.collector.accounts.models import CreateKeyRequest, Key, KeyWithSecret
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.database.schema import keys
from edgeproxy.config.key_form import generate_key, get_key_start
from edgeproxy.config.limits import KeyLimit

KEYS_MAX = 1000
"""Keys of a customer that may be used at a time: all edges are told of all of them at once."""
SHA256_START_CHARACTERS = 8
NOT_FOUND = "there is no such key"
DAY_MS = 86_400_000
ROTATED = "rotated"
"""Why a key was revoked that was replaced without an overlap."""

COLUMNS = (*keys.c, customers_table.c.name.label("owner"), customers_table.c.rotate_every)
BOUNDS = (keys.c.scopes, keys.c.limits, keys.c.expires_at)
JOINED = keys.join(customers_table, customers_table.c.id == keys.c.customer)


def to_response(row: Any) -> Key:
    """Tell a key as the API does, of a row with its customer's `owner` and `rotate_every`."""
    every = row.rotate_every
    due = None if every is None or row.successor is not None else row.created_at + every * 1000
    now = now_ms()
    until = restorable_until(row)
    return {
        "id": row.id,
        "customer": row.owner,
        "start": row.start,
        "name": row.name,
        "scopes": None if row.scopes is None else orjson.loads(row.scopes),
        "limits": None if row.limits is None else orjson.loads(row.limits),
        "created_at": format_timestamp(row.created_at) or "",
        "expires_at": format_timestamp(row.expires_at),
        "revoked_at": format_timestamp(row.revoked_at),
        "last_used_on": None if row.last_used_on is None else (format_timestamp(row.last_used_on * 1000) or "")[:10],
        "rotate_by": format_timestamp(due),
        "rotated_to": row.successor,
        "restorable_until": format_timestamp(until) if until is not None and until > now else None,
        "state": compute_state(row, now),
    }


def restorable_until(row: Any) -> int | None:
    """Return the Unix millisecond until which the revocation of a key can be taken back: a day, and no longer than the
    key itself was to live; None where it was not revoked, or was replaced at once.
    """
    if row.revoked_at is None or row.revoked_for == ROTATED:
        return None
    until = int(row.revoked_at) + DAY_MS
    return until if row.expires_at is None else min(until, int(row.expires_at))


def compute_state(row: Any, now: int) -> Literal["active", "rotating", "due", "expired", "revoked"]:
    """Say how a key is at this time in Unix milliseconds; `due`: it should have been rotated by now."""
    if row.revoked_at is not None:
        return "revoked"
    if row.expires_at is not None and row.expires_at <= now:
        return "expired"
    if row.successor is not None:
        return "rotating"
    if row.rotate_every is not None and row.created_at + row.rotate_every * 1000 <= now:
        return "due"
    return "active"


async def get_row(connection: AsyncConnection, ref: str, *, lock: bool = False) -> Any:
    """Return the row of a key by its id; raises ChangeRejectedError where there is none."""
    if not is_id(ref):
        raise ChangeRejectedError(404, NOT_FOUND)
    statement = sa.select(*COLUMNS).select_from(JOINED).where(keys.c.id == ref)
    if lock:
        statement = statement.with_for_update(of=keys)
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise ChangeRejectedError(404, NOT_FOUND)
    return row


async def find_owner(connection: AsyncConnection, ref: str) -> str | None:
    """Return the name of the customer whose key it is; None where there is no such key."""
    try:
        return str((await get_row(connection, ref)).owner)
    except ChangeRejectedError:
        return None


async def list_keys(connection: AsyncConnection, customer: str, after: str | None, limit: int) -> list[Key]:
    """Tell at most `limit` keys of a customer behind the id `after`, oldest first; raises ChangeRejectedError."""
    owner = await customers.get_row(connection, customer)
    statement = sa.select(*COLUMNS).select_from(JOINED).where(keys.c.customer == owner.id)
    if after is not None:
        statement = statement.where(keys.c.id > after)
    return [to_response(row) for row in await connection.execute(statement.order_by(keys.c.id).limit(limit))]


async def create_key(
    connection: AsyncConnection, caller: Caller, customer: str, new: CreateKeyRequest, *, own: bool = False
) -> KeyWithSecret:
    """Make a key for a customer, and return it with its secret; raises ChangeRejectedError.

    `own`: the customer makes it, who can make none that is wider than each of the customer's keys.
    """
    owner = await customers.get_row(connection, customer, lock=True)
    if owner.deleting_since is not None:
        raise ChangeRejectedError(409, "the customer is being deleted")
    now = now_ms()
    key_rows = await _require_room(connection, owner.id, now)
    scopes = None if new.scopes is None else sorted(new.scopes)
    if own:
        existing = list(map(bounds.parse_bounds, key_rows)) or [await _fetch_last_bounds(connection, owner.id)]
        requested = KeyBounds(frozenset(scopes or ()), new.limits or (), new.expires_at)
        bounds.require_within(requested, existing)
    require_future_end(new.expires_at, now)
    secret = None if new.sha256 is not None else generate_key(new.prefix)
    row = {
        "id": generate_id(),
        "customer": owner.id,
        "sha256": new.sha256 or compute_sha256(secret or ""),
        "start": get_key_start(secret) if secret else f"sha256:{(new.sha256 or '')[:SHA256_START_CHARACTERS]}",
        "name": new.name,
        "scopes": None if scopes is None else orjson.dumps(scopes).decode(),
        "limits": dump_limits(new.limits),
        "created_at": now,
        "expires_at": new.expires_at,
        "version": 1,
    }
    if new.sha256 is not None:
        await _require_unused_sha256(connection, new.sha256)
    created = await _insert(connection, caller, owner, row, "key.create")
    return cast(KeyWithSecret, {**created, "secret": secret} if secret else created)


async def update_key(
    connection: AsyncConnection,
    caller: Caller,
    ref: str,
    change: BaseModel,
    *,
    match: frozenset[int] | None = None,
    own: bool = False,
) -> tuple[Key, int]:
    """Change what is `said` of a key, and return it with its version; raises ChangeRejectedError.

    `own`: its customer changes it, who can make it narrower and not wider.
    """
    row = await get_row(connection, ref, lock=True)
    require_version(row.version, match)
    _require_usable(row)
    fields = {name: getattr(change, name) for name in change.model_fields_set}
    values: dict[str, Any] = {name: fields[name] for name in ("name", "expires_at") if name in fields}
    if "expires_at" in fields:
        require_future_end(fields["expires_at"], now_ms())
        later = fields["expires_at"] is None or (row.expires_at is not None and fields["expires_at"] > row.expires_at)
        if row.successor is not None and later:
            raise ChangeRejectedError(409, "it has been rotated, and ends no later than was said then")
    if "scopes" in fields:
        scopes = None if fields["scopes"] is None else sorted(fields["scopes"])
        values["scopes"] = None if scopes is None else orjson.dumps(scopes).decode()
    if "limits" in fields:
        values["limits"] = dump_limits(fields["limits"])
    if own:
        existing = bounds.parse_bounds(row)
        requested = KeyBounds(
            frozenset(fields.get("scopes", existing.scopes) or ()),
            fields.get("limits", existing.limits) or (),
            fields.get("expires_at", existing.expires_at),
        )
        bounds.require_within(requested, [existing])
    if all(getattr(row, name) == value for name, value in values.items()):
        return to_response(row), row.version
    return await _update(connection, caller, row, values, "key.change")


async def revoke_key(
    connection: AsyncConnection,
    caller: Caller,
    ref: str,
    *,
    match: frozenset[int] | None = None,
    why: str | None = None,
) -> Key:
    """End a key at once; raises ChangeRejectedError."""
    row = await get_row(connection, ref, lock=True)
    require_version(row.version, match)
    if row.revoked_at is not None:
        return to_response(row)
    values = {"revoked_at": now_ms(), "revoked_for": why}
    return (await _update(connection, caller, row, values, "key.revoke", why))[0]


async def restore_key(
    connection: AsyncConnection, caller: Caller, ref: str, *, match: frozenset[int] | None = None
) -> tuple[Key, int]:
    """Take the revocation of a key back, and return the key with its version; raises ChangeRejectedError.

    The key is as it was: one that was being replaced ends when it was to end. One that has expired meanwhile, was
    replaced at once, or whose customer is being deleted stays revoked.
    """
    row = await get_row(connection, ref, lock=True)
    require_version(row.version, match)
    now = now_ms()
    if row.revoked_at is None:
        raise ChangeRejectedError(409, "the key is not revoked")
    if row.revoked_for == ROTATED:
        raise ChangeRejectedError(409, f"the key was replaced at once, by the key {row.successor}")
    if row.expires_at is not None and row.expires_at <= now:
        raise ChangeRejectedError(409, "the key has expired meanwhile: make a new one")
    if row.revoked_at + DAY_MS <= now:
        raise ChangeRejectedError(409, "the key was revoked more than 24 hours ago: make a new one")
    owner = await customers.get_row(connection, row.owner, lock=True)
    if owner.deleting_since is not None:
        raise ChangeRejectedError(409, "the customer is being deleted")
    await _require_room(connection, owner.id, now)
    return await _update(connection, caller, row, {"revoked_at": None, "revoked_for": None}, "key.restore")


async def rotate_key(
    connection: AsyncConnection, caller: Caller, ref: str, overlap: int, *, own: bool = False
) -> KeyWithSecret:
    """Make a key in the place of another one, which ends after `overlap` seconds; raises ChangeRejectedError.

    It lives as long as the one before was to live; where its customer makes it (`own`), no longer than that one.
    """
    row = await get_row(connection, ref, lock=True)
    _require_usable(row)
    if row.successor is not None:
        raise ChangeRejectedError(409, f"it has been rotated already, to the key {row.successor}")
    owner = await customers.get_row(connection, row.owner, lock=True)
    if owner.deleting_since is not None:
        raise ChangeRejectedError(409, "the customer is being deleted")
    now = now_ms()
    if overlap:  # Both can be used meanwhile.
        await _require_room(connection, row.customer, now)
    prefix = row.start.partition("_v1_")[0] if "_v1_" in row.start else "edge"
    secret = generate_key(prefix)
    new = {
        "id": generate_id(),
        "customer": row.customer,
        "sha256": compute_sha256(secret),
        "start": get_key_start(secret),
        "name": row.name,
        "scopes": row.scopes,
        "limits": row.limits,
        "created_at": now,
        "expires_at": row.expires_at
        if own or row.expires_at is None
        else now + max(row.expires_at - row.created_at, 1000),
        "version": 1,
    }
    created = await _insert(connection, caller, owner, new, "key.create")
    end = now + overlap * 1000
    values: dict[str, Any] = {"successor": new["id"]}
    if overlap == 0:
        values |= {"revoked_at": now, "revoked_for": ROTATED}
    else:
        values["expires_at"] = end if row.expires_at is None else min(end, row.expires_at)
    await _update(connection, caller, row, values, "key.rotate")
    return cast(KeyWithSecret, {**created, "secret": secret, "replaces": row.id})


async def revoke_leaked_key(connection: AsyncConnection, caller: Caller, sha256: str) -> Key | None:
    """End the key with this SHA-256, which somebody has found; None where there is none that could be used."""
    statement = sa.select(keys.c.id).where(keys.c.sha256 == sha256, keys.c.revoked_at.is_(None))
    key_id = (await connection.execute(statement)).scalar_one_or_none()
    return None if key_id is None else await revoke_key(connection, caller, key_id, why="leaked")


async def list_unrevoked(connection: AsyncConnection, digests: Collection[str]) -> list[str]:
    """Return those of these SHA-256 in hex whose keys are there and not revoked."""
    statement = sa.select(keys.c.sha256).where(keys.c.sha256.in_(digests), keys.c.revoked_at.is_(None))
    return list((await connection.execute(statement)).scalars())


def compute_sha256(secret: str) -> str:
    """Return the SHA-256 of a key in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def dump_limits(limits: tuple[KeyLimit, ...] | None) -> str | None:
    """Write the limits of a key; raises ChangeRejectedError where they contradict each other."""
    if not limits:
        return None
    dumped = [limit.model_dump(mode="json", by_alias=True, exclude_defaults=True) for limit in limits]
    field_faults = faults.find_key_faults(dumped)
    if field_faults:
        raise ChangeRejectedError(422, "some fields cannot be used", field_faults)
    return orjson.dumps(dumped).decode()


def require_future_end(expires_at: int | None, now: int) -> None:
    """Raise ChangeRejectedError(422) where a key would have ended already."""
    if expires_at is not None and expires_at <= now:
        raise ChangeRejectedError(
            422, "some fields cannot be used", [("expires_at", "is past: revoke the key instead")]
        )


def _require_usable(row: Any) -> None:
    state = compute_state(row, now_ms())
    if state in ("revoked", "expired"):
        raise ChangeRejectedError(409, f"the key is {state}: make a new one")


async def _fetch_last_bounds(connection: AsyncConnection, customer: str) -> KeyBounds:
    """What the last key of a customer had who has none that can be used: to revoke it lifts nothing."""
    statement = sa.select(*BOUNDS).where(keys.c.customer == customer).order_by(keys.c.id.desc()).limit(1)
    row = (await connection.execute(statement)).one_or_none()
    return KeyBounds() if row is None else bounds.parse_bounds(row)._replace(scopes=frozenset())


async def _require_room(connection: AsyncConnection, customer: str, now: int) -> Sequence[Any]:
    """Return the BOUNDS of the customer's keys that can be used;

    raises ChangeRejectedError where there can be no other one.
    """
    usable = (keys.c.customer == customer) & keys.c.revoked_at.is_(None)
    usable &= keys.c.expires_at.is_(None) | (keys.c.expires_at > now)
    rows = (await connection.execute(sa.select(*BOUNDS).where(usable))).all()
    if len(rows) >= KEYS_MAX:
        raise ChangeRejectedError(409, f"the customer has {len(rows)} keys, and {KEYS_MAX} is as many as there may be")
    return rows


async def _require_unused_sha256(connection: AsyncConnection, sha256: str) -> None:
    rows = await connection.execute(sa.select(keys.c.id).where(keys.c.sha256 == sha256))
    if rows.one_or_none() is not None:
        raise ChangeRejectedError(409, "there is a key with this sha256 already")


async def _insert(connection: AsyncConnection, caller: Caller, owner: Any, row: dict[str, Any], action: str) -> Key:
    await connection.execute(sa.insert(keys), [row])
    created = to_response(await get_row(connection, row["id"]))
    await documents.enqueue_changes(connection, "customer", [owner.name])
    await audit.append_entry(
        connection, caller, AuditEntry(action, f"{owner.name}/{created['id']}", None, drop_empty_values(created))
    )
    return created


async def _update(
    connection: AsyncConnection,
    caller: Caller,
    row: Any,
    values: dict[str, Any],
    action: str,
    why: str | None = None,
) -> tuple[Key, int]:
    statement = sa.update(keys).where(keys.c.id == row.id)
    await connection.execute(statement.values(**values, version=row.version + 1))
    before, updated = to_response(row), await get_row(connection, row.id)
    after = to_response(updated)
    changed_from, changed_to = compute_difference(before, after)
    await documents.enqueue_changes(connection, "customer", [row.owner])
    entry = AuditEntry(action, f"{row.owner}/{row.id}", changed_from, {**changed_to, **({"why": why} if why else {})})
    await audit.append_entry(connection, caller, entry)
    return after, updated.version
