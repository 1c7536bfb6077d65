"""Requests that a customer makes and completes on the portal: a download of its data, and the deletion of its account.

Each is recorded like a request by letter (`requests.py`). The recent sign-in identifies the person. A download is done
at once. The erasure completes a deletion; an operator who undoes the deletion withdraws the request. The request
and its deletion have one time of beginning.
"""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.ids import generate_id, now_ms
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.accounts.states import DAY_MS
from edgeproxy.collector.database.privacy_tables import privacy_requests
from edgeproxy.collector.database.row_security import across_customers
from edgeproxy.collector.encryption.rows import seal_rows
from edgeproxy.collector.privacy.requests import (
    DUE_DAYS,
    TABLE,
    Kind,
    PrivacyRequestRow,
    State,
    build_step,
    dump_steps,
)

IDENTIFIED = "signed in as a contact of the customer, within ten minutes before"
DOWNLOADED = "the archive was downloaded, SHA-256 {}"
columns = privacy_requests.c


async def record_download(connection: AsyncConnection, caller: Caller, customer: CustomerRow, sha256: str) -> None:
    """Record that a contact downloaded a customer's data in an archive with this hash in hex."""
    now = now_ms()
    await _insert(connection, caller, customer, "access", now, "done", DOWNLOADED.format(sha256))


async def record_deletion(connection: AsyncConnection, caller: Caller, customer: CustomerRow) -> None:
    """Record once that a contact has begun the deletion of a customer."""
    assert customer.deleting_since is not None  # The deletion has begun.
    async with across_customers(connection):
        is_there = (await connection.execute(sa.select(columns.id).where(_is_of_deletion(customer)))).first()
    if is_there is None:
        await _insert(connection, caller, customer, "erasure", customer.deleting_since, "identified", IDENTIFIED)


async def withdraw_deletion(connection: AsyncConnection, caller: Caller, before: CustomerRow) -> None:
    """End the request of a deletion that was undone. `before` is the customer's earlier row."""
    await _end(connection, caller, before, "withdrawn")


async def finish_deletion(connection: AsyncConnection, caller: Caller, before: CustomerRow) -> None:
    """End the request of a deletion because the customer is erased. `before` is the customer's earlier row."""
    await _end(connection, caller, before, "done")


def _is_of_deletion(customer: CustomerRow) -> sa.ColumnElement[bool]:
    began = columns.requested_at == customer.deleting_since
    return (columns.customer == customer.id) & (columns.kind == "erasure") & began


async def _insert(
    connection: AsyncConnection, caller: Caller, customer: CustomerRow, kind: Kind, at: int, state: State, note: str
) -> None:
    is_done = state == "done"
    steps = [build_step(caller, at, "identified", IDENTIFIED)]
    if is_done:
        steps.append(build_step(caller, at, state, note))
    row = PrivacyRequestRow(
        id=generate_id(),
        customer=customer.id,
        kind=kind,
        law="gdpr",
        person=caller.actor,
        state=state,
        steps=dump_steps(steps),
        requested_at=at,
        due_at=at + DUE_DAYS["gdpr"] * DAY_MS,
        ended_at=at if is_done else None,
    )
    async with across_customers(connection):
        await connection.execute(sa.insert(privacy_requests), await seal_rows(connection, TABLE, [row._asdict()]))
    after = {"kind": kind, "law": row.law, "customer": customer.name, "state": state}
    await audit.append_entry(connection, caller, AuditEntry("privacy_request.create", row.id, None, after))


async def _end(connection: AsyncConnection, caller: Caller, before: CustomerRow, state: State) -> None:
    own = _is_of_deletion(before) & columns.ended_at.is_(None)
    update = sa.update(privacy_requests).where(own).values(state=state, ended_at=now_ms()).returning(columns.id)
    for id_ in (await connection.scalars(update)).all():
        entry = AuditEntry("privacy_request.step", id_, {"state": "identified"}, {"state": state})
        await audit.append_entry(connection, caller, entry)
