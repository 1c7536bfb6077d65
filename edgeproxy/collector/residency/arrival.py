"""Arrivals: the residency a customer moves to creates it from the data of the other residency, at first without keys.

Nothing is written twice. After the arrival nothing is overwritten, because the customer may be changed here from then
on. A customer who was here before and comes back is the same customer, recognised by the ids of its earlier move. The
same name proves nothing, because another customer may have it.
"""

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit, customer_rows, customers, documents, key_rows, keys
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.customers import Columns
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.accounts.key_budgets import dump_budget
from edgeproxy.collector.accounts.models import dump_settings
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.accounts.states import DAY_MS, CustomerState, compute_customer_state
from edgeproxy.collector.database.database import build_insert_new
from edgeproxy.collector.database.page_tables import contacts
from edgeproxy.collector.database.quota_tables import limit_raises
from edgeproxy.collector.database.residency_tables import withdrawn_arrivals
from edgeproxy.collector.database.schema import keys as keys_table
from edgeproxy.collector.database.webhook_tables import webhook_endpoints
from edgeproxy.collector.encryption.rows import seal_rows
from edgeproxy.collector.privacy.erasure import erase_customers
from edgeproxy.collector.problems import account_codes, operation_codes
from edgeproxy.collector.residency import moves
from edgeproxy.collector.residency.credit_transfers import has_arrived, lock_arrival, require_sold
from edgeproxy.collector.residency.departure import require_other
from edgeproxy.collector.residency.documents import CustomerDocument, MovedKey
from edgeproxy.collector.residency.moves import Move, MoveRow
from edgeproxy.config.collector.settings import CollectorSettings

WITHDRAWN = "the move is withdrawn"
WITHDRAWN_MS = 7 * DAY_MS
"""Milliseconds before a withdrawal without an arrival is forgotten."""


async def arrive(
    connection: AsyncConnection,
    caller: Caller,
    id_: str,
    residency: str,
    document: CustomerDocument,
    settings: CollectorSettings,
    *,
    is_last: bool,
) -> Move:
    """Copy a customer from another residency, with the keys of `document`. `is_last`: this completes the arrival.

    Raises ChangeRejectedError.
    """
    require_other(settings, residency, "from")
    locked = await moves.lock_by_id(connection, id_)
    row, move = locked or await _begin(connection, caller, id_, residency, document, settings)
    if (move.side, move.residency, move.peer) != ("in", residency, document.peer):
        raise ChangeRejectedError(operation_codes.MOVE_STATE, "the move is one of another customer")
    if move.state == "arrived":
        return moves.to_response(move)
    if move.state == "withdrawn":  # A late call of an interrupted command.
        raise ChangeRejectedError(operation_codes.MOVE_STATE, WITHDRAWN)
    row = await _update(connection, row, document, settings)
    await _replace_contacts(connection, row, document)
    await _replace_raise(connection, caller, row, document)
    added = await _add_keys(connection, row, document.keys)
    if is_last:
        move = await moves.transition(connection, move, "arrived")
    await documents.enqueue_changes(connection, "customer", [row.name])
    after = {"move": id_, "from": residency, "state": move.state, "keys": added}
    await audit.append_entry(connection, caller, AuditEntry("customer.arrive", row.name, None, after))
    return moves.to_response(move)


async def _begin(
    connection: AsyncConnection,
    caller: Caller,
    id_: str,
    residency: str,
    document: CustomerDocument,
    settings: CollectorSettings,
) -> tuple[CustomerRow, MoveRow]:
    """Create the customer, or undo its deletion if it was here before, and insert the move. Return both."""
    await _require_not_withdrawn(connection, id_)
    customers.require_valid_settings(document.settings, settings)
    if document.millicredits:
        require_sold(document.currency or "usd", settings)
    last = await moves.find_by_peer(connection, residency, document.peer)
    earlier = None if last is None else await moves.lock_by_id(connection, last.id)
    if earlier is None or compute_customer_state(earlier[0]) is CustomerState.DELETED:
        row = await _create(connection, document, settings)
    else:
        row, move = earlier
        if move.state == "arriving":  # The other residency has withdrawn this move.
            await moves.transition(connection, move, "withdrawn")
        row = await _take_back(connection, caller, row, is_there=move.state == "arriving")
    return row, await moves.insert_move(connection, row.id, "in", residency, id_=id_, peer=document.peer)


async def withdraw(connection: AsyncConnection, caller: Caller, id_: str) -> Move | None:
    """Withdraw an incomplete arrival and everything it brought; raises ChangeRejectedError.

    A customer whom the arrival created is erased at once, because it was never a customer here. The deletion of one who
    was here before continues. None: the arrival has not come, and is refused if it comes later.
    """
    withdrawn = {"id": id_, "withdrawn_at": now_ms()}
    await connection.execute(build_insert_new(connection, withdrawn_arrivals, "id"), [withdrawn])
    if await moves.find_by_id(connection, id_) is None:
        entry = AuditEntry("customer.withdraw_arrival", id_, None, {"move": id_, "state": "withdrawn"})
        await audit.append_entry(connection, caller, entry)
        return None
    row, move = await lock_arrival(connection, id_)
    if move.state == "withdrawn":
        return moves.to_response(move)
    if await has_arrived(connection, id_):
        raise ChangeRejectedError(
            operation_codes.MOVE_STATE, "credits of the move are booked here: go on with the move"
        )
    move = await moves.transition(connection, move, "withdrawn")
    if compute_customer_state(row) is not CustomerState.DELETED:
        if await moves.has_been_here(connection, row.id):
            await connection.execute(sa.delete(contacts).where(contacts.c.customer == row.id))
            await customers.start_deletion(connection, caller, row.id)
        else:
            await erase_customers(connection, caller, [row])
    entry = AuditEntry("customer.withdraw_arrival", row.name, {"state": "arriving"}, {"move": id_, "state": move.state})
    await audit.append_entry(connection, caller, entry)
    return moves.to_response(move)


