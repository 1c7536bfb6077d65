"""The audit log: changes and denials with their actors. Each entry has the hash of the one before it.

An entry is written at the end of the transaction of its change, so either both exist or neither. `audit_head` has the
number of entries and the hash of the last one, so that a removed last entry is noticed, too. A person with write access
to the whole database can build a new chain; a copy of the head stored elsewhere reveals that.
"""

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.short_names import shorten_name
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.audit_details import Details, hide_contact, open_details, seal_details
from edgeproxy.collector.database.database import Database, add_last_step
from edgeproxy.collector.database.row_security import across_customers
from edgeproxy.collector.database.schema import audit, audit_head
from edgeproxy.collector.database.unreadable_rows import ReadPage, parse_object, parse_page

FIRST_HASH = "0" * 64
"""The hash before the first entry."""
PAGE_ENTRIES_MAX = 1000
"""The most entries of a page."""
ACTOR_ENTRIES_MAX = 1000
"""The number of latest entries whose actors are listed."""
DENIALS_MAX = 1000
"""The most kinds of denials counted separately in a minute. Further ones are counted together."""
TALLIES_MAX = 10_000
"""The most callers and targets counted separately in a minute. Further ones are counted together."""
TARGET_CHARACTERS_MAX = 500
"""The most characters of a denial's target, because paths come from outside."""
DETAIL_CHARACTERS_MAX = 200

Values = Mapping[str, object]
"""JSON values by name."""


class Caller(NamedTuple):
    """The caller of a change: the name of the token or operator, its address, and the id of the request."""

    actor: str
    origin: str = ""
    request_id: str = ""


class AuditEntry(NamedTuple):
    """An entry: an action such as `edge.change`, and its target before and after, without secrets."""

    action: str
    target: str
    before: Values | None = None
    after: Values | None = None
    customer: str | None = None
    """The id or name of the customer that the details are about, if the target is another object, such as an alert."""


async def append_entry(connection: AsyncConnection, caller: Caller, entry: AuditEntry) -> None:
    """Append an entry at the end of the transaction of its change."""
    await append_entries(connection, caller, [entry])


async def append_entries(connection: AsyncConnection, caller: Caller, entries: Sequence[AuditEntry]) -> None:
    """Append entries in order, at the end of the transaction of their changes."""
    if not entries:
        return
    details = [
        Details(entry.action, entry.target, _format_json(entry.before), _format_json(entry.after), entry.customer)
        for entry in entries
    ]
    stored = await seal_details(connection, details)
    caller = caller._replace(actor=hide_contact(connection, caller.actor))
    # Every change locks the head. Its holder must wait for nothing else (docs/design/row-locks.md).
    add_last_step(connection, partial(_append_chained, caller=caller, entries=stored))


async def _append_chained(connection: AsyncConnection, caller: Caller, entries: Sequence[Details]) -> None:
    async with across_customers(connection):
        # The head is the lock that orders the entries.
        head = sa.select(audit_head.c.seq, audit_head.c.hash).with_for_update()
        seq, last = (await connection.execute(head)).one()
        rows = []
        for number, entry in enumerate(entries, seq + 1):
            row: dict[str, int | str | None] = {
                "seq": number,
                "at": time.time_ns() // 1_000_000,
                "actor": caller.actor,
                "origin": caller.origin,
                "action": entry.action,
                "target": entry.target,
                "before": entry.before,
                "after": entry.after,
                "request_id": caller.request_id,
            }
            last = compute_hash(last, row)
            rows.append({**row, "hash": last})
        await connection.execute(sa.insert(audit), rows)
        await connection.execute(sa.update(audit_head).values(seq=seq + len(rows), hash=last))


def compute_hash(prev: str, row: Values) -> str:
    """Return the hash of an entry after the hash `prev`: the SHA-256 in hex of both as a JSON array."""
    values = [prev, *(row[name] for name in HASHED_COLUMNS)]
    return hashlib.sha256(orjson.dumps(values)).hexdigest()


HASHED_COLUMNS = ("seq", "at", "actor", "origin", "action", "target", "before", "after", "request_id")


def _format_json(values: Values | None) -> str | None:
    return None if values is None else orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()


class EntryTimes(NamedTuple):
    """A span in Unix milliseconds, from `since` and before `until`; None leaves that end open."""

    since: int | None = None
    until: int | None = None


ALL_TIMES = EntryTimes()


