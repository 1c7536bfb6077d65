"""Ledger queries: usage grouped by any of its dimensions, whole or page by page.

Rows are ordered by their fields, and each page begins after the last row of the previous one. Usage counted meanwhile
appears in its place, and no row is repeated or skipped.
"""

import base64
import binascii
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeAlias

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_day
from edgeproxy.collector.database.read_once import fetch_once
from edgeproxy.collector.database.schema import DAY, HOUR, MINUTE, customers, ledger, series, series_dimensions
from edgeproxy.collector.database.statements import AnyColumn, AnyRow, AnySelect, unnest
from edgeproxy.collector.ledger import rollup
from edgeproxy.collector.ledger.rollup import RollupState
from edgeproxy.collector.ledger.sources import NotRetainedError, Source, Span, select_sources
from edgeproxy.config import dimensions
from edgeproxy.wire.batch import ROUTE_CHARACTERS_MAX, UNIX_SECONDS_MAX

MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d:\d\d)(?:\.\d{1,9})?([Zz]|[+-]\d\d:\d\d))?")
LIMIT = re.compile(r"[1-9]\d{0,5}")
PARAMETERS = ("customer", "meter", "from", "to", "by", "where", "limit", "cursor", "format")
FORMATS = ("json", "csv")
ROWS_MAX = 100_000
"""The most rows of a page, and the default."""
ROWS_PER_FETCH = 2000
"""The rows that a stream fetches at once."""
HALF: sa.ColumnElement[int] = sa.literal_column("32")
"""Bits. A sum may exceed the largest integer of a database, so the two halves of values are summed separately."""

SIXTY = tuple(f"{number:02}" for number in range(60))
CLOCK = tuple(f"T{hour:02}:{minute}:" for hour in range(24) for minute in SIXTY)
"""The minutes of a day, as written."""
SECONDS = {"minute": MINUTE, "hour": HOUR, "day": DAY}
NAMES = {"customer": series.c.customer, "meter": series.c.meter, "route": series.c.route, "region": series.c.region}
FIELDS = (*SECONDS, *NAMES)
"""Group-by fields of all usage. Some usage also has dimensions."""
CUSTOMER, METER = "customer", "meter"
"""Names of a statement's parameters."""
FILTERS = ("route", "region")
"""Fields, besides dimensions, that `where` may filter by. Customer and meter have parameters of their own."""

Key = tuple[int | str, ...]
"""The fields of a row without its value: Unix seconds and names."""

Filter = tuple[str, str]
"""A field and its required value. An empty value of a dimension selects usage without it."""

UsageRow: TypeAlias = dict[str, Any]
"""A row of an answer: its fields by name as texts, and its `value`."""


class InvalidQueryError(Exception):
    """The query is unanswerable. The message tells the client why."""


@dataclass(frozen=True, slots=True)
class LedgerQuery:
    """A query for usage of a customer and meter, in minutes from `since` on and before `until`, grouped by `by`.

    `where` selects usage with one value of a field. The result is the first `limit` rows after the row with the fields
    `after`. `limit` is None if the client gave none.
    """

    customer: str | None
    meter: str | None
    since: int
    until: int
    by: tuple[str, ...]
    limit: int | None = None
    after: Key | None = None
    where: Filter | None = None

    def build_cursor(self, after: Key) -> str:
        """Return a cursor to the query's rows after this one. It never expires."""
        token = orjson.dumps([self._digest(), self.since, self.until, *after])
        return base64.urlsafe_b64encode(token).rstrip(b"=").decode()

    def continue_from(self, cursor: str, *, since: int | None, until: int | None) -> "LedgerQuery":
        """Return this query continued after a cursor, with the cursor's times by default. Raises InvalidQueryError."""
        try:
            digest, *times, after = _parse_cursor(cursor)
            if len(after) != len(self.by) or not self.by:
                raise ValueError
            for name, field in zip(self.by, after, strict=True):
                if name in SECONDS:
                    if type(field) is not int or not 0 <= field <= UNIX_SECONDS_MAX:
                        raise ValueError
                elif not isinstance(field, str) or not (is_name(field) or (field == "" and name not in NAMES)):
                    raise ValueError
        except (ValueError, binascii.Error):
            raise InvalidQueryError("cursor: is none that was given here as next for such a question") from None
        if digest != self._digest() or times != [
            t if a is None else a for t, a in zip(times, (since, until), strict=True)
        ]:
            raise InvalidQueryError(
                "cursor: is of another question; customer, meter, from, to, by and where must stay as they were"
            )
        return replace(self, since=times[0], until=times[1], after=tuple(after))

    def _digest(self) -> str:
        question = [self.customer, self.meter, self.by, *([] if self.where is None else [self.where])]
        return hashlib.sha256(orjson.dumps(question)).hexdigest()[:16]

    @property
    def seconds(self) -> int:
        """The seconds of the finest time that rows are grouped by; a DAY without one."""
        return min((SECONDS[name] for name in self.by if name in SECONDS), default=DAY)


