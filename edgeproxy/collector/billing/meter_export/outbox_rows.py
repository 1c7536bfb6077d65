"""The rows of the outbox: put there, taken to be sent, and what came of them. Each in the caller's transaction."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.meter_export.outbox import SETTLED, TRIED_SECONDS, State, dated, identifier
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.database.delivery_tables import billing_outbox

ROUND_ROWS_MAX = 2000
"""Rows that are taken at once."""
CHAIN_ROWS_MAX = 5
"""Rows of one customer among these: they are sent one after the other."""
ANSWER_CHARACTERS_MAX = 300
OPEN = (State.READY, State.SENDING, State.UNKNOWN)
"""States of what is to be sent, or sent again."""
COUNTED = (State.SENDING, State.ACCEPTED, State.CONFIRMED, State.UNKNOWN)
"""States of what Stripe may have counted."""

Key = tuple[str, str, int, int]
"""Customer, meter, first second of the slice, revision."""
columns = billing_outbox.c
KEY = (columns.customer, columns.meter, columns.slice, columns.revision)


class Row(NamedTuple):
    """A row that is to be sent, or was."""

    customer: str
    meter: str
    slice: int
    revision: int
    until: int
    segment: int
    value: int
    identifier: str
    dated: int | None
    state: State
    attempts: int = 0
    key: int = 0
    """The number of its Idempotency-Key."""
    in_doubt: bool = False
    due: int = 0
    first_sent: int | None = None
    answer: str | None = None
    since: int = 0
    """What is dated before it, Stripe does not count for this segment."""

    @property
    def place(self) -> Key:
        """What tells it from all others."""
        return self.customer, self.meter, self.slice, self.revision

    @property
    def idempotency_key(self) -> str:
        """The same for each attempt, until Stripe would replay a failure."""
        return f"{self.identifier}_{self.key}"


FIELDS = [columns[name] for name in Row._fields]


class Outcome(NamedTuple):
    """What came of a row."""

    row: Row
    state: State
    due: int = 0
    in_doubt: bool = False
    new_key: bool = False
    answer: str | None = None
    was_sent: bool = True
    """False where it was taken and then not sent, as one before it was not settled."""


def new_row(
    account: str, place: Key, until: int, segment: int, value: int, *, since: int = 0, state: State | None = None
) -> Row:
    """Make a row; `value` is what a revision adds. It is to be sent unless another `state` is given, or no minute of
    the slice is left, which makes it late."""
    customer, meter, start, revision = place
    at = dated(max(start, since), until, revision)
    state = state or (State.LATE if at is None else State.READY)
    name = identifier(account, customer, meter, start, revision, segment)
    made = Row(customer, meter, start, revision, until, segment, value, name, at, state)
    return made._replace(due=until * 1000, since=since)


async def put(connection: AsyncConnection, rows: Sequence[Row], now: int) -> None:
    """Write rows that are new, at the Unix millisecond `now`."""
    if rows:
        made = [{**_written(row), "created": now, "settled": now if row.state in SETTLED else None} for row in rows]
        await connection.execute(sa.insert(billing_outbox), made)


async def revise(
    connection: AsyncConnection, account: str, of: Row, value: int, now: int, state: State | None = None
) -> Row:
    """Write the next revision of a slice, by which its sum grows by `value`."""
    latest = sa.select(sa.func.max(columns.revision)).where(
        columns.customer == of.customer, columns.meter == of.meter, columns.slice == of.slice
    )
    revision = (await connection.execute(latest)).scalar_one()
    place = (of.customer, of.meter, of.slice, 0 if revision is None else revision + 1)
    row = new_row(account, place, of.until, of.segment, value, since=of.since, state=state)._replace(due=now)
    await put(connection, [row], now)
    return row


async def recover(connection: AsyncConnection) -> int:
    """Return how many rows were under way when an exporter died: nobody knows what came of them."""
    statement = (
        sa.update(billing_outbox).where(columns.state == State.SENDING).values(state=State.UNKNOWN, in_doubt=1, due=0)
    )
    return (await connection.execute(statement)).rowcount


async def take(connection: AsyncConnection, now: int, most: int = ROUND_ROWS_MAX) -> list[list[Row]]:
    """Take what is to be sent now, `most` rows: for each customer a few in their order, from here on `sending`.

    A customer of whom a row rests is passed over, as what comes after it must wait.
    """
    times = {"now": now, "oldest": now - TRIED_SECONDS * 1000}
    places = sorted(_Place._make(row) for row in await connection.execute(PLACES, times))
    chains = [_first_revisions(some)[:CHAIN_ROWS_MAX] for _, some in groupby(places, lambda place: place.customer)]
    # The first row of each customer before the second of any: those of one wait for each other.
    deep = sorted((place, number) for number, chain in enumerate(chains) for place in range(len(chain)))
    wide = deep[: min(most, ROUND_ROWS_MAX)]
    if not wide:
        return []
    counts = Counter(number for _, number in wide)
    chosen = [[place.identifier for place in chain[: counts[number]]] for number, chain in enumerate(chains)]
    these = columns.identifier.in_([identifier for chain in chosen for identifier in chain])
    rows = {row.identifier: row for row in map(row_of, await connection.execute(sa.select(*FIELDS).where(these)))}
    mark = (
        sa.update(billing_outbox)
        .where(these)
        .values(
            state=State.SENDING,
            attempts=columns.attempts + 1,
            first_sent=sa.func.coalesce(columns.first_sent, now),
        )
    )
    await connection.execute(mark)
    return [[rows[identifier] for identifier in chain] for chain in chosen if chain]


class _Place(NamedTuple):
    """What says when a row is sent: first its customer, then its order."""

    customer: str
    slice: int
    revision: int
    meter: str
    identifier: str


def _places() -> sa.Select[Any]:
    """The statement that says where rows are that are to be sent at `now`, unless they were sent first by `oldest`.

    Many are looked at and few are sent, so only what is chosen is read as a whole.
    """
    now: sa.BindParameter[int] = sa.bindparam("now")
    tried = (columns.state == State.READY) | (columns.first_sent > sa.bindparam("oldest"))
    waiting = columns.state.in_([State.READY, State.UNKNOWN]) & tried
    resting = sa.select(columns.customer).where(waiting, columns.due > now, columns.attempts > 0)
    wanted = sa.select(*(columns[name] for name in _Place._fields))
    wanted = wanted.where(waiting, columns.due <= now, columns.customer.not_in(resting))
    return wanted.order_by(columns.due).limit(ROUND_ROWS_MAX * CHAIN_ROWS_MAX).with_for_update()


PLACES = _places()


def _first_revisions(places: Iterable[_Place]) -> list[_Place]:
    """The first of these rows of each slice: the next one is sent once this one is settled."""
    return list({(place.meter, place.slice): place for place in reversed(list(places))}.values())[::-1]


async def settle(connection: AsyncConnection, outcomes: Sequence[Outcome], now: int) -> None:
    """Write what came of rows that were taken, unless it was written meanwhile."""
    if not outcomes:
        return
    changed: Any = {
        name: sa.bindparam(f"new_{name}")
        for name in ("state", "due", "in_doubt", "key", "answer", "settled", "attempts", "first_sent")
    }
    statement = sa.update(billing_outbox).where(*_bound(), columns.state == State.SENDING).values(changed)
    await connection.execute(statement, [_settled(one, now) for one in outcomes])


def _settled(one: Outcome, now: int) -> dict[str, Any]:
    row = one.row
    sent = int(one.was_sent)
    first = (row.first_sent or now) if sent else row.first_sent
    values = {
        "state": one.state,
        "due": one.due,
        "in_doubt": int(one.in_doubt),
        "key": row.key + int(one.new_key),
        "answer": one.answer[:ANSWER_CHARACTERS_MAX] if one.answer else row.answer,
        "settled": now if one.state in SETTLED else None,
        "attempts": row.attempts + sent,
        # Of what was certainly not taken the next attempt is a first one.
        "first_sent": first if one.in_doubt or one.state is not State.READY else None,
    }
    return {**_place(row), **{f"new_{name}": value for name, value in values.items()}}


async def adopt(connection: AsyncConnection, account: str, of: Row, counted: Mapping[int, int], now: int) -> None:
    """Take over what Stripe has of a slice by revision, where the database that sent it was lost. Rows that are not
    there are void, and the next revision has what is missing.
    """
    rows = {row.revision: row for row in await of_slice(connection, of.customer, of.meter, of.slice)}
    ours = [row for row in rows.values() if row.state in OPEN]
    await change(connection, [row for row in ours if row.revision not in counted], State.VOID, now, "not at Stripe")
    for revision, value in counted.items():
        place = (of.customer, of.meter, of.slice, revision)
        found = new_row(account, place, of.until, of.segment, value, since=of.since)
        if revision in rows:
            known = sa.update(billing_outbox).where(*_bound()).values(value=value)
            await connection.execute(known, [_place(found)])
            await change(connection, [found], State.CONFIRMED, now, "found in Stripe's sums")
        else:
            await put(connection, [found._replace(state=State.CONFIRMED)], now)
    more = sum(row.value for row in ours) - sum(counted.values())
    if more:
        await revise(connection, account, of, more, now)


async def change(connection: AsyncConnection, rows: Iterable[Row], state: State, now: int, why: str) -> None:
    """Bring rows into a state that is decided by something else than an answer to them."""
    marks = [_place(row) for row in rows]
    if marks:
        ends = now if state in SETTLED else None
        await connection.execute(
            sa.update(billing_outbox).where(*_bound()).values(state=state, settled=ends, answer=why), marks
        )


async def select(connection: AsyncConnection, *where: sa.ColumnElement[bool], limit: int = 100_000) -> list[Row]:
    """Return the rows of which all this holds, in their order."""
    found = await connection.execute(sa.select(*FIELDS).where(*where).order_by(columns.slice, *KEY).limit(limit))
    return [row_of(one) for one in found]


async def of_slice(connection: AsyncConnection, customer: str, meter: str, start: int) -> list[Row]:
    """Return the rows of a slice, its first one first."""
    same = (columns.customer == customer, columns.meter == meter, columns.slice == start)
    return await select(connection, *same)


async def fixed(
    connection: AsyncConnection, span: Span, customer: str | None = None
) -> dict[tuple[str, str, int], int]:
    """Return what the outbox has of each customer, meter and slice that ends within a time or with it, whatever its
    state: 0 where all of it was replaced by another revision.
    """
    statement = FIXED if customer is None else FIXED.where(columns.customer == customer)
    found = await connection.execute(statement, span._asdict())
    return {(name, meter, at): int(total) for name, meter, at, total in found}


def _fixed() -> sa.Select[Any]:
    """The statement that adds up what the outbox has of slices that end after `start` and by `end`."""
    place = (columns.customer, columns.meter, columns.slice)
    value = sa.case((columns.state == State.VOID, 0), else_=columns.value)
    chosen = (columns.until > sa.bindparam("start"), columns.until <= sa.bindparam("end"))
    return sa.select(*place, sa.func.sum(value)).where(*chosen).group_by(*place)


FIXED = _fixed()


AHEAD = sa.select(sa.func.max(columns.until)).where(
    columns.slice >= sa.bindparam("start"), columns.slice < sa.bindparam("end")
)


async def ahead(connection: AsyncConnection, span: Span) -> int:
    """Return the latest end of slices that begin within a time; 0 where there are none."""
    return (await connection.execute(AHEAD, span._asdict())).scalar_one() or 0


async def is_waiting(connection: AsyncConnection) -> bool:
    """Whether anything is to be sent, now or later."""
    one = sa.select(columns.revision).where(columns.state.in_(OPEN)).limit(1)
    return (await connection.execute(one)).first() is not None


async def is_any(connection: AsyncConnection) -> bool:
    """Whether there was ever anything to send."""
    return (await connection.execute(sa.select(columns.revision).limit(1))).first() is not None


async def standing(connection: AsyncConnection) -> Mapping[str, int]:
    """Return how many rows are in each state."""
    counted = await connection.execute(sa.select(columns.state, sa.func.count()).group_by(columns.state))
    return dict.fromkeys(State, 0) | {row[0]: row[1] for row in counted}


def row_of(found: Any) -> Row:
    """Make a row of what the database has."""
    row = Row(*found)
    return row._replace(state=State(row.state), in_doubt=bool(row.in_doubt))


def _written(row: Row) -> dict[str, Any]:
    return {**row._asdict(), "in_doubt": int(row.in_doubt)}


def _bound() -> list[sa.ColumnElement[bool]]:
    return [column == sa.bindparam(f"of_{column.name}") for column in KEY]


def _place(row: Row) -> dict[str, Any]:
    return {f"of_{column.name}": value for column, value in zip(KEY, row.place, strict=True)}