async def list_entries(
    connection: AsyncConnection,
    after: int,
    limit: int,
    *,
    newest_first: bool = False,
    times: EntryTimes = ALL_TIMES,
    **filters: str,
) -> ReadPage[dict[str, object]]:
    """Return at most `limit` entries after the number `after`, oldest first. `filters` are columns and their values.

    With `newest_first` they are the entries before that number, newest first; 0 then means all.
    """
    conditions = [audit.c[name] == hide_contact(connection, value) for name, value in filters.items()]
    if times.since is not None:
        conditions.append(audit.c.seq >= await find_first_since(connection, times.since))
    if times.until is not None:
        conditions.append(audit.c.seq < await find_first_since(connection, times.until))
    if not newest_first:
        conditions.append(audit.c.seq > after)
    elif after:
        conditions.append(audit.c.seq < after)
    order = audit.c.seq.desc() if newest_first else audit.c.seq
    limit = min(limit, PAGE_ENTRIES_MAX)
    statement = sa.select(audit).where(*conditions).order_by(order).limit(limit + 1)
    rows = (await connection.execute(statement)).all()
    details = [Details(row.action, row.target, row.before, row.after) for row in rows]
    opened = await open_details(connection, details)
    pairs = list(zip(rows, opened, strict=True))
    return parse_page(audit.name, pairs, limit, lambda pair: _to_response(*pair), lambda pair: pair[0].seq)


async def find_first_since(connection: AsyncConnection, at: int) -> int:
    """Return the number of the first entry at or after a Unix millisecond, or the next number if there is none.

    Entries are numbered without gaps in order of time, apart from differences between the collectors' clocks. So a
    binary search finds the entry in about 25 reads of a row, and no index of times is needed.
    """
    start = sa.select(sa.cast(1, sa.BigInteger).label("first"), (audit_head.c.seq + 1).label("end"))
    halving = start.cte("halving", recursive=True)
    first, end = halving.c.first, halving.c.end
    middle = (first + end) // 2
    there = sa.select(audit.c.at).where(audit.c.seq >= middle).order_by(audit.c.seq).limit(1).scalar_subquery()
    is_before = there < at  # Null, and so not true, if the last entries were removed.
    half = sa.select(sa.case((is_before, middle + 1), else_=first), sa.case((is_before, end), else_=middle))
    halving = halving.union_all(half.where(first < end))
    last = sa.select(halving.c.first).where(halving.c.first >= halving.c.end).limit(1)
    return int((await connection.execute(last)).scalar_one())


async def list_actors(connection: AsyncConnection) -> list[str]:
    """Return the actors of the latest ACTOR_ENTRIES_MAX entries, by name."""
    latest = sa.select(audit.c.actor).order_by(audit.c.seq.desc()).limit(ACTOR_ENTRIES_MAX).subquery()
    actors = sa.select(latest.c.actor).distinct()
    return sorted(await connection.scalars(actors))


def _to_response(row: sa.Row[tuple[object, ...]], details: Details) -> dict[str, object]:
    before, after = (None if text is None else parse_object(text) for text in (details.before, details.after))
    values = {name: getattr(row, name) for name in (*HASHED_COLUMNS, "hash")}
    return {**values, "at": format_timestamp(row.at), "before": before, "after": after}


class AuditTamperedError(Exception):
    """The log was altered. The message names the first wrong entry."""


async def verify_chain(connection: AsyncConnection) -> int:
    """Return the number of entries if each follows the one before it. Raises AuditTamperedError otherwise."""
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
"""Actor, origin, target, status and reason."""


class Denials:
    """The denials of the last minute, counted by kind, so that a flood of denials is not a flood of entries."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: Counter[Denial] = Counter()

    def record(self, caller: Caller, target: str, status: int, why: str) -> None:
        """Count a denial without writing it."""
        actor, origin = shorten_name(caller.actor), shorten_name(caller.origin)
        key = (actor, origin, target[:TARGET_CHARACTERS_MAX], status, why[:DETAIL_CHARACTERS_MAX])
        if key not in self._counts and len(self._counts) >= DENIALS_MAX:
            key = (actor, "", "", status, "more kinds of denials than are told apart")
            if key not in self._counts and len(self._counts) >= 2 * DENIALS_MAX:
                key = ("", "", "", status, "more kinds of denials than are told apart")
        self._counts[key] += 1

    async def write(self) -> "Counter[Denial]":
        """Append the denials counted since the last call, and return them."""
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
    """Changes that are too many for single entries, counted by caller, target and kind."""

    def __init__(self, database: Database, action: str) -> None:
        """Prepare entries with this action."""
        self._database = database
        self._action = action
        self._counts: defaultdict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
        """The counts of changes by kind, for each actor, origin and target."""

    def record(self, caller: Caller, target: str, **counts: int) -> None:
        """Count changes by kind without writing them."""
        kinds = +Counter({kind: int(count) for kind, count in counts.items()})  # A bool would be written as one.
        if kinds:
            key = (caller.actor, caller.origin, target)
            has_room = key in self._counts or len(self._counts) < TALLIES_MAX
            self._counts[key if has_room else ("", "", "")].update(kinds)

    async def write(self) -> None:
        """Append an entry for each caller and target counted since the last call."""
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
