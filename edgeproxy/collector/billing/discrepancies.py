"""Reconciliations in the database: the compared books, their differences, and the alert about them."""

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.ids import generate_id
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.mismatch import (
    COMPARED_BOOKS,
    Comparison,
    Drift,
    Level,
    ReconciliationKind,
    get_advice,
    highest_level,
    measure_drift,
    measure_drift_by_meter,
    worst_drift,
)
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.database.delivery_tables import reconciliations
from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.database.unreadable_rows import parse_rows

ROWS_STORED_MAX = 100
"""The most differing rows stored with both numbers: the largest differences."""
NAMED_MAX = 5
"""The most rows that an alert names."""
RECENT_SECONDS: Mapping[ReconciliationKind, int] = {"A": 0, "B": DAY, "C": DAY, "D": DAY, "E": 0}
"""Reconciliations up to this many seconds before the last one of their kind still count.

For kinds that are reconciled often it is 0, because the last one is enough.
"""
columns = reconciliations.c


class CostDifference(NamedTuple):
    """The approximate cost in cents of all our units, and of the differing ones."""

    cents: int
    different: int


async def record_reconciliation(
    connection: AsyncConnection,
    kind: ReconciliationKind,
    span: Span,
    rows: Sequence[Comparison],
    now: float,
    cost: CostDifference | None = None,
) -> tuple[Drift, Level]:
    """Record the result of a reconciliation, and raise an alert if the drift requires it.

    Returns the drift of all rows, and the level of the worst meter.
    """
    drift, drifts = measure_drift(rows), measure_drift_by_meter(rows)
    worst_level = highest_level(kind, drifts.values())
    differing = sorted((row for row in rows if row.difference), key=lambda row: (-abs(row.difference), row))
    # Of earlier reconciliations without a difference, only the last is kept.
    agreed = (columns.kind == kind, columns.level == Level.NONE, columns.since == columns.until)
    await connection.execute(sa.delete(reconciliations).where(*agreed))
    row = sa.insert(reconciliations).values(id=generate_id(), kind=kind, since=span.start, until=span.end)
    rows_stored = orjson.dumps([list(row) for row in differing[:ROWS_STORED_MAX]]).decode()
    row = row.values(at=int(now * 1000), level=worst_level, rows=rows_stored, meters=serialize_drifts(drifts))
    if cost is not None:
        row = row.values(cents=cost.cents, cents_different=cost.different)
    await connection.execute(row.values(drift._asdict()))
    if worst_level is not Level.NONE:
        named, books = differing[:NAMED_MAX], COMPARED_BOOKS[kind]
        ratio = 100 * worst_drift(drifts.values()).ratio
        differences = ", ".join(f"{row.customer} {row.meter} {row.difference:+}" for row in named)
        details = {
            "rows": [comparison_to_response(kind, row) for row in named],
            "books": str(kind),
            "part": ratio / 100,
            "different": drift.different,
        }
        alert = Alert(
            key=f"billing-drift-{kind}-{span.start}-{span.end}-{worst_level}",
            kind=AlertKind.RECONCILIATION_MISMATCH,
            severity="page" if worst_level is Level.PAGE else "warn",
            title=f"{books[0].upper()}{books[1:]} are {ratio:.4f} % apart: {differences}",
            details=details,
            at=now,
        )
        await raise_once(connection, alert)
    return drift, worst_level


async def add_to_reconciliation(
    connection: AsyncConnection, kind: ReconciliationKind, span: Span, rows: Sequence[Comparison], now: float
) -> None:
    """Add rows to the reconciliation of this span. It stays one row while all rows agree."""
    unchanged = (
        columns.kind == kind,
        columns.since == span.start,
        columns.until == span.end,
        columns.level == Level.NONE,
    )
    before = (await connection.execute(sa.select(reconciliations).where(*unchanged).with_for_update())).first()
    readable = [] if before is None else _parse_drift_rows([before])
    if before is None or not readable or any(row.difference for row in rows):
        await record_reconciliation(connection, kind, span, rows, now)
        return
    (drifts,) = readable
    for meter, drift in measure_drift_by_meter(rows).items():
        drifts[meter] = sum_drifts([drifts.get(meter, Drift(0, 0, 0)), drift])
    sum_of_meters = sum_drifts(drifts.values())
    values = {**sum_of_meters._asdict(), "meters": serialize_drifts(drifts), "at": int(now * 1000)}
    await connection.execute(sa.update(reconciliations).where(columns.id == before.id).values(values))


async def list_reconciliations(connection: AsyncConnection, kind: str | None, limit: int) -> list[JsonObject]:
    """Return reconciliations in the form of the API, latest first."""
    statement = sa.select(reconciliations)
    if kind is not None:
        statement = statement.where(columns.kind == kind)
    rows = await connection.execute(statement.order_by(columns.at.desc(), columns.id.desc()).limit(limit))
    return parse_rows(reconciliations.name, rows, _to_response, attrgetter("id"))


