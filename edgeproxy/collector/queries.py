"""What the ledger says: usage grouped by any of its dimensions, and how edges are."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.schema import GAP, QUARANTINED, batches, edges, ledger, series
from edgeproxy.usage.batch import LATEST

MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d:\d\d)(?:\.\d{1,9})?([Zz]|[+-]\d\d:\d\d))?")
PARAMETERS = ("customer", "meter", "from", "to", "by")
MOST_ROWS = 100_000
"""Rows of an answer."""
MOST_LISTED = 1000
"""Gaps and quarantined batches that are listed."""
HALF: sa.ColumnElement[int] = sa.literal_column("32")
"""Bits. Sums may be larger than any whole number that databases have, so the halves of values are summed apart."""

SECONDS = {"minute": 60, "hour": 3600, "day": 86400}
NAMES = {"customer": series.c.customer, "meter": series.c.meter, "route": series.c.route, "region": series.c.region}
DIMENSIONS: dict[str, sa.ColumnElement[Any]] = {
    **{unit: ledger.c.minute - ledger.c.minute % seconds for unit, seconds in SECONDS.items()},
    **NAMES,
}


class BadQuery(Exception):
    """What was asked cannot be answered: a sentence for who asked."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: whose usage of what, of minutes that begin from `since` on and before `until`, and how grouped."""

    customer: str | None
    meter: str | None
    since: int
    until: int
    by: tuple[str, ...]


def asked(query: Mapping[str, str], now: float) -> Asked:
    """The question of a query string; by default of the month so far. Raises BadQuery."""
    unknown = [name for name in query if name not in PARAMETERS]
    if unknown:
        raise BadQuery(f"{unknown[0][:40]!r} is not known here, there are {', '.join(PARAMETERS)}")
    by = tuple(filter(None, query.get("by", "").split(",")))
    for dimension in by:
        if dimension not in DIMENSIONS:
            raise BadQuery(f"by: {dimension[:40]!r} is not known, there are {', '.join(DIMENSIONS)}")
    if len(set(by)) < len(by):
        raise BadQuery("by: names something twice")
    month = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    since = moment("from", query["from"]) if "from" in query else int(month.timestamp())
    until = moment("to", query["to"]) if "to" in query else LATEST
    if until < since:
        raise BadQuery("to: is before from")
    return Asked(query.get("customer"), query.get("meter"), since, until, by)


def moment(name: str, written: str) -> int:
    """The Unix second of a time of RFC 3339, or of a date; what is between two seconds is the later one."""
    # In a query + is a space, unless it was written as %2B.
    match = MOMENT.fullmatch(written.replace(" ", "+") if "T" in written.upper() else written)
    try:
        if match is None:
            raise ValueError
        day, clock, zone = match.groups()
        zone = "+00:00" if zone in (None, "Z", "z") else zone
        at = datetime.fromisoformat(f"{day}T{clock or '00:00:00'}{zone}").timestamp()
    except (ValueError, OverflowError):
        raise BadQuery(f"{name}: {written[:40]!r} is no time such as 2027-01-01T12:00:00Z, and no date") from None
    return int(at) + (1 if re.search(r"\.\d*[1-9]", written) else 0)


def written(second: int) -> str:
    """A Unix second as RFC 3339."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def usage(connection: AsyncConnection, question: Asked) -> dict[str, Any]:
    """`{total, rows}`: rows in the order of their fields; raises BadQuery where they are too many."""
    value = ledger.c.value
    high, low = sa.func.sum(value.op(">>")(HALF)), sa.func.sum(value.op("&")((1 << 32) - 1))
    dimensions = [DIMENSIONS[name].label(name) for name in question.by]
    statement = (
        sa.select(*dimensions, high, low)
        .select_from(ledger.join(series, series.c.id == ledger.c.series))
        .where(ledger.c.minute >= question.since, ledger.c.minute < question.until)
        .limit(MOST_ROWS + 1)
    )
    if question.customer is not None:
        statement = statement.where(series.c.customer == question.customer)
    if question.meter is not None:
        statement = statement.where(series.c.meter == question.meter)
    if dimensions:
        places: list[Any] = [sa.literal_column(str(place)) for place in range(1, len(dimensions) + 1)]
        statement = statement.group_by(*places)
    found = (await connection.execute(statement)).all()
    if len(found) > MOST_ROWS:
        raise BadQuery(f"the answer has more than {MOST_ROWS} rows: ask for less time, or group by less")
    total, rows = 0, []
    for *fields, upper, lower in sorted(found, key=lambda row: tuple(row[:-2])):
        amount = (int(upper or 0) << 32) + int(lower or 0)
        total += amount
        if dimensions:
            named = zip(question.by, fields, strict=True)
            row = {name: written(field) if name in SECONDS else field for name, field in named}
            rows.append({**row, "value": amount})
    if not dimensions and total:
        rows.append({"value": total})
    return {"total": total, "rows": rows}


async def listing(connection: AsyncConnection, now: float) -> list[dict[str, Any]]:
    """How each edge is: its watermark, its last batch, how far it is behind, and what it lacks."""
    found = (await connection.execute(sa.select(edges).order_by(edges.c.edge))).all()
    told = {
        row.edge: {
            "edge": row.edge,
            "region": row.region,
            "watermark": row.seq,
            "last": None
            if row.until is None
            else {"from": written(row.since), "to": written(row.until), "received": written(row.received // 1000)},
            "lag_s": None if row.until is None else max(0, round(now - row.until)),
            "gaps": [],
            "quarantined": [],
        }
        for row in found
    }
    columns = batches.c
    odd = await connection.execute(
        sa.select(columns.edge, columns.seq, columns.last, columns.state, columns.why)
        .where(columns.state.in_([GAP, QUARANTINED]))
        .order_by(columns.edge, columns.seq.desc())
        .limit(MOST_LISTED)
    )
    for edge, seq, last, state, why in odd:
        if state == GAP:
            told[edge]["gaps"].append({"from_seq": seq, "to_seq": last, "why": why})
        else:
            told[edge]["quarantined"].append({"seq": seq, "why": why})
    return list(told.values())


async def region_of(connection: AsyncConnection, edge: str) -> str | None:
    """The region of an edge; None where nothing of it could be read yet."""
    found = await connection.execute(sa.select(edges.c.region).where(edges.c.edge == edge))
    return found.scalar_one_or_none()


async def overview(connection: AsyncConnection) -> tuple[int, int | None, int, int]:
    """How many edges there are, the Unix second that the one most behind has come to, gaps, quarantined batches."""
    count, until = (await connection.execute(sa.select(sa.func.count(), sa.func.min(edges.c.until)))).one()
    states = sa.select(batches.c.state, sa.func.count()).where(batches.c.state.in_([GAP, QUARANTINED]))
    odd: dict[str, int] = {row[0]: row[1] for row in await connection.execute(states.group_by(batches.c.state))}
    return count, until, odd.get(GAP, 0), odd.get(QUARANTINED, 0)


async def names(connection: AsyncConnection) -> tuple[set[str], set[str]]:
    """The customers and the meters that have usage."""
    customers = await connection.execute(sa.select(series.c.customer).distinct())
    meters = await connection.execute(sa.select(series.c.meter).distinct())
    return set(customers.scalars()), set(meters.scalars())
