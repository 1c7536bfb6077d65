"""The end of personal data in the journal: the details of old enough transactions are cleared.

A transaction's hash also covers its details, so it cannot be verified once they are cleared. It is verified before. The
remaining fields of all cleared transactions then form a second chain of hashes. `credit_head` has the position and the
last hash of that chain, and the audit log has both. The first transaction with details still follows its predecessor in
the original chain.
"""

from collections.abc import Mapping

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.audit import AuditEntry, Caller, append_entry
from edgeproxy.collector.billing.journal.journal import FIRST_HASH, KEPT, STORED, compute_hash
from edgeproxy.collector.billing.journal.postings import JournalEntry
from edgeproxy.collector.billing.journal.verification import JournalTamperedError
from edgeproxy.collector.database.book_text import SEALED
from edgeproxy.collector.database.credit_tables import credit_entries, credit_head, credit_transactions


async def clear_details(connection: AsyncConnection, caller: Caller, before: int, limit: int) -> int:
    """Clear the details of the oldest transactions booked before this Unix millisecond, at most `limit`.

    Returns the number of transactions processed. Raises JournalTamperedError if one was altered, and then clears none.
    """
    columns = credit_transactions.c
    head = (await connection.execute(sa.select(credit_head).with_for_update())).one()
    seq, left = head.cleared_seq, head.cleared_hash
    last = sa.select(columns.hash).where(columns.seq == seq)
    prev = await connection.scalar(last) or FIRST_HASH
    over = sa.select(*STORED).where(columns.seq > seq, columns.at < before)
    rows = (await connection.execute(over.order_by(columns.seq).limit(limit))).mappings().all()
    entries = await _fetch_entries(connection, seq, seq + limit)
    cleared = []
    for row in rows:
        own = entries.get(row["seq"], [])
        # Checked for the last time: without its details the hash of a transaction cannot be computed again.
        if row["seq"] != seq + 1 or compute_hash(prev, row, own) != row["hash"]:
            raise JournalTamperedError(f"credit transaction {seq + 1} was changed, or the one before it, or taken out")
        details = strip_details(row["details"])
        seq, prev, left = row["seq"], row["hash"], compute_hash(left, {**row, "details": details}, own)
        if details != row["details"]:
            cleared.append({"of": seq, "rest": details})
    if not rows:
        return 0
    if cleared:
        statement = sa.update(credit_transactions).where(columns.seq == sa.bindparam("of"))
        await connection.execute(statement.values(details=sa.bindparam("rest")), cleared)
    await connection.execute(sa.update(credit_head).values(cleared_seq=seq, cleared_hash=left))
    if len(rows) < limit:
        entry = AuditEntry("credits.clear_details", "", {"seq": head.cleared_seq}, {"seq": seq, "hash": left})
        await append_entry(connection, caller, entry)
    return len(rows)


def strip_details(details: str) -> str:
    """Return the part of a transaction's stored details that is retained, as JSON. Sealed details retain nothing."""
    if details.startswith(SEALED):
        return "{}"
    fields: Mapping[str, object] = orjson.loads(details)
    left = {name: value for name, value in fields.items() if name in KEPT}
    return orjson.dumps(left, option=orjson.OPT_SORT_KEYS).decode()


async def count_due(connection: AsyncConnection, before: int) -> tuple[int, int]:
    """Return the number of transactions with cleared details, and of those due: booked before this Unix millisecond."""
    cleared: int = (await connection.execute(sa.select(credit_head.c.cleared_seq))).scalar_one()
    columns = credit_transactions.c
    due = sa.select(sa.func.count()).where(columns.seq > cleared, columns.at < before)
    return cleared, int((await connection.execute(due)).scalar_one())


async def _fetch_entries(connection: AsyncConnection, after: int, until: int) -> dict[int, list[JournalEntry]]:
    """Fetch the entries of the transactions after one number up to another."""
    columns = credit_entries.c
    fields = columns.account, columns.amount, columns.grant_id, columns.meter, columns.model
    statement = sa.select(columns.seq, *fields).where(columns.seq > after, columns.seq <= until)
    entries: dict[int, list[JournalEntry]] = {}
    for seq, *values in await connection.execute(statement.order_by(columns.seq, columns.position)):
        entries.setdefault(seq, []).append(JournalEntry(*values))
    return entries