def list_dimension_names(query: Mapping[str, str]) -> set[str]:
    """Return the names in `by` and `where` of a query that must be dimensions."""
    names = {*query.get("by", "").split(","), query.get("where", "").partition(":")[0]}
    return {name for name in names if name not in FIELDS and dimensions.NAME.fullmatch(name)}


def parse_query(query: Mapping[str, str], now: float, known: Collection[str] = ()) -> LedgerQuery:
    """Parse a query string, by default for the month so far. `known` are the existing dimensions.

    Raises InvalidQueryError.
    """
    unknown = [name for name in query if name not in PARAMETERS]
    if unknown:
        raise InvalidQueryError(f"{unknown[0][:40]!r} is not known here, there are {', '.join(PARAMETERS)}")
    by = tuple(filter(None, query.get("by", "").split(",")))
    for field in by:
        if field not in FIELDS and field not in known:
            raise InvalidQueryError(
                f"by: {field[:40]!r} is not known, there are {', '.join((*FIELDS, *sorted(known)))}"
            )
    if len(set(by)) < len(by):
        raise InvalidQueryError("by: names something twice")
    for name in ("customer", "meter"):
        if name in query and not is_name(query[name]):
            raise InvalidQueryError(f"{name}: {query[name][:40]!r} is no name")
    if query.get("format", "json") not in FORMATS:
        raise InvalidQueryError(f"format: {query['format'][:40]!r} is not known, there are {', '.join(FORMATS)}")
    limit = query.get("limit")
    if limit is not None and not (LIMIT.fullmatch(limit) and int(limit) <= ROWS_MAX):
        raise InvalidQueryError(f"limit: {limit[:40]!r} is no whole number from 1 to {ROWS_MAX}")
    month = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    since = parse_time("from", query["from"]) if "from" in query else None
    until = parse_time("to", query["to"]) if "to" in query else None
    question = LedgerQuery(
        query.get("customer"),
        query.get("meter"),
        int(month.timestamp()) if since is None else since,
        UNIX_SECONDS_MAX if until is None else until,
        by,
        None if limit is None else int(limit),
        where=_parse_filter(query["where"], known) if "where" in query else None,
    )
    if "cursor" in query:
        question = question.continue_from(query["cursor"], since=since, until=until)
    if question.until < question.since:
        raise InvalidQueryError("to: is before from")
    return question


def _parse_filter(written: str, known: Collection[str]) -> Filter:
    """Parse a `where` such as route:v1 or model:m-large. Raises InvalidQueryError."""
    field, colon, value = written.partition(":")
    if not colon or (field not in FILTERS and field not in known):
        fields = ", ".join((*FILTERS, *sorted(known)))
        raise InvalidQueryError(f"where: {written[:40]!r} is no field and value such as route:v1, there are {fields}")
    if not is_name(value) and (value or field in FILTERS):
        raise InvalidQueryError(f"where: {value[:40]!r} is no value of {field}")
    return field, value


def is_name(text: str) -> bool:
    """Return whether usage can have this name."""
    return 1 <= len(text) <= ROUTE_CHARACTERS_MAX and text.isascii() and text.isprintable()


