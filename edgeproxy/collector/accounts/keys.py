"""Keys as data: each change with its audit entry and its outbox row, in one transaction.

Only the SHA-256 of the secret is stored.
"""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import cast

import orjson
import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import bounds, customers, faults, key_budgets
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.bounds import KeyBounds
from edgeproxy.collector.accounts.change import (
    ChangeRejectedError,
    reject_field,
    reject_fields,
    require_version,
)
from edgeproxy.collector.accounts.customers import Columns
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.accounts.key_changes import insert_key, to_response, update_key_row, withdraw_next_key
from edgeproxy.collector.accounts.key_notices import notify_owners
from edgeproxy.collector.accounts.key_owners import require_owner_not_moved, require_present
from edgeproxy.collector.accounts.key_rows import (
    build_row,
    compute_sha256,
    find_rotate_every,
    get_row,
    select_keys,
)
from edgeproxy.collector.accounts.models import CreateKeyRequest, Key, KeyWithSecret
from edgeproxy.collector.accounts.rotation import is_due
from edgeproxy.collector.accounts.rows import CustomerRow, KeyRow
from edgeproxy.collector.accounts.states import (
    ROTATED,
    USABLE_KEY_STATES,
    WITHDRAWN,
    KeyState,
    compute_key_state,
)
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.database.page_order import order_page, parse_sort
from edgeproxy.collector.database.schema import keys
from edgeproxy.collector.database.statements import AnyColumn
from edgeproxy.collector.database.unreadable_rows import ReadPage, parse_page, parse_rows
from edgeproxy.collector.problems import account_codes
from edgeproxy.config.field_codes import PAST
from edgeproxy.config.key_form import generate_key, get_key_start
from edgeproxy.config.limits import KeyLimit
from edgeproxy.wire.key_uses import USAGE_KEY_DIGITS

KEYS_MAX = 1000
"""The most usable keys of a customer. Edges receive all of them at once."""
SORTS: Mapping[str, AnyColumn] = {
    "created_at": keys.c.id,
    "name": sa.func.coalesce(keys.c.name, ""),
    "last_used_on": sa.func.coalesce(keys.c.last_used_on, 0),
}
"""The columns that a customer's keys can be sorted by. Ids grow with time."""
BOUNDS = (keys.c.scopes, keys.c.limits, keys.c.budget, keys.c.expires_at)


async def find_owner(connection: AsyncConnection, ref: str) -> str | None:
    """Return the name of a key's customer, or None if the key does not exist."""
    try:
        return (await get_row(connection, ref)).customer_name
    except ChangeRejectedError:
        return None


async def list_keys(
    connection: AsyncConnection,
    customer: str,
    after: str | None,
    limit: int,
    lead: float | None = None,
    sort: str = "created_at",
    *,
    usage_keys: Sequence[str] | None = None,
) -> ReadPage[Key]:
    """Return at most `limit` keys of a customer after the id `after`, in the order of `sort`: see SORTS.

    `lead` selects keys that are due for rotation within so many seconds, `usage_keys` the keys with these names in
    usage. Raises ChangeRejectedError.
    """
    owner = await customers.get_row(connection, customer)
    statement = select_keys(connection).where(keys.c.customer == owner.id)
    if lead is not None:
        statement = statement.where(is_due(now_ms() / 1000, lead, find_rotate_every(connection)))
    if usage_keys is not None:
        statement = statement.where(sa.func.substr(keys.c.sha256, 1, USAGE_KEY_DIGITS).in_(usage_keys))
    column, descending = parse_sort(sort)
    statement = await order_page(connection, statement, keys.c.id, SORTS[column], after, descending=descending)
    rows = (await connection.execute(statement.limit(limit + 1))).all()
    return parse_page(keys.name, rows, limit, lambda row: to_response(KeyRow._make(row)), attrgetter("id"))


