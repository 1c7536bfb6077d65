"""Reconciliations as they are kept: what was held against what, how far it was apart, and the alert about it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.ids import moment, new_id
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.billing.mismatch import (
    ABOUT,
    Drift,
    Kind,
    Level,
    Row,
    by_meter,
    highest,
    measured,
    what_to_do,
    worst,
)
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.database.delivery_tables import reconciliations
from edgeproxy.collector.database.schema import DAY

ROWS_KEPT_MAX = 100
"""Rows that differ of which both numbers are kept: the largest differences."""
NAMED_MAX = 5
"""Rows that an alert names."""
DAILY: Mapping[Kind, int] = {"A": 0, "B": DAY, "C": DAY, "D": DAY, "E": 0}
"""Seconds before the last one of a kind for which one that differed tells how books are: of the others that are made so
often that the last one says it all, none.
"""
columns = reconciliations.c


class Money(NamedTuple):
    """What units cost, about, in cents: all of ours, and those that differ."""

    cents: int
    different: int


async def keep(
    connection: AsyncConnection, kind: Kind, span: Span, rows: Sequence[Row], now: float, money: Money | None = None
) -> tuple[Drift, Level]:
    """Keep what came of holding two books against each other, and raise an alert where that is due.

    Returns how far all of it is apart, and how bad the meter is that is apart most.
    """
    drift, drifts = measured(rows), by_meter(rows)
    found = highest(kind, drifts.values())
    apart = sorted((row for row in rows if row.difference), key=lambda row: (-abs(row.difference), row))
    kept = {
        "id": new_id(),
        "kind": kind,
        "since": span.start,
        "until": span.end,
        "at": int(now * 1000),
        **drift._asdict(),
        "level": found,
        "rows": orjson.dumps([list(row) for row in apart[:ROWS_KEPT_MAX]]).decode(),
        "meters": written(drifts),
        "cents": None if money is None else money.cents,
        "cents_different": None if money is None else money.different,
    }
    # Of times at which all agreed the last one is enough.
    agreed = (columns.kind == kind, columns.level == Level.NONE, columns.since == columns.until)
    await connection.execute(sa.delete(reconciliations).where(*agreed))
    await connection.execute(sa.insert(reconciliations), [kept])
    if found is not Level.NONE:
        named = ", ".join(f"{row.customer} {row.meter} {row.difference:+}" for row in apart[:NAMED_MAX])
        ratio = 100 * worst(drifts.values()).ratio
        alert = Alert(
            key=f"billing-drift-{kind}-{span.start}-{span.end}-{found}",
            kind="billing_drift",
            severity="page" if found is Level.PAGE else "warn",
            title=f"{ABOUT[kind][0].upper()}{ABOUT[kind][1:]} are {ratio:.4f} % apart: {named}",
            details={"rows": [told(kind, row) for row in apart[:NAMED_MAX]], "different": drift.different},
            at=now,
        )
        await raise_once(connection, alert)
    return drift, found


async def tally(connection: AsyncConnection, kind: Kind, span: Span, rows: Sequence[Row], now: float) -> None:
    """Add rows to those of the same time, of which one reconciliation is kept as long as all agree."""
    same = (columns.kind == kind, columns.since == span.start, columns.until == span.end, columns.level == Level.NONE)
    before = (await connection.execute(sa.select(reconciliations).where(*same).with_for_update())).first()
    if before is None or any(row.difference for row in rows):
        await keep(connection, kind, span, rows, now)
        return
    drifts = read(before.meters)
    for meter, one in by_meter(rows).items():
        drifts[meter] = added([drifts.get(meter, Drift(0, 0, 0)), one])
    whole = added(drifts.values())
    values = {**whole._asdict(), "meters": written(drifts), "at": int(now * 1000)}
    await connection.execute(sa.update(reconciliations).where(columns.id == before.id).values(values))


async def listing(connection: AsyncConnection, kind: str | None, limit: int) -> list[dict[str, Any]]:
    """Tell of reconciliations, the latest first."""
    wanted = sa.select(reconciliations)
    if kind is not None:
        wanted = wanted.where(columns.kind == kind)
    found = await connection.execute(wanted.order_by(columns.at.desc(), columns.id.desc()).limit(limit))
    return [
        {
            **{name: getattr(row, name) for name in ("id", "kind", "compared", "units", "different", "level")},
            **{name: getattr(row, name) for name in ("cents", "cents_different")},
            "about": ABOUT[row.kind],
            "since": moment(row.since * 1000),
            "until": moment(row.until * 1000),
            "at": moment(row.at),
            "ratio": Drift(row.compared, row.units, row.different).ratio,
            "meters": {meter: one.ratio for meter, one in read(row.meters).items()},
            "rows": [told(row.kind, Row(*one)) for one in orjson.loads(row.rows)],
        }
        for row in found
    ]


async def drift_since(connection: AsyncConnection, kind: Kind, since: float) -> Drift | None:
    """Return how far two books were apart in all that was held against each other since a Unix second, by the meter
    that was apart most; None where nothing was.
    """
    wanted = sa.select(columns.meters).where(columns.kind == kind, columns.at >= int(since * 1000))
    found: dict[str, list[Drift]] = {}
    rows = (await connection.execute(wanted)).scalars().all()
    for one in rows:
        for meter, drift in read(one).items():
            found.setdefault(meter, []).append(drift)
    return worst(map(added, found.values())) if rows else None


async def ratios(connection: AsyncConnection) -> dict[tuple[str, str], float]:
    """Return by kind and meter what share differed lately."""
    latest = sa.select(columns.kind, sa.func.max(columns.at)).group_by(columns.kind)
    found: dict[tuple[str, str], float] = {}
    for kind, at in (await connection.execute(latest)).all():
        lately = sa.select(columns.meters).where(columns.kind == kind, columns.at >= at - DAILY[kind] * 1000)
        for one in (await connection.execute(lately)).scalars():
            for meter, drift in read(one).items():
                found[kind, meter] = max(drift.ratio, found.get((kind, meter), 0.0))
    return found


async def reached(connection: AsyncConnection, kind: Kind) -> int | None:
    """Return the Unix second up to which such a reconciliation was done; None where there was none."""
    latest = sa.select(sa.func.max(columns.until)).where(columns.kind == kind)
    found: int | None = (await connection.execute(latest)).scalar_one()
    return found


def told(kind: Kind, row: Row) -> dict[str, Any]:
    """Tell a row, and what to do about it."""
    return {**row._asdict(), "do": what_to_do(kind, row)}


def added(drifts: Iterable[Drift]) -> Drift:
    """Return what these come to together."""
    compared, units, different = map(sum, zip((0, 0, 0), *drifts, strict=True))
    return Drift(compared, units, different)


def written(drifts: Mapping[str, Drift]) -> str:
    """How far meters are apart, as the database has it."""
    return orjson.dumps({meter: list(one) for meter, one in drifts.items()}).decode()


def read(said: str) -> dict[str, Drift]:
    """What `written` has written."""
    return {meter: Drift(*one) for meter, one in orjson.loads(said).items()}