def _parse_cursor(cursor: str) -> tuple[str, int, int, list[str | int]]:
    """Return the digest, the times and the fields of a cursor. Raises ValueError and binascii.Error."""
    padded = cursor + "=" * (-len(cursor) % 4)
    fields = orjson.loads(base64.b64decode(padded, b"-_", validate=True))
    if not isinstance(fields, list) or len(fields) < 3:
        raise ValueError
    digest, since, until, *after = fields
    if not isinstance(digest, str) or not all(
        type(time) is int and 0 <= time <= UNIX_SECONDS_MAX for time in (since, until)
    ):
        raise ValueError
    return digest, since, until, after


def parse_time(name: str, written: str) -> int:
    """Return the Unix second of an RFC 3339 time or a date, rounded up to a whole second. Raises InvalidQueryError."""
    # A + in a query string becomes a space unless it was written as %2B.
    match = MOMENT.fullmatch(written.replace(" ", "+") if "T" in written.upper() else written)
    try:
        if match is None:
            raise ValueError
        day, clock, zone = match.groups()
        zone = "+00:00" if zone in (None, "Z", "z") else zone
        at = datetime.fromisoformat(f"{day}T{clock or '00:00:00'}{zone}").timestamp()
        second = int(at) + (1 if re.search(r"\.\d*[1-9]", written) else 0)
        datetime.fromtimestamp(second, UTC)  # In UTC the year may be out of range.
    except (ValueError, OverflowError):
        raise InvalidQueryError(
            f"{name}: {written[:40]!r} is no time such as 2027-01-01T12:00:00Z, and no date"
        ) from None
    return second


def format_time(second: int) -> str:
    """Return a Unix second as RFC 3339."""
    day, rest = divmod(second, DAY)
    return f"{format_day(day)}{CLOCK[rest // MINUTE]}{SIXTY[rest % MINUTE]}Z"


async def fetch_usage(connection: AsyncConnection, question: LedgerQuery) -> dict[str, Any]:
    """Return `{total, rows}`. Raises InvalidQueryError. The transaction must read one snapshot.

    `total` covers all rows of the query, not only those returned. If there are more rows, `next` is the cursor for
    them.
    """
    rolled = await rollup.fetch_state_once(connection)
    limit = ROWS_MAX if question.limit is None else question.limit
    fetched = (
        (await connection.execute(build_statement(question, rolled).limit(limit + 1))).all() if question.by else []
    )
    page = fetched[:limit]
    rows = format_rows(question.by, page)
    if question.by and len(fetched) <= limit and question.after is None:
        total = sum(row["value"] for row in rows)
    else:
        # Without groups the total is one row, if there is any usage.
        whole = (await connection.execute(build_statement(replace(question, by=(), after=None), rolled))).all()
        (grouped,) = format_rows((), whole)
        total = grouped["value"]
        if not question.by and total:
            rows = [grouped]
    more = {"next": question.build_cursor(tuple(page[-1][:-2]))} if len(fetched) > limit else {}
    return {"total": total, "rows": rows, **more}


async def fetch_usage_by_meter(connection: AsyncConnection, question: LedgerQuery) -> tuple[UsageRow, dict[str, int]]:
    """Return the result of `fetch_usage` for a query of all meters, and the query's total for each meter."""
    totals = Counter[str]()
    if "meter" not in question.by and question.limit is None and question.after is None:
        # One statement serves both, because the rows of the meters follow each other.
        split = await fetch_usage(connection, replace(question, by=(*question.by, "meter")))
        if "next" not in split:
            rows: list[UsageRow] = []
            for row in split["rows"]:
                totals[row.pop("meter")] += row["value"]
                if rows and all(rows[-1][name] == row[name] for name in question.by):
                    rows[-1]["value"] += row["value"]
                else:
                    rows.append(row)
            return split | {"rows": rows}, totals
    result = await fetch_usage(connection, question)
    by_meter = result
    if "meter" not in question.by or question.after is not None or "next" in result:
        by_meter = await fetch_usage(connection, replace(question, by=("meter",), limit=None, after=None))
    for row in by_meter["rows"]:
        totals[row["meter"]] += row["value"]
    return result, totals


async def stream_usage(
    connection: AsyncConnection, question: LedgerQuery, *conditions: sa.ColumnElement[bool]
) -> AsyncGenerator[list[UsageRow], None]:
    """Yield all rows of a query in parts. Raises InvalidQueryError before the first."""
    statement = build_statement(question, await rollup.fetch_state(connection), *conditions)
    async with connection.stream(statement, execution_options={"yield_per": ROWS_PER_FETCH}) as result:
        async for some in result.partitions():
            rows = format_rows(question.by, some)
            yield rows if question.by else [row for row in rows if row["value"]]