async def create_key(
    connection: AsyncConnection, caller: Caller, customer: str, new: CreateKeyRequest, *, own: bool = False
) -> KeyWithSecret:
    """Create a key for a customer, and return it with its secret. Raises ChangeRejectedError.

    With `own` the customer itself makes the request, and the new key must stay within the bounds of an existing key.
    """
    owner = await customers.get_row(connection, customer, lock=True)
    require_present(owner)
    now = now_ms()
    existing = await require_room(connection, owner.id, now)
    scopes = None if new.scopes is None else sorted(new.scopes)
    budget = key_budgets.dump_budget(new.budget)
    if own:
        requested = KeyBounds(
            frozenset(scopes or ()), new.limits or (), key_budgets.parse_budget(budget), new.expires_at
        )
        bounds.require_within(requested, existing or [await _fetch_last_bounds(connection, owner.id)])
    require_future_end(new.expires_at, now)
    secret = None if new.sha256 is not None else generate_key(new.prefix)
    row = build_row(
        owner,
        new.sha256 or compute_sha256(secret or ""),
        start=None if secret is None else get_key_start(secret),
        name=new.name,
        scopes=None if scopes is None else orjson.dumps(scopes).decode(),
        limits=dump_limits(new.limits),
        budget=budget,
        expires_at=new.expires_at,
    )
    if new.sha256 is not None:
        await _require_unused_sha256(connection, new.sha256)
    created = await insert_key(connection, caller, row)
    await notify_owners(connection, caller, AlertKind.KEY_CREATED, row, name=row.name)
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
    """Update the fields of a key that are set in `change`, an UpdateKeyRequest. Return the key and its version.

    With `own` the customer itself makes the request, and may only narrow the key. Raises ChangeRejectedError.
    """
    row = await get_row(connection, ref, lock=True)
    require_version(row.version, match)
    await require_owner_not_moved(connection, row.customer)
    require_usable(row)
    fields = {name: getattr(change, name) for name in change.model_fields_set}
    values = _compute_values(row, change)
    if own:
        existing = bounds.parse_bounds(row.scopes, row.limits, row.budget, row.expires_at)
        requested = KeyBounds(
            frozenset(fields.get("scopes", existing.scopes) or ()),
            fields.get("limits", existing.limits) or (),
            key_budgets.parse_budget(row._replace(**values).budget),  # type: ignore[arg-type]
            fields.get("expires_at", existing.expires_at),
        )
        bounds.require_within(requested, [existing])
    if all(getattr(row, name) == value for name, value in values.items()):
        return to_response(row), row.version
    # A replacement under way still has the earlier terms.
    row = await withdraw_next_key(connection, caller, row, "the key that it was to replace was changed")
    return await update_key_row(connection, caller, row, values, "key.change")


def _compute_values(row: KeyRow, change: BaseModel) -> Columns:
    """Return the columns of a key that the fields of a request set. Raises ChangeRejectedError."""
    fields = {name: getattr(change, name) for name in change.model_fields_set}
    values: Columns = {name: fields[name] for name in ("name", "expires_at") if name in fields}
    if "expires_at" in fields:
        require_future_end(fields["expires_at"], now_ms())
        later = fields["expires_at"] is None or (row.expires_at is not None and fields["expires_at"] > row.expires_at)
        if row.successor is not None and later:
            raise ChangeRejectedError(
                account_codes.KEY_ROTATED, "it has been rotated, and ends no later than was said then"
            )
    if "scopes" in fields:
        values["scopes"] = None if fields["scopes"] is None else orjson.dumps(sorted(fields["scopes"])).decode()
    if "limits" in fields:
        values["limits"] = dump_limits(fields["limits"])
    if "budget" in fields:
        values["budget"] = key_budgets.dump_budget(fields["budget"], key_budgets.parse_budget(row.budget))
    return values


