"""The rows of the outbox: how they are inserted, claimed for sending, and settled.

Each function works in the caller's transaction.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.meter_export.outbox import (
    RECOVERY_TRANSITIONS,
    SETTLED,
    TRANSITIONS,
    TRIED_SECONDS,
    RowState,
    RowStateError,
    build_identifier,
    compute_event_time,
)
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.database.delivery_tables import billing_outbox

ROUND_ROWS_MAX = 2000
"""The most rows claimed in one round."""
CHAIN_ROWS_MAX = 5
"""The most rows of one customer in a round. They are sent one after another."""
ANSWER_CHARACTERS_MAX = 300
OPEN = (RowState.READY, RowState.SENDING, RowState.UNKNOWN)
"""States of rows that will be sent, or sent again."""
COUNTED = (RowState.SENDING, RowState.ACCEPTED, RowState.CONFIRMED, RowState.UNKNOWN)
"""States of rows that Stripe may have counted."""

RowKey = tuple[str, str, int, int]
"""Customer, meter, first second of the slice, revision."""
columns = billing_outbox.c
KEY = (columns.customer, columns.meter, columns.slice, columns.revision)


class OutboxRow(NamedTuple):
    """A row of the outbox."""

    customer: str
    meter: str
    slice: int
    revision: int
    until: int
    segment: int
    value: int
    identifier: str
    dated: int | None
    state: RowState
    attempts: int = 0
    key: int = 0
    """The number of the row's current Idempotency-Key."""
    in_doubt: bool = False
    due: int = 0
    first_sent: int | None = None
    answer: str | None = None
    since: int = 0
    """Stripe counts no events of this segment before this Unix second."""

    @property
    def place(self) -> RowKey:
        """The primary key."""
        return self.customer, self.meter, self.slice, self.revision

    @property
    def idempotency_key(self) -> str:
        """The Idempotency-Key. It stays the same until Stripe would replay a failure."""
        return f"{self.identifier}_{self.key}"


FIELDS = [columns[name] for name in OutboxRow._fields]


class RowOutcome(NamedTuple):
    """The result of sending a row."""

    row: OutboxRow
    state: RowState
    due: int = 0
    in_doubt: bool = False
    new_key: bool = False
    answer: str | None = None
    was_sent: bool = True
    """False if the row was claimed but not sent because an earlier row was not settled."""


def new_row(
    account: str, place: RowKey, until: int, segment: int, value: int, *, since: int = 0, state: RowState | None = None
) -> OutboxRow:
    """Return a new row. `value` is the change by this revision.

    The row is ready to send unless another `state` is given, or no minute of the slice is left, which makes it late.
    """
    customer, meter, start, revision = place
    at = compute_event_time(max(start, since), until, revision)
    state = state or (RowState.LATE if at is None else RowState.READY)
    name = build_identifier(account, customer, meter, start, revision, segment)
    row = OutboxRow(customer, meter, start, revision, until, segment, value, name, at, state)
    return row._replace(due=until * 1000, since=since)


async def insert_rows(connection: AsyncConnection, rows: Sequence[OutboxRow], now: int) -> None:
    """Insert new rows at the Unix millisecond `now`."""
    if rows:
        values = [
            {**_row_values(row), "created": now, "settled": now if row.state in SETTLED else None} for row in rows
        ]
        await connection.execute(sa.insert(billing_outbox), values)


async def insert_revision(
    connection: AsyncConnection, account: str, revised: OutboxRow, value: int, now: int, state: RowState | None = None
) -> OutboxRow:
    """Insert the next revision of a slice, which adds `value` to its sum."""
    statement = sa.select(sa.func.max(columns.revision)).where(
        columns.customer == revised.customer, columns.meter == revised.meter, columns.slice == revised.slice
    )
    revision = (await connection.execute(statement)).scalar_one()
    place = (revised.customer, revised.meter, revised.slice, 0 if revision is None else revision + 1)
    # The next free number, because the identifier contains it, and Stripe counts an identifier once.
    row = new_row(account, place, revised.until, revised.segment, value, since=revised.since, state=state)._replace(
        due=now
    )
    await insert_rows(connection, [row], now)
    return row


def build_transition(
    before: Collection[RowState],
    after: RowState,
    now: int,
    transitions: Mapping[RowState, frozenset[RowState]] = TRANSITIONS,
) -> sa.Update:
    """Return the statement that moves rows from the states `before` to another state.

    `now` is in Unix milliseconds. The caller adds conditions and other columns. Raises RowStateError if `transitions`
    lack such a step.
    """
    for state in before:
        if after not in transitions[state]:
            raise RowStateError(f"a row of the outbox cannot go from {state} to {after}")
    settled = now if after in SETTLED else None
    # No `in_` here, because it does not work with a list of parameters.
    is_before = sa.or_(*(columns.state == state for state in before))
    return sa.update(billing_outbox).where(is_before).values(state=after, settled=settled)


