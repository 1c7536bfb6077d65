"""Baselines, findings and the job's progress in the database."""

from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import aclosing
from functools import lru_cache
from operator import attrgetter

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.anomalies.baseline import Baseline
from edgeproxy.collector.anomalies.judgement import SEVERITY_RANKS, Finding, merge_findings
from edgeproxy.collector.database.alert_tables import anomalies, anomaly_baselines, anomaly_progress
from edgeproxy.collector.database.schema import series
from edgeproxy.collector.database.unreadable_rows import ReadPage, parse_page, parse_rows
from edgeproxy.collector.ledger import queries, rollup
from edgeproxy.collector.ledger.queries import LedgerQuery, format_time, parse_time

NAMES_MAX = 500
"""Customers per query."""

HourlyUsage = Mapping[tuple[str, str], dict[int, int]]
"""Usage by customer and meter, then by hour."""


async def fetch_usage(connection: AsyncConnection, since: int, until: int, customers: Collection[str]) -> HourlyUsage:
    """Return the usage of at most NAMES_MAX customers by hour, as far as hours are retained."""
    streamed = stream_usage(connection, since, until, customers)
    return {key: hours async for page in streamed for key, hours in page.items()}


async def stream_usage(
    connection: AsyncConnection, since: int, until: int, customers: Collection[str] | None = None
) -> AsyncGenerator[HourlyUsage, None]:
    """Yield the usage by hour of all customers or of the given ones, as far as hours are retained.

    Customers are in the order of names, NAMES_MAX at a time with all their hours, because there may be a million.
    """
    since = max(since, (await rollup.fetch_state(connection)).hours_from)
    if since >= until:
        return
    usage: dict[tuple[str, str], dict[int, int]] = {}
    names: set[str] = set()
    usage_query = LedgerQuery(None, None, since, until, ("customer", "meter", "hour"))
    conditions = () if customers is None else (series.c.customer.in_(customers),)
    async with aclosing(queries.stream_usage(connection, usage_query, *conditions)) as pages:
        async for rows in pages:
            for row in rows:
                name = row["customer"]
                if name not in names and len(names) == NAMES_MAX:
                    yield usage
                    usage, names = {}, set()
                names.add(name)
                usage.setdefault((name, row["meter"]), {})[_second(row["hour"])] = row["value"]
    yield usage


@lru_cache(1024)
def _second(hour: str) -> int:
    return parse_time("hour", hour)


async def list_customers(connection: AsyncConnection, name: str) -> list[str]:
    """Return the next NAMES_MAX customers with usage after this name, in the order of names."""
    column = series.c.customer
    statement = sa.select(column).where(column > name).distinct().order_by(column).limit(NAMES_MAX)
    return list(await connection.scalars(statement))


async def fetch_build_times(connection: AsyncConnection, customers: Iterable[str]) -> dict[str, int]:
    """Return the Unix second of each customer's oldest baseline. Customers without one are left out."""
    columns = anomaly_baselines.c
    statement = sa.select(columns.customer, sa.func.min(columns.built_at)).where(columns.customer.in_(list(customers)))
    return {row[0]: row[1] for row in await connection.execute(statement.group_by(columns.customer))}


async def replace_baselines(
    connection: AsyncConnection, customer: str, new_baselines: Mapping[str, Baseline | None], now: int
) -> None:
    """Replace the baselines of a customer's meters; None: the history is too short."""
    await connection.execute(sa.delete(anomaly_baselines).where(anomaly_baselines.c.customer == customer))
    if new_baselines:
        rows = [
            {
                "customer": customer,
                "meter": meter,
                "built_at": now,
                "numbers": b"" if baseline is None else baseline.to_bytes(),
            }
            for meter, baseline in new_baselines.items()
        ]
        await connection.execute(sa.insert(anomaly_baselines), rows)