async def revoke_key(
    connection: AsyncConnection,
    caller: Caller,
    ref: str,
    *,
    match: frozenset[int] | None = None,
    why: str | None = None,
) -> Key:
    """Revoke a key, which ends at once, and return it. Raises ChangeRejectedError."""
    row = await get_row(connection, ref, lock=True)
    require_version(row.version, match)
    if row.revoked_at is not None:
        return to_response(row)
    if why is None:  # A leaked key ends even if its owner has moved away.
        await require_owner_not_moved(connection, row.customer)
    row = await withdraw_next_key(connection, caller, row, "the key that it was to replace was revoked")
    values: Columns = {"revoked_at": now_ms(), "revoked_for": why}
    revoked = (await update_key_row(connection, caller, row, values, "key.revoke", why))[0]
    await notify_owners(connection, caller, AlertKind.KEY_REVOKED, row, name=row.name, why=why)
    return revoked


async def restore_key(
    connection: AsyncConnection, caller: Caller, ref: str, *, match: frozenset[int] | None = None
) -> tuple[Key, int]:
    """Undo the revocation of a key, and return the key and its version. Raises ChangeRejectedError.

    The key gets its earlier state; a key that was being replaced keeps its end. It stays revoked if it has expired
    meanwhile, was replaced at once, or its customer is being deleted.
    """
    owner = await customers.get_row(connection, (await get_row(connection, ref)).customer, lock=True)
    row = await get_row(connection, ref, lock=True)
    require_version(row.version, match)
    now = now_ms()
    if compute_key_state(row, now) is not KeyState.RESTORABLE:
        raise ChangeRejectedError(account_codes.KEY_NOT_RESTORABLE, _explain_final(row, now))
    require_present(owner)
    await require_room(connection, owner.id, now)
    return await update_key_row(connection, caller, row, {"revoked_at": None, "revoked_for": None}, "key.restore")


def _explain_final(row: KeyRow, now: int) -> str:
    """Return the reason why the revocation of a key cannot be undone."""
    if row.revoked_at is None:
        return "the key is not revoked"
    if row.revoked_for == ROTATED:
        return f"the key was replaced at once, by the key {row.successor}"
    if row.revoked_for == WITHDRAWN:
        return "the key never reached its customer"
    if row.expires_at is not None and row.expires_at <= now:
        return "the key has expired meanwhile: make a new one"
    return "the key was revoked more than 24 hours ago: make a new one"


async def rotate_key(
    connection: AsyncConnection, caller: Caller, ref: str, overlap: int, *, own: bool = False
) -> KeyWithSecret:
    """Create a successor of a key, and end the key after `overlap` seconds. Return the successor with its secret.

    The successor has the full lifetime of the key. If the customer itself makes the request (`own`), it ends when the
    key was to end. Raises ChangeRejectedError.
    """
    owner = await customers.get_row(connection, (await get_row(connection, ref)).customer, lock=True)
    row = await get_row(connection, ref, lock=True)
    require_usable(row)
    if row.successor is not None:
        raise ChangeRejectedError(account_codes.KEY_ROTATED, f"it has been rotated already, to the key {row.successor}")
    require_present(owner)
    now = now_ms()
    row = await withdraw_next_key(connection, caller, row, "rotated by hand")
    if overlap:  # Both keys are usable meanwhile.
        await require_room(connection, owner.id, now)
    new, secret = build_replacement(owner, row, now, own=own)
    created = await insert_key(connection, caller, new)
    await end_replaced(connection, caller, row, new, overlap)
    return {**created, "secret": secret, "replaces": row.id}


def build_replacement(owner: CustomerRow, row: KeyRow, now: int, *, own: bool) -> tuple[KeyRow, str]:
    """Return the row of a replacement key, created at this Unix millisecond, and its secret. See `rotate_key`."""
    secret = generate_key(row.start.partition("_v1_")[0] if "_v1_" in row.start else "edge")
    expires_at = row.expires_at
    if expires_at is not None and not own:
        expires_at = now + max(expires_at - row.created_at, 1000)
    inherited = {"name": row.name, "scopes": row.scopes, "limits": row.limits, "budget": row.budget}
    digest, start = compute_sha256(secret), get_key_start(secret)
    return build_row(owner, digest, start=start, **inherited, expires_at=expires_at), secret