def format_rows(by: Sequence[str], rows: Sequence[AnyRow]) -> list[UsageRow]:
    """Return rows as shown, from their fields and the sums of both halves of their values."""
    if not rows:
        return []
    *fields, high, low = zip(*rows, strict=True)  # Column by column is faster for a hundred thousand rows.
    fields_shown = [
        map(format_time, field) if name in SECONDS else field for name, field in zip(by, fields, strict=True)
    ]
    values = [((upper or 0) << 32) + (lower or 0) for upper, lower in zip(high, low, strict=True)]
    names = (*by, "value")
    return [dict(zip(names, row, strict=True)) for row in zip(*fields_shown, values, strict=True)]


def build_statement(question: LedgerQuery, rolled: RollupState, *conditions: sa.ColumnElement[bool]) -> AnySelect:
    """Build the statement of a query: its rows in order, with the sums of both halves of their values.

    `conditions` restrict the series further. Raises InvalidQueryError.
    """
    since = question.since
    if question.after is not None and question.by[0] in SECONDS:
        since = max(since, int(question.after[0]))  # Earlier rows are not requested.
    taken = _select_sources(question.seconds, since, question.until, rolled) or (Source(ledger, 0, 0),)
    of = _select_series(question, conditions)
    parts = [_select_part(source, question, rolled, of) for source in taken]
    part = sa.union_all(*parts).subquery() if len(parts) > 1 else parts[0].subquery()
    keys = [part.c[name] for name in question.by]
    statement = sa.select(*keys, *_sum_halves(part.c.value))
    if question.after is not None:
        last = [sa.literal(field, key.type) for field, key in zip(question.after, keys, strict=True)]
        statement = statement.where(sa.tuple_(*keys) > sa.tuple_(*last))
    return statement.group_by(*keys).order_by(*keys)


async def fetch_usage_of_spans(
    connection: AsyncConnection, question: LedgerQuery, spans: Sequence[Span]
) -> Sequence[tuple[int, UsageRow]]:
    """Return the rows of a query for each of these spans in place of its own, by the place of the span in `spans`.

    One statement reads any number of spans. The transaction must read one snapshot. Raises InvalidQueryError.
    """
    key = (fetch_usage_of_spans, question, *spans)
    return await fetch_once(key, lambda: _fetch_usage_of_spans(connection, question, spans))


async def _fetch_usage_of_spans(
    connection: AsyncConnection, question: LedgerQuery, spans: Sequence[Span]
) -> list[tuple[int, UsageRow]]:
    rolled = await rollup.fetch_state_once(connection)
    pieces: dict[tuple[sa.Table, bool], list[tuple[int, int, int]]] = defaultdict(list)
    seconds = question.seconds
    for number, (since, until) in enumerate(spans):
        for source in _select_sources(seconds, since, until, rolled):
            pieces[source.table, source.unrolled].append((number, source.since, source.until))
    if not pieces:
        return []
    is_sqlite = connection.dialect.name == "sqlite"
    names = {CUSTOMER: question.customer, METER: question.meter}
    values = {name: value for name, value in names.items() if value is not None}
    for place, of_table in enumerate(pieces.values()):
        values |= _format_pieces(f"pieces_{place}", of_table, is_sqlite=is_sqlite)
    customer, meter = ("" if name in values else None for name in names)
    anyone = replace(question, customer=customer, meter=meter, since=0, until=0)
    statement = _build_statement_of_spans(anyone, tuple(pieces), rolled, is_sqlite=is_sqlite)
    rows = format_rows(("span", *question.by), (await connection.execute(statement, values)).all())
    return [(row.pop("span"), row) for row in rows]


