"""Reconciliations as they are kept: what was held against what, how far it was apart, and the alert about it."""

from collections.abc import Sequence
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.accounts.ids import moment, new_id
from edgeproxy.alerts.alert import Alert, raise_once
from edgeproxy.billing.drift import ABOUT, Drift, Kind, Level, Row, level, measured, what_to_do
from edgeproxy.billing.rating import Span
from edgeproxy.database.delivery_tables import reconciliations

ROWS_KEPT_MAX = 100
"""Rows that differ of which both numbers are kept: the largest differences."""
NAMED_MAX = 5
"""Rows that an alert names."""
columns = reconciliations.c


async def keep(
    connection: AsyncConnection, kind: Kind, span: Span, rows: Sequence[Row], now: float
) -> tuple[Drift, Level]:
    """Keep what came of holding two books against each other, and raise an alert where that is due."""
    drift = measured(rows)
    found = level(kind, drift)
    apart = sorted((row for row in rows if row.difference), key=lambda row: (-abs(row.difference), row))
    kept = {
        "id": new_id(),
        "kind": kind,
        "since": span.start,
        "until": span.end,
        "at": int(now * 1000),
        "compared": drift.compared,
        "units": drift.units,
        "different": drift.different,
        "level": found,
        "rows": orjson.dumps([list(row) for row in apart[:ROWS_KEPT_MAX]]).decode(),
    }
    # Of times at which all agreed the last one is enough.
    agreed = (columns.kind == kind, columns.level == Level.NONE, columns.since == columns.until)
    await connection.execute(sa.delete(reconciliations).where(*agreed))
    await connection.execute(sa.insert(reconciliations), [kept])
    if found is not Level.NONE:
        named = ", ".join(f"{row.customer} {row.meter} {row.difference:+}" for row in apart[:NAMED_MAX])
        alert = Alert(
            key=f"billing-drift-{kind}-{span.start}-{span.end}-{found}",
            kind="billing_drift",
            severity="page" if found is Level.PAGE else "warn",
            title=f"{ABOUT[kind].capitalize()} are {100 * drift.ratio:.4f} % apart: {named}",
            details={"rows": [told(kind, row) for row in apart[:NAMED_MAX]], "different": drift.different},
            at=now,
        )
        await raise_once(connection, alert)
    return drift, found


async def listing(connection: AsyncConnection, kind: str | None, limit: int) -> list[dict[str, Any]]:
    """Tell of reconciliations, the latest first."""
    wanted = sa.select(reconciliations)
    if kind is not None:
        wanted = wanted.where(columns.kind == kind)
    found = await connection.execute(wanted.order_by(columns.at.desc(), columns.id.desc()).limit(limit))
    return [
        {
            **{name: getattr(row, name) for name in ("id", "kind", "compared", "units", "different", "level")},
            "about": ABOUT[row.kind],
            "since": moment(row.since * 1000),
            "until": moment(row.until * 1000),
            "at": moment(row.at),
            "ratio": Drift(row.compared, row.units, row.different).ratio,
            "rows": [told(row.kind, Row(*one)) for one in orjson.loads(row.rows)],
        }
        for row in found
    ]


async def drift_since(connection: AsyncConnection, kind: Kind, since: float) -> Drift | None:
    """Return how far two books were apart in all that was held against each other since a Unix second; None where
    nothing was.
    """
    sums = [sa.func.sum(column) for column in (columns.compared, columns.units, columns.different)]
    wanted = sa.select(*sums).where(columns.kind == kind, columns.at >= int(since * 1000))
    found = (await connection.execute(wanted)).one()
    return None if found[0] is None else Drift(int(found[0]), int(found[1]), int(found[2]))


def told(kind: Kind, row: Row) -> dict[str, Any]:
    """Tell a row, and what to do about it."""
    return {**row._asdict(), "do": what_to_do(kind, row)}