async def end_replaced(connection: AsyncConnection, caller: Caller, row: KeyRow, new: KeyRow, overlap: int) -> None:
    """End a replaced key `overlap` seconds from now, or at once, and notify the owners."""
    now, values = now_ms(), Columns(successor=new.id, next_key=None)
    if overlap == 0:
        values |= {"revoked_at": now, "revoked_for": ROTATED}
    else:
        end = now + overlap * 1000
        values["expires_at"] = end if row.expires_at is None else min(end, row.expires_at)
    rotated = (await update_key_row(connection, caller, row, values, "key.rotate"))[0]
    until = None if overlap == 0 else rotated["expires_at"]
    await notify_owners(
        connection, caller, AlertKind.KEY_ROTATED, row, name=row.name, new_start=new.start, works_until=until
    )


def dump_limits(limits: tuple[KeyLimit, ...] | None) -> str | None:
    """Return the limits of a key as JSON. Raises ChangeRejectedError if they contradict each other."""
    if not limits:
        return None
    dumped = [limit.model_dump(mode="json", by_alias=True, exclude_defaults=True) for limit in limits]
    field_faults = faults.find_key_faults(dumped)
    if field_faults:
        raise reject_fields(field_faults)
    return orjson.dumps(dumped).decode()


def require_future_end(expires_at: int | None, now: int) -> None:
    """Raise ChangeRejectedError(422) if the end of a key is past."""
    if expires_at is not None and expires_at <= now:
        raise reject_field("expires_at", "is past: revoke the key instead", PAST)


def require_usable(row: KeyRow) -> None:
    """Raise ChangeRejectedError if edges do not accept a key."""
    if compute_key_state(row, now_ms()) not in USABLE_KEY_STATES:
        raise ChangeRejectedError(account_codes.KEY_ENDED, f"the key is {to_response(row)['state']}: make a new one")


async def _fetch_last_bounds(connection: AsyncConnection, customer: str) -> KeyBounds:
    """Return the bounds of the last key of a customer without usable keys, so that revoking a key lifts no bound."""
    statement = sa.select(*BOUNDS).where(keys.c.customer == customer).order_by(keys.c.id.desc()).limit(1)
    row = (await connection.execute(statement)).one_or_none()
    return KeyBounds() if row is None else bounds.parse_bounds(*row)._replace(scopes=frozenset())


async def require_room(connection: AsyncConnection, customer: str, now: int) -> Sequence[KeyBounds]:
    """Return the bounds of the customer's usable keys. Raises ChangeRejectedError if there are KEYS_MAX."""
    usable = (keys.c.customer == customer) & keys.c.revoked_at.is_(None)
    usable &= keys.c.expires_at.is_(None) | (keys.c.expires_at > now)
    rows = (await connection.execute(sa.select(*BOUNDS).where(usable))).all()
    if len(rows) >= KEYS_MAX:
        raise ChangeRejectedError(
            account_codes.KEYS_FULL,
            f"the customer has {len(rows)} keys, and {KEYS_MAX} is as many as there may be",
            params={"count": len(rows), "most": KEYS_MAX},
        )
    return parse_rows(keys.name, rows, lambda row: bounds.parse_bounds(*row), lambda _: f"one of customer {customer}")


async def _require_unused_sha256(connection: AsyncConnection, sha256: str) -> None:
    rows = await connection.execute(sa.select(keys.c.id).where(keys.c.sha256 == sha256))
    if rows.one_or_none() is not None:
        raise ChangeRejectedError(account_codes.KEY_EXISTS, "there is a key with this sha256 already")