@lru_cache(maxsize=256)  # Building the statement takes longer than reading hundreds of rows.
def _build_statement_of_spans(
    question: LedgerQuery, sources: Sequence[tuple[sa.Table, bool]], rolled: RollupState, *, is_sqlite: bool
) -> AnySelect:
    """Build the statement of `fetch_usage_of_spans` for any customer, meter and spans. They are its parameters."""
    of = _select_series(question)
    is_timed = any(name in SECONDS for name in question.by)
    parts: list[AnySelect] = []
    for place, (table, unrolled) in enumerate(sources):
        piece = _select_pieces(f"pieces_{place}", is_sqlite=is_sqlite)
        source = Source(table, 0, 0, unrolled)
        within = (table.c.series == of.c.id) & source.condition_between(piece.c.since, piece.c.until, rolled)
        time: AnyColumn = source.time
        halves = _label_halves(_split_value(table.c.value))
        if is_sqlite:
            joined: Sequence[sa.FromClause] = (piece, of, table)
        else:
            # PostgreSQL's planner takes a part of a series for much of it, and reads all of the series. A sum makes it
            # look the parts up one by one, as OFFSET does. Sums also leave few rows to sort.
            if is_timed:
                of_piece = sa.select(time.label("time"), *halves).where(within).offset(0).lateral()
                time = of_piece.c.time
            else:
                sums = _label_halves(_sum_halves(table.c.value))
                of_piece = sa.select(*sums).where(within).having(sa.func.count() > 0).lateral()
            joined, halves = (piece, of, of_piece), [of_piece.c[half.name] for half in halves]
        statement = sa.select(piece.c.span, *_list_keys(time, question, of), *halves).select_from(*joined)
        if is_sqlite:
            statement = statement.where(within)
        parts.append(statement if of is not series else statement.where(*_build_conditions(question)))
    part = sa.union_all(*parts).subquery() if len(parts) > 1 else parts[0].subquery()
    fields = [part.c.span, *(part.c[name] for name in question.by)]
    return sa.select(*fields, _sum(part.c.high), _sum(part.c.low)).group_by(*fields).order_by(*fields)


async def find_unstored(
    connection: AsyncConnection, spans: Iterable[Span], seconds: int = DAY
) -> dict[Span, InvalidQueryError]:
    """Return the error of each span whose usage is not stored in the detail of this resolution.

    The transaction must read one snapshot.
    """
    rolled = await rollup.fetch_state_once(connection)
    unstored = {}
    for span in spans:
        try:
            _select_sources(seconds, *span, rolled)
        except InvalidQueryError as error:
            unstored[span] = error
    return unstored


def _select_sources(seconds: int, since: int, until: int, rolled: RollupState) -> tuple[Source, ...]:
    """Select the sources of a query. Raises InvalidQueryError."""
    try:
        return select_sources(seconds, since, until, rolled)
    except NotRetainedError as error:
        raise InvalidQueryError(str(error).format(format_time(error.since))) from None


def _select_pieces(name: str, *, is_sqlite: bool) -> sa.CTE:
    """Select the pieces of spans in the parameters that `_format_pieces` returns: number of the span, begin and end."""
    columns = ("span", "since", "until")
    if is_sqlite:
        rows = sa.func.json_each(sa.bindparam(name, type_=sa.Text())).table_valued("value", name=f"{name}_rows")
        fields = [sa.func.json_extract(rows.c.value, f"$[{place}]", type_=sa.BigInteger) for place in range(3)]
        statement: AnySelect = sa.select(*(field.label(of) for field, of in zip(fields, columns, strict=True)))
    else:
        texts = {of: sa.bindparam(f"{name}_{of}", type_=sa.Text()) for of in columns}
        statement = unnest({of: sa.cast(text, ARRAY(sa.BigInteger())) for of, text in texts.items()})
    return statement.cte(name).prefix_with("MATERIALIZED")


def _format_pieces(name: str, pieces: Sequence[tuple[int, int, int]], *, is_sqlite: bool) -> dict[str, str]:
    """Return the parameters of pieces."""
    if is_sqlite:
        return {name: orjson.dumps(pieces).decode()}
    columns = zip(("span", "since", "until"), zip(*pieces, strict=True), strict=True)
    return {f"{name}_{of}": "{" + ",".join(map(str, values)) + "}" for of, values in columns}


def _sum_halves(value: AnyColumn) -> list[AnyColumn]:
    """Return the sums of both halves of values."""
    return [_sum(half) for half in _split_value(value)]