async def fetch_baselines(connection: AsyncConnection, customers: Iterable[str]) -> dict[tuple[str, str], Baseline]:
    """Return the baselines of these customers, by customer and meter."""
    by_meter: dict[tuple[str, str], Baseline] = {}
    names = sorted(set(customers))
    for at in range(0, len(names), NAMES_MAX):
        is_in_page = anomaly_baselines.c.customer.in_(names[at : at + NAMES_MAX])
        for row in await connection.execute(sa.select(anomaly_baselines).where(is_in_page)):
            if row.numbers:
                name = anomaly_baselines.name
                for baseline in parse_rows(name, [row], _parse_baseline, lambda row: f"{row.customer},{row.meter}"):
                    by_meter[row.customer, row.meter] = baseline
    return by_meter


def _parse_baseline(row: sa.Row[tuple[object, ...]]) -> Baseline:
    return Baseline.from_bytes(row.numbers)


async def record_finding(
    connection: AsyncConnection, customer: str, meter: str, day: int, finding: Finding, now: int, keep: float
) -> Finding | None:
    """Write a finding merged with the day's earlier one. Return the result if the severity has risen."""
    columns = anomalies.c
    of_day = (columns.customer == customer) & (columns.day == day)
    rows = (await connection.execute(sa.select(anomalies).where(of_day).with_for_update())).all()
    severest = max((SEVERITY_RANKS[row.severity] for row in rows), default=-1)
    before = next((row for row in rows if row.meter == meter), None)
    merged = merge_findings(None if before is None else parse_finding(before), finding)
    assert merged is not None
    details = {**merged.details, "at": merged.at, "likeness_of_day": merged.likeness, "exact_score": merged.score}
    values = {"kind": merged.kind, "severity": merged.severity, "details": orjson.dumps(details).decode()}
    if before is None:
        times = {"found_at": now, "expires_at": round(now + keep)}
        new = {"customer": customer, "meter": meter, "day": day, **values, **times}
        await connection.execute(sa.insert(anomalies).values(new))
    else:
        await connection.execute(sa.update(anomalies).where(columns.id == before.id).values(values))
    return merged if SEVERITY_RANKS[merged.severity] > severest else None


def parse_finding(row: sa.Row[tuple[object, ...]]) -> Finding:
    """Return the finding of a row of `anomalies`."""
    details = orjson.loads(row.details)
    return Finding(
        row.kind,
        row.severity,
        details["exact_score"],
        details["likeness_of_day"],
        details["value"],
        details["expected"],
        details["at"],
    )


async def list_findings(
    connection: AsyncConnection, before: int | None, limit: int, customer: str | None
) -> ReadPage[JsonObject]:
    """Return at most `limit` findings before this id, latest first, of one customer or of all."""
    columns = anomalies.c
    statement = sa.select(anomalies).order_by(columns.id.desc()).limit(limit + 1)
    if before is not None:
        statement = statement.where(columns.id < before)
    if customer is not None:
        statement = statement.where(columns.customer == customer)
    rows = (await connection.execute(statement)).all()
    return parse_page(anomalies.name, rows, limit, _to_response, attrgetter("id"))


def _to_response(row: sa.Row[tuple[object, ...]]) -> JsonObject:
    return {
        "id": row.id,
        "customer": row.customer,
        "meter": row.meter,
        "day": format_time(row.day)[:10],
        "severity": row.severity,
        **parse_finding(row).details,
        "detected_at": format_time(row.found_at),
        "expires_at": format_time(row.expires_at),
    }


async def delete_expired(connection: AsyncConnection, now: int) -> None:
    """Delete expired findings."""
    await connection.execute(sa.delete(anomalies).where(anomalies.c.expires_at <= now))


async def fetch_progress(connection: AsyncConnection) -> dict[str, int]:
    """Return the progress of each part of the job, by name, as a Unix second."""
    rows = await connection.execute(sa.select(anomaly_progress.c.name, anomaly_progress.c.until))
    return {row[0]: row[1] for row in rows}


async def record_progress(connection: AsyncConnection, name: str, until: int) -> None:
    """Record the progress of a part of the job as a Unix second."""
    is_part = anomaly_progress.c.name == name
    if (await connection.execute(sa.update(anomaly_progress).where(is_part).values(until=until))).rowcount == 0:
        await connection.execute(sa.insert(anomaly_progress).values(name=name, until=until))
