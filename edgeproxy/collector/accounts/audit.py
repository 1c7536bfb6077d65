"""The audit log: who changed what, and who was denied, each entry with the hash of the one before it.

An entry is written in the transaction of the change that it tells of, so either both are there or neither is. `head`
says how many entries there are and the hash of the last one, so that one that is taken off the end is missed too.
Whoever can write the whole database can make a new chain: a copy of the head, kept elsewhere, shows that.
"""

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.row_security import across_customers
from edgeproxy.collector.database.schema import audit, audit_head

FIRST_HASH = "0" * 64
"""What the first entry has in the place of the hash before it."""
PAGE_ENTRIES_MAX = 1000
"""Entries that one page has at most."""
DENIALS_MAX = 1000
"""Kinds of denials that are told apart in a minute; what is beyond is counted together."""
TALLIES_MAX = 10_000
"""Callers and targets that are told apart in a minute; what is beyond is counted together."""
DETAIL_CHARACTERS_MAX = 200

Values = dict[str, Any]


class Caller(NamedTuple):
    """Who asks for a change: the name of the token or the operator, the address, and the id of the request."""

    actor: str
    origin: str = ""
    request_id: str = ""


class AuditEntry(NamedTuple):
    """What is put on record: an action such as `edge.change`, and its target before and after, without secrets."""

    action: str
    target: str
    before: Values | None = None
    after: Values | None = None


async def append_entry(connection: AsyncConnection, caller: Caller, entry: AuditEntry) -> None:
    """Write an entry in the transaction of whoever changes something."""
    await append_entries(connection, caller, [entry])


async def append_entries(connection: AsyncConnection, caller: Caller, entries: Sequence[AuditEntry]) -> None:
    """Write entries, in their order, in the transaction of whoever changes something."""
    if not entries:
        return
    async with across_customers(connection):
        await _append_chained(connection, caller, entries)


async def _append_chained(connection: AsyncConnection, caller: Caller, entries: Sequence[AuditEntry]) -> None:
    # The head is the lock under which entries follow each other.
    seq, last = (await connection.execute(sa.select(audit_head.c.seq, audit_head.c.hash).with_for_update())).one()
    rows = []
    for number, entry in enumerate(entries, seq + 1):
        row = {
            "seq": number,
            "at": time.time_ns() // 1_000_000,
            "actor": caller.actor,
            "origin": caller.origin,
            "action": entry.action,
            "target": entry.target,
            "before": _format_json(entry.before),
            "after": _format_json(entry.after),
            "request_id": caller.request_id,
        }
        last = row["hash"] = compute_hash(last, row)
        rows.append(row)
    await connection.execute(sa.insert(audit), rows)
    await connection.execute(sa.update(audit_head).values(seq=rows[-1]["seq"], hash=last))


def compute_hash(prev: str, row: Values) -> str:
    """Return the hash of an entry that follows one with the hash `prev`: SHA-256 in hex of both, as a JSON array."""
    values = [prev, *(row[name] for name in HASHED_COLUMNS)]
    return hashlib.sha256(orjson.dumps(values)).hexdigest()


HASHED_COLUMNS = ("seq", "at", "actor", "origin", "action", "target", "before", "after", "request_id")


def _format_json(values: Values | None) -> str | None:
    return None if values is None else orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()


async def list_entries(
    connection: AsyncConnection, after: int, limit: int, *, newest_first: bool = False, **only: str
) -> list[Values]:
    """Return at most `limit` entries behind the number `after`, oldest first; `only` those with these columns.

    With `newest_first` they are those before it, the other way round; before 0 are all.
    """
    conditions = [audit.c[name] == value for name, value in only.items()]
    if not newest_first:
        conditions.append(audit.c.seq > after)
    elif after:
        conditions.append(audit.c.seq < after)
    order = audit.c.seq.desc() if newest_first else audit.c.seq
    rows = await connection.execute(
        sa.select(audit).where(*conditions).order_by(order).limit(min(limit, PAGE_ENTRIES_MAX))
    )
    return [_to_response(row) for row in rows]