def _sum(half: AnyColumn) -> AnyColumn:
    """Return the sum of halves of values."""
    # PostgreSQL's type for sums is ten times as expensive to read. The sums of halves fit into 64 bits.
    return sa.cast(sa.func.sum(half), sa.BigInteger)


def _split_value(value: AnyColumn) -> list[AnyColumn]:
    """Return the upper and the lower half of a value."""
    return [value.op(">>")(HALF), value.op("&")((1 << 32) - 1)]


def _label_halves(halves: Sequence[AnyColumn]) -> list[AnyColumn]:
    """Name the upper and the lower half."""
    return [half.label(name) for half, name in zip(halves, ("high", "low"), strict=True)]


def _list_keys(time: AnyColumn, question: LedgerQuery, of: sa.FromClause) -> list[AnyColumn]:
    """Return the fields that rows are grouped by; `time` is the start of their minute, hour or day."""
    return [(time - time % SECONDS[name] if name in SECONDS else of.c[name]).label(name) for name in question.by]


def _select_part(source: Source, question: LedgerQuery, rolled: RollupState, of: sa.FromClause) -> AnySelect:
    """Return a table's part of the answer: the fields and the value of each row."""
    table = source.table
    statement = (
        sa.select(*_list_keys(source.time, question, of), table.c.value)
        .select_from(table.join(of, of.c.id == table.c.series))
        .where(source.condition(rolled))
    )
    return statement if of is not series else statement.where(*_build_conditions(question))


def _build_conditions(question: LedgerQuery) -> list[sa.ColumnElement[bool]]:
    """Return the conditions for the query's customer, meter and filter."""
    conditions = []
    if question.customer is not None:
        conditions.append(series.c.customer == sa.bindparam(CUSTOMER, question.customer))
    if question.meter is not None:
        conditions.append(series.c.meter == sa.bindparam(METER, question.meter))
    if question.where is not None:
        field, value = question.where
        conditions.append(NAMES[field] == value if field in NAMES else _has_dimension(field, value))
    return conditions


def _has_dimension(name: str, value: str) -> sa.ColumnElement[bool]:
    """Return the condition that series have this value of a dimension. An empty value means that they lack it."""
    columns = series_dimensions.c
    of_name = sa.exists().where(columns.series == series.c.id, columns.name == name)
    return of_name.where(columns.value == value) if value else ~of_name


def _select_series(question: LedgerQuery, conditions: Sequence[sa.ColumnElement[bool]] = ()) -> sa.FromClause:
    """Return the series that meet `conditions`, with the values of the requested dimensions.

    They are materialized before anything is counted: once per series, not once per minute.
    """
    names = [name for name in question.by if name not in FIELDS]
    is_filtered = question.where is not None and question.where[0] not in NAMES
    if not names and not conditions and not is_filtered:
        return series
    whole: sa.FromClause = series
    values: list[AnyColumn] = []
    for name in names:
        of_name = series_dimensions.alias(f"of_{len(values)}")
        whole = whole.outerjoin(of_name, (of_name.c.name == name) & (of_name.c.series == series.c.id))
        values.append(sa.func.coalesce(of_name.c.value, "").label(name))
    columns = [column for name, column in NAMES.items() if name in question.by]
    statement = sa.select(series.c.id, *columns, *values).select_from(whole)
    statement = statement.where(*_build_conditions(question), *conditions)
    return statement.cte("split").prefix_with("MATERIALIZED")


async def fetch_known_dimensions(connection: AsyncConnection, names: Iterable[str]) -> set[str]:
    """Return the names among these that are dimensions of usage in the ledger."""
    known: set[str] = set()
    for name in names:
        there = sa.select(series_dimensions.c.name).where(series_dimensions.c.name == name).limit(1)
        known.update(await connection.scalars(there))
    return known


async def fetch_names(connection: AsyncConnection, limit: int) -> tuple[set[str], set[str]]:
    """Return names with usage: at most `limit` customers without a row in the database, and all meters."""
    is_known = sa.exists().where(customers.c.name == series.c.customer)
    others = await connection.execute(sa.select(series.c.customer).where(~is_known).distinct().limit(limit))
    meters = await connection.execute(sa.select(series.c.meter).distinct())
    return set(others.scalars()), set(meters.scalars())