async def recover_rows(connection: AsyncConnection, now: int) -> int:
    """Mark rows as unknown that were being sent when an exporter ended. Return their number."""
    statement = build_transition([RowState.SENDING], RowState.UNKNOWN, now).values(in_doubt=1, due=0)
    return (await connection.execute(statement)).rowcount


async def claim_rows(connection: AsyncConnection, now: int, rows_max: int = ROUND_ROWS_MAX) -> list[list[OutboxRow]]:
    """Claim at most `rows_max` due rows and set them to `sending`: a few rows of each customer, in order.

    A customer with a resting row is skipped, because its later rows must wait.
    """
    # Rows that were first sent before `oldest` are looked up in Stripe's sums: identifiers are unique for a day only.
    times = {"now": now, "oldest": now - TRIED_SECONDS * 1000}
    # The statement orders by due time, for its limit. Here the order within a customer matters.
    places = sorted(_RowPlace._make(row) for row in await connection.execute(PLACES, times))
    chains = [
        _first_revisions(customer_places)[:CHAIN_ROWS_MAX]
        for _, customer_places in groupby(places, lambda place: place.customer)
    ]
    # The first row of each customer comes before the second row of any, as rows of one customer wait for each other.
    positions = sorted((place, number) for number, chain in enumerate(chains) for place in range(len(chain)))
    chosen_positions = positions[: min(rows_max, ROUND_ROWS_MAX)]
    if not chosen_positions:
        return []
    counts = Counter(number for _, number in chosen_positions)
    chosen = [[place.identifier for place in chain[: counts[number]]] for number, chain in enumerate(chains)]
    condition = columns.identifier.in_([identifier for chain in chosen for identifier in chain])
    rows = {row.identifier: row for row in await select_rows(connection, condition)}
    claim = build_transition([RowState.READY, RowState.UNKNOWN], RowState.SENDING, now).where(condition)
    first_sent = sa.func.coalesce(columns.first_sent, now)
    await connection.execute(claim.values(attempts=columns.attempts + 1, first_sent=first_sent))
    return [[rows[identifier] for identifier in chain] for chain in chosen if chain]


class _RowPlace(NamedTuple):
    """The sort key for sending: by customer, then by slice, revision and meter."""

    customer: str
    slice: int
    revision: int
    meter: str
    identifier: str


def _select_places() -> sa.Select[str, int, int, str, str]:
    """Return the statement for the keys of rows due at `now`, except rows first sent by `oldest`.

    Many rows are examined and few are sent, so only the chosen rows are read in full.
    """
    now: sa.BindParameter[int] = sa.bindparam("now")
    tried = (columns.state == RowState.READY) | (columns.first_sent > sa.bindparam("oldest"))
    waiting = columns.state.in_([RowState.READY, RowState.UNKNOWN]) & tried
    resting = sa.select(columns.customer).where(waiting, columns.due > now, columns.attempts > 0)
    statement = sa.select(*(columns[name] for name in _RowPlace._fields))
    statement = statement.where(waiting, columns.due <= now, columns.customer.not_in(resting))
    return statement.order_by(columns.due).limit(ROUND_ROWS_MAX * CHAIN_ROWS_MAX).with_for_update()


PLACES = _select_places()


def _first_revisions(places: Iterable[_RowPlace]) -> list[_RowPlace]:
    """Return the first of these rows of each slice. The next one is sent once the first is settled."""
    return list({(row_place.meter, row_place.slice): row_place for row_place in reversed(list(places))}.values())[::-1]


async def settle_rows(connection: AsyncConnection, outcomes: Sequence[RowOutcome], now: int) -> None:
    """Write the results of claimed rows, unless they were settled meanwhile."""
    changed: dict[str, sa.BindParameter[object]] = {
        name: sa.bindparam(f"new_{name}") for name in ("due", "in_doubt", "key", "answer", "attempts", "first_sent")
    }
    values_by_state: dict[RowState, list[dict[str, object]]] = {}
    for outcome in outcomes:
        values_by_state.setdefault(outcome.state, []).append(_settled_values(outcome, now))
    for state, values in values_by_state.items():
        statement = build_transition([RowState.SENDING], state, now).where(
            columns.identifier == sa.bindparam("of_identifier")
        )
        await connection.execute(statement.values(**changed), values)


def _settled_values(outcome: RowOutcome, now: int) -> dict[str, object]:
    row = outcome.row
    was_sent = int(outcome.was_sent)
    first = (row.first_sent or now) if was_sent else row.first_sent
    values = {
        "due": outcome.due,
        "in_doubt": int(outcome.in_doubt),
        "key": row.key + int(outcome.new_key),
        "answer": outcome.answer[:ANSWER_CHARACTERS_MAX] if outcome.answer else row.answer,
        "attempts": row.attempts + was_sent,
        # After an attempt that certainly had no effect, the next attempt counts as the first.
        "first_sent": first if outcome.in_doubt or outcome.state is not RowState.READY else None,
    }
    return {"of_identifier": row.identifier, **{f"new_{name}": value for name, value in values.items()}}