def _to_response(row: Any) -> Values:
    values = {name: getattr(row, name) for name in (*HASHED_COLUMNS, "hash")}
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(row.at // 1000)) + f".{row.at % 1000:03}Z"
    before, after = (None if text is None else orjson.loads(text) for text in (row.before, row.after))
    return {**values, "at": at, "before": before, "after": after}


class AuditTamperedError(Exception):
    """The log is not what was written: the sentence names the first entry that is wrong."""


async def verify_chain(connection: AsyncConnection) -> int:
    """Return how many entries there are, if each follows the one before it; raises AuditTamperedError."""
    head = (await connection.execute(sa.select(audit_head.c.seq, audit_head.c.hash))).one()
    seq, prev = 0, FIRST_HASH
    rows = await connection.stream(sa.select(audit).order_by(audit.c.seq))
    async for row in rows:
        if row.seq != seq + 1:
            raise AuditTamperedError(f"audit entry {seq + 1} was taken out")
        if compute_hash(prev, row._asdict()) != row.hash:
            raise AuditTamperedError(f"audit entry {row.seq} was changed, or the one before it")
        seq, prev = row.seq, row.hash
    if (seq, prev) != tuple(head):
        last = f"audit entries {seq + 1} to {head.seq} were taken out"
        raise AuditTamperedError(
            last if head.seq > seq else f"the head of the audit log was changed: it says {head.seq}"
        )
    return seq


Denial = tuple[str, str, str, int, str]
"""Actor, origin, target, status and why."""


class Denials:
    """What was denied lately, gathered so that a flood of denials is not a flood of entries."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: Counter[Denial] = Counter()

    def record(self, caller: Caller, target: str, status: int, why: str) -> None:
        """Count a denial; nothing is written yet."""
        key = (caller.actor, caller.origin, target, status, why[:DETAIL_CHARACTERS_MAX])
        if key not in self._counts and len(self._counts) >= DENIALS_MAX:
            key = (caller.actor, "", "", status, "more kinds of denials than are told apart")
            if key not in self._counts and len(self._counts) >= 2 * DENIALS_MAX:
                key = ("", "", "", status, "more kinds of denials than are told apart")
        self._counts[key] += 1

    async def write(self) -> "Counter[Denial]":
        """Put on record what was counted since the last time, and return it."""
        counts, self._counts = self._counts, Counter()
        if not counts:
            return counts
        try:
            async with self._database.writing() as connection:
                for (actor, origin, target, status, why), count in counts.items():
                    after = {"status": status, "why": why, "count": count}
                    await append_entry(connection, Caller(actor, origin), AuditEntry("denied", target, None, after))
        except BaseException:
            self._counts.update(counts)
            raise
        return counts


class Tallies:
    """Changes of which there are too many for an entry each: how many of which kind who has made lately, to what."""

    def __init__(self, database: Database, action: str) -> None:
        """`action` is that of the entries."""
        self._database = database
        self._action = action
        self._counts: defaultdict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
        """By actor, origin and target."""

    def record(self, caller: Caller, target: str, **counts: int) -> None:
        """Count changes that are made, by their kinds; nothing is written yet."""
        kinds = +Counter({kind: int(count) for kind, count in counts.items()})  # A bool would be written as one.
        if kinds:
            key = (caller.actor, caller.origin, target)
            has_room = key in self._counts or len(self._counts) < TALLIES_MAX
            self._counts[key if has_room else ("", "", "")].update(kinds)

    async def write(self) -> None:
        """Put on record what was counted since the last time."""
        counts, self._counts = self._counts, defaultdict(Counter)
        if not counts:
            return
        try:
            async with self._database.writing() as connection:
                for (actor, origin, target), kinds in counts.items():
                    await append_entry(
                        connection, Caller(actor, origin), AuditEntry(self._action, target, None, dict(kinds))
                    )
        except BaseException:
            for key, kinds in counts.items():
                self._counts[key].update(kinds)
            raise