def _to_response(row: sa.Row[tuple[object, ...]]) -> JsonObject:
    return {
        **{name: getattr(row, name) for name in ("id", "kind", "compared", "units", "different", "level")},
        **{name: getattr(row, name) for name in ("cents", "cents_different")},
        "about": COMPARED_BOOKS[row.kind],
        "since": format_timestamp(row.since * 1000),
        "until": format_timestamp(row.until * 1000),
        "at": format_timestamp(row.at),
        "ratio": Drift(row.compared, row.units, row.different).ratio,
        "meters": {meter: drift.ratio for meter, drift in parse_drifts(row.meters).items()},
        "rows": [comparison_to_response(row.kind, comparison) for comparison in _parse_comparisons(row.rows)],
    }


async def fetch_invoice_differences(connection: AsyncConnection, customer: str, span: Span) -> list[Comparison]:
    """Return the lines that differed in the last comparison of a customer's invoice with Stripe, largest first.

    The customer is given by name, the invoice by its period.
    """
    named = orjson.dumps([customer]).decode()[:-1]  # The beginning of a row of this customer.
    statement = sa.select(columns.id, columns.rows).where(
        columns.kind == "C",
        columns.since == span.start,
        columns.until == span.end,
        columns.rows.contains(f"{named},", autoescape=True),
    )
    latest = await connection.execute(statement.order_by(columns.at.desc(), columns.id.desc()).limit(1))
    readable = parse_rows(reconciliations.name, latest, lambda row: _parse_comparisons(row.rows), attrgetter("id"))
    return [comparison for rows in readable for comparison in rows if comparison.customer == customer]


async def find_drift_since(connection: AsyncConnection, kind: ReconciliationKind, since: float) -> Drift | None:
    """Return the worst meter's drift in all reconciliations of a kind since a Unix second.

    Return None without any, and if one cannot be read, because it may be the worst.
    """
    statement = sa.select(columns.id, columns.meters).where(columns.kind == kind, columns.at >= int(since * 1000))
    drifts_by_meter: dict[str, list[Drift]] = {}
    rows = (await connection.execute(statement)).all()
    readable = _parse_drift_rows(rows)
    for drifts in readable:
        for meter, drift in drifts.items():
            drifts_by_meter.setdefault(meter, []).append(drift)
    is_whole = rows and len(readable) == len(rows)
    return worst_drift(map(sum_drifts, drifts_by_meter.values())) if is_whole else None


async def fetch_ratios(connection: AsyncConnection) -> dict[tuple[str, str], float]:
    """Return the share of units that differed recently, by kind and meter."""
    latest = sa.select(columns.kind, sa.func.max(columns.at)).group_by(columns.kind)
    ratios_by_meter: dict[tuple[str, str], float] = {}
    for kind, at in (await connection.execute(latest)).all():
        if kind not in RECENT_SECONDS:
            continue  # An unknown word, whose row is set aside (reconciliation/stored_words.py).
        statement = sa.select(columns.id, columns.meters).where(
            columns.kind == kind, columns.at >= at - RECENT_SECONDS[kind] * 1000
        )
        for drifts in _parse_drift_rows(await connection.execute(statement)):
            for meter, drift in drifts.items():
                ratios_by_meter[kind, meter] = max(drift.ratio, ratios_by_meter.get((kind, meter), 0.0))
    return ratios_by_meter


async def find_reconciled_until(connection: AsyncConnection, kind: ReconciliationKind) -> int | None:
    """Return the Unix second when the latest reconciled span of a kind ends, or None if there is none."""
    latest = sa.select(sa.func.max(columns.until)).where(columns.kind == kind)
    until: int | None = (await connection.execute(latest)).scalar_one()
    return until


def comparison_to_response(kind: ReconciliationKind, row: Comparison) -> JsonObject:
    """Return a row in the form of the API, with advice."""
    return {**row._asdict(), "action": get_advice(kind, row)}


def sum_drifts(drifts: Iterable[Drift]) -> Drift:
    """Return the sum of these drifts."""
    compared, units, different = map(sum, zip((0, 0, 0), *drifts, strict=True))
    return Drift(compared, units, different)


def serialize_drifts(drifts: Mapping[str, Drift]) -> str:
    """Serialize drifts by meter for the database."""
    return orjson.dumps({meter: list(drift) for meter, drift in drifts.items()}).decode()


def _parse_drift_rows(rows: Iterable["sa.Row[*tuple[Any, ...]]"]) -> list[dict[str, Drift]]:
    """Return the drifts of each row of `reconciliations` that can be read."""
    return parse_rows(reconciliations.name, rows, lambda row: parse_drifts(row.meters), attrgetter("id"))


def _parse_comparisons(stored: str) -> list[Comparison]:
    return [Comparison(*row) for row in orjson.loads(stored)]


def parse_drifts(text: str) -> dict[str, Drift]:
    """Parse drifts by meter from the text of `serialize_drifts`."""
    return {meter: Drift(*values) for meter, values in orjson.loads(text).items()}