async def drop_withdrawn(connection: AsyncConnection, now: int) -> None:
    """Delete the withdrawals of long ago at this Unix millisecond: no call is that late."""
    is_old = withdrawn_arrivals.c.withdrawn_at <= now - WITHDRAWN_MS
    await connection.execute(sa.delete(withdrawn_arrivals).where(is_old))


async def _require_not_withdrawn(connection: AsyncConnection, id_: str) -> None:
    """Raise ChangeRejectedError if an arrival was withdrawn before it came.

    Its row exists for a moment, so that a concurrent withdrawal waits and then finds the arrival.
    """
    own = withdrawn_arrivals.c.id == id_
    if (await connection.execute(sa.select(withdrawn_arrivals.c.id).where(own))).first() is not None:
        raise ChangeRejectedError(operation_codes.MOVE_STATE, WITHDRAWN)
    await connection.execute(sa.insert(withdrawn_arrivals), [{"id": id_, "withdrawn_at": now_ms()}])
    await connection.execute(sa.delete(withdrawn_arrivals).where(own))


async def _create(connection: AsyncConnection, document: CustomerDocument, settings: CollectorSettings) -> CustomerRow:
    await customers.require_unused(connection, document.name, document.external_id)
    has_pseudonym = customers.has_pseudonyms(settings)
    row = customers.build_row(document.name, document.settings, has_pseudonym=has_pseudonym)
    row = row._replace(currency=document.currency)
    await customer_rows.insert_rows(connection, [row])
    return row


async def _take_back(
    connection: AsyncConnection, caller: Caller, before: CustomerRow, *, is_there: bool
) -> CustomerRow:
    """Undo the deletion of a returning customer and return it. `is_there`: the customer may not have been deleted.

    Its keys and webhooks are gone, because it may have revoked them at the other residency since.
    """
    last = await moves.find_last(connection, before.id)
    if last is not None and last.ended_at is None:
        raise ChangeRejectedError(
            account_codes.CUSTOMER_MOVING, f"the customer is on its way to or from {last.residency}"
        )
    if last is not None and last.promised is not None:  # They are booked there, and would exist twice.
        raise ChangeRejectedError(
            operation_codes.MOVE_BLOCKED,
            f"credits that went to {last.residency} are not booked here: end that move first",
        )
    if before.deleting_since is not None:
        await customers.restore_customer(connection, caller, before.id)
    elif not is_there:
        raise ChangeRejectedError(account_codes.CUSTOMER_NOT_DELETING, "the customer is here, and is not being deleted")
    for table in (keys_table, webhook_endpoints):
        await connection.execute(sa.delete(table).where(table.c.customer == before.id))
    return await customers.get_row(connection, before.id, lock=True)


async def _update(
    connection: AsyncConnection, row: CustomerRow, document: CustomerDocument, settings: CollectorSettings
) -> CustomerRow:
    """Give a customer the settings of a document."""
    customers.require_valid_settings(document.settings, settings)
    if document.external_id not in (None, row.external_id):
        await customers.require_unused(connection, None, document.external_id)
    values: Columns = {
        "settings": orjson.dumps(dump_settings(document.settings)).decode(),
        "tier": document.settings.tier,
        "external_id": document.external_id,
        "metadata": orjson.dumps(document.metadata).decode(),
        "rotate_every": document.rotate_every,
    }
    if all(getattr(row, name) == value for name, value in values.items()):
        return row
    return await customers.transition(connection, row, **values)


async def _replace_contacts(connection: AsyncConnection, row: CustomerRow, document: CustomerDocument) -> None:
    await connection.execute(sa.delete(contacts).where(contacts.c.customer == row.id))
    new = [
        {**contact.model_dump(), "email": contact.email.lower(), "customer": row.id} for contact in document.contacts
    ]
    if new:
        await connection.execute(sa.insert(contacts), await seal_rows(connection, contacts.name, new))


async def _replace_raise(
    connection: AsyncConnection, caller: Caller, row: CustomerRow, document: CustomerDocument
) -> None:
    await connection.execute(sa.delete(limit_raises).where(limit_raises.c.customer == row.id))
    if document.limit_raise is not None:
        new = {**document.limit_raise.model_dump(), "customer": row.id, "by": caller.actor}
        await connection.execute(sa.insert(limit_raises), await seal_rows(connection, limit_raises.name, [new]))


async def _add_keys(connection: AsyncConnection, owner: CustomerRow, moved: tuple[MovedKey, ...]) -> int:
    """Add the keys that the customer has not yet, and return their number; raises ChangeRejectedError."""
    digests = [key.sha256 for key in moved]
    there = sa.select(keys_table.c.sha256, keys_table.c.customer).where(keys_table.c.sha256.in_(digests))
    owners = {row.sha256: row.customer for row in await connection.execute(there)}
    if set(owners.values()) - {owner.id}:
        raise ChangeRejectedError(account_codes.KEY_EXISTS, "another customer has one of its keys")
    new = [
        key_rows.build_row(
            owner,
            one.sha256,
            start=one.start,
            name=one.name,
            scopes=None if one.scopes is None else orjson.dumps(sorted(one.scopes)).decode(),
            limits=keys.dump_limits(one.limits),
            budget=dump_budget(one.budget),
            expires_at=one.expires_at,
        )
        for one in moved
        if one.sha256 not in owners
    ]
    await key_rows.insert_rows(connection, new)
    return len(new)