async def adopt_counted(
    connection: AsyncConnection, account: str, adopted: OutboxRow, counted: Mapping[int, int], now: int
) -> None:
    """Adopt the units that Stripe has counted of a slice, by revision, after the sending database was lost.

    Rows unknown to Stripe become void, and the next revision contains the missing units.
    """
    rows = {row.revision: row for row in await fetch_slice(connection, adopted.customer, adopted.meter, adopted.slice)}
    open_rows = [row for row in rows.values() if row.state in OPEN]
    for row in open_rows:
        if row.revision not in counted:
            statement = build_transition([row.state], RowState.VOID, now, RECOVERY_TRANSITIONS)
            await connection.execute(statement.where(*_is_row(row)).values(answer="not at Stripe"))
    for revision, value in counted.items():
        # A restored database may have the row, as one that was not sent yet.
        if revision in rows:
            statement = build_transition([rows[revision].state], RowState.CONFIRMED, now, RECOVERY_TRANSITIONS)
            statement = statement.where(*_is_row(rows[revision]))
            await connection.execute(statement.values(value=value, answer="found in Stripe's sums"))
        else:
            place = (adopted.customer, adopted.meter, adopted.slice, revision)
            counted_row = new_row(account, place, adopted.until, adopted.segment, value, since=adopted.since)
            await insert_rows(connection, [counted_row._replace(state=RowState.CONFIRMED)], now)
    missing = sum(row.value for row in open_rows) - sum(counted.values())
    if missing:
        await insert_revision(connection, account, adopted, missing, now)


async def change_row(connection: AsyncConnection, row: OutboxRow, state: RowState, now: int, why: str) -> bool:
    """Set a row to a state that was not decided by an answer.

    Returns False and changes nothing if the row has left the state of `row` meanwhile.
    """
    statement = build_transition([row.state], state, now).where(*_is_row(row)).values(answer=why)
    return (await connection.execute(statement)).rowcount == 1


async def select_rows(
    connection: AsyncConnection, *where: sa.ColumnElement[bool], limit: int = 100_000
) -> list[OutboxRow]:
    """Return the rows that meet all conditions, in order."""
    rows = await connection.execute(sa.select(*FIELDS).where(*where).order_by(columns.slice, *KEY).limit(limit))
    return [row._replace(state=RowState(row.state), in_doubt=bool(row.in_doubt)) for row in map(OutboxRow._make, rows)]


async def fetch_slice(connection: AsyncConnection, customer: str, meter: str, start: int) -> list[OutboxRow]:
    """Return the rows of a slice in order."""
    same = (columns.customer == customer, columns.meter == meter, columns.slice == start)
    return await select_rows(connection, *same)


async def fetch_fixed(
    connection: AsyncConnection, span: Span, customer: str | None = None
) -> dict[tuple[str, str, int], int]:
    """Return the outbox sums by customer, meter and slice for slices that end within or with a span.

    The sum is 0 if all rows were replaced.
    """
    statement = FIXED if customer is None else FIXED.where(columns.customer == customer)
    rows = await connection.execute(statement, span._asdict())
    return {(name, meter, at): int(total) for name, meter, at, total in rows}


def _select_fixed() -> sa.Select[str, str, int, int]:
    """Return the statement that adds up slices that end after `start` and by `end`."""
    place = (columns.customer, columns.meter, columns.slice)
    value = sa.case((columns.state == RowState.VOID, 0), else_=columns.value)
    chosen = (columns.until > sa.bindparam("start"), columns.until <= sa.bindparam("end"))
    return sa.select(*place, sa.func.sum(value)).where(*chosen).group_by(*place)


FIXED = _select_fixed()


AHEAD = sa.select(sa.func.max(columns.until)).where(
    columns.slice >= sa.bindparam("start"), columns.slice < sa.bindparam("end")
)


async def fetch_latest_end(connection: AsyncConnection, span: Span) -> int:
    """Return the latest end of slices that begin within a span, or 0 if there are none."""
    return (await connection.execute(AHEAD, span._asdict())).scalar_one() or 0


async def is_waiting(connection: AsyncConnection) -> bool:
    """Return whether any row will be sent, now or later."""
    statement = sa.select(columns.revision).where(columns.state.in_(OPEN)).limit(1)
    return (await connection.execute(statement)).first() is not None


async def has_rows(connection: AsyncConnection) -> bool:
    """Return whether the outbox has any row."""
    return (await connection.execute(sa.select(columns.revision).limit(1))).first() is not None


async def count_by_state(connection: AsyncConnection) -> Mapping[str, int]:
    """Return the number of rows in each state."""
    counted = await connection.execute(sa.select(columns.state, sa.func.count()).group_by(columns.state))
    return dict.fromkeys(RowState, 0) | {row[0]: row[1] for row in counted}


def _row_values(row: OutboxRow) -> dict[str, object]:
    return {**row._asdict(), "in_doubt": int(row.in_doubt)}


def _is_row(row: OutboxRow) -> list[sa.ColumnElement[bool]]:
    return [column == value for column, value in zip(KEY, row.place, strict=True)]
