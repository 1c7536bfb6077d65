"""The status of edges: their progress, lag and missing batches; and retired edges.

An operator retires an edge, up to its watermark at that time. Its counts stay, and the first later batch reactivates
the edge.
"""

import time
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import EVENTS, GAP, NOT_COUNTED, QUARANTINED, batches, edges
from edgeproxy.collector.ledger.queries import format_time
from edgeproxy.wire.batch import FIRST, NAME

LISTED_MAX = 1000
"""The most listed gaps and quarantined batches."""
SHOWN_MAX = 200
"""The most edges that metrics name: those furthest behind, and those with the most gaps."""

EDGES = edges.c.edge != EVENTS
"""The condition for rows that are edges. One row stands for usage reported by services."""
SERVING = EDGES & (edges.c.retired.is_(None) | (edges.c.retired != edges.c.seq))
"""The condition for edges that are not retired."""
ODD = NOT_COUNTED & batches.c.state.in_([GAP, QUARANTINED])
"""The condition for batches that are gaps or in quarantine."""


class EdgeStatus(NamedTuple):
    """Figures on all edges. Retired edges count only in `gaps` and `quarantined`."""

    edges: int
    retired: int
    gaps: int
    quarantined: int
    until: dict[str, int]
    """The Unix second that an edge has reached, for the SHOWN_MAX edges furthest behind, these first."""
    gaps_of: dict[str, int]
    """The number of gaps by edge, for the SHOWN_MAX edges with the most gaps and the edges in `until`."""

    @property
    def unshown(self) -> int:
        """The number of edges that are left out because others are worse."""
        return self.edges - len(self.gaps_of)


async def fetch_status(connection: AsyncConnection) -> EdgeStatus:
    """Return the current figures."""
    serving = sa.func.coalesce(sa.func.sum(sa.case((SERVING, 1), else_=0)), 0)
    count, active = (await connection.execute(sa.select(sa.func.count(), serving).where(EDGES))).one()
    states = sa.select(batches.c.state, sa.func.count()).where(ODD)
    odd: dict[str, int] = {row[0]: row[1] for row in await connection.execute(states.group_by(batches.c.state))}
    behind = sa.select(edges.c.edge, edges.c.until).where(SERVING, edges.c.until.is_not(None))
    ordered = behind.order_by(edges.c.until, edges.c.edge).limit(SHOWN_MAX)
    until: dict[str, int] = {row[0]: row[1] for row in await connection.execute(ordered)}
    gaps = sa.func.count().label("gaps")
    most = (
        sa.select(batches.c.edge, gaps)
        .join(edges, edges.c.edge == batches.c.edge)
        .where(NOT_COUNTED, batches.c.state == GAP, SERVING)
        .group_by(batches.c.edge)
        .order_by(gaps.desc(), batches.c.edge)
        .limit(SHOWN_MAX)
    )
    gaps_of = dict.fromkeys(until, 0) | {row[0]: row[1] for row in await connection.execute(most)}
    return EdgeStatus(active, count - active, odd.get(GAP, 0), odd.get(QUARANTINED, 0), until, gaps_of)


async def list_edges(connection: AsyncConnection, now: float) -> list[dict[str, object]]:
    """List each edge with its watermark, last batch, lag, missing batches and self-reported state."""
    rows = (await connection.execute(sa.select(edges).where(EDGES).order_by(edges.c.edge))).all()
    edge_reports = {
        row.edge: {
            "edge": row.edge,
            "region": row.region,
            "token": row.token,
            "watermark": row.seq,
            "last": None
            if row.until is None
            else {
                "from": format_time(row.since),
                "to": format_time(row.until),
                "received": format_time(row.received // 1000),
            },
            "lag_s": None if row.until is None else max(0, round(now - row.until)),
            "retired": row.retired == row.seq,
            "version": row.version,
            "sync_age_s": row.sync_age,
            "gaps": [],
            "quarantined": [],
        }
        for row in rows
    }
    columns = batches.c
    odd = await connection.execute(
        sa.select(columns.edge, columns.seq, columns.last, columns.state, columns.why)
        .where(ODD)
        .order_by(columns.edge, columns.seq.desc())
        .limit(LISTED_MAX)
    )
    for edge, seq, last, state, why in odd:
        if state == GAP:
            edge_reports[edge]["gaps"].append({"from_seq": seq, "to_seq": last, "why": why})
        else:
            edge_reports[edge]["quarantined"].append({"seq": seq, "why": why})
    return list(edge_reports.values())


async def find_binding(connection: AsyncConnection, edge: str) -> dict[str, object] | None:
    """Return the changeable fields of an edge, locked until the transaction ends, or None if it does not exist."""
    if not NAME.fullmatch(edge):  # Some databases reject a NUL even in a query.
        return None
    columns = edges.c
    statement = sa.select(columns.token, columns.region, columns.gap_to, columns.retired, columns.seq)
    row = (await connection.execute(statement.where(columns.edge == edge).with_for_update())).one_or_none()
    if row is None:
        return None
    return {"token": row.token, "region": row.region, "gap_to": row.gap_to, "retired": row.retired == row.seq}


async def set_retired(connection: AsyncConnection, edge: str, *, retired: bool) -> int | None:
    """Mark an edge as retired or active. Return its watermark, or None if it does not exist."""
    return await _update_edge(connection, edge, retired=edges.c.seq if retired else sa.null())


async def rebind_edge(connection: AsyncConnection, edge: str, *, token: str, region: str) -> int | None:
    """Bind an edge to another token and region. Return its watermark, or None if it does not exist."""
    return await _update_edge(connection, edge, token=token, region=region)


async def allow_initial_gap(connection: AsyncConnection, database: Database, edge: str, gap_to: int) -> int | None:
    """Let the chain of an edge begin with a gap up to `gap_to`, even if the edge is not known yet.

    Returns its watermark, 0, or None if the name is invalid or the edge has already begun.
    """
    if not NAME.fullmatch(edge):
        return None
    begun = {"edge": edge, "seq": 0, "hash": FIRST, "received": round(time.time() * 1000)}
    await database.ledger.insert_edges(connection, [begun])
    return await _update_edge(connection, edge, edges.c.seq == 0, gap_to=gap_to)


async def _update_edge(
    connection: AsyncConnection, edge: str, *where: sa.ColumnElement[bool], **values: object
) -> int | None:
    """Update columns of an edge that meets the conditions. Return its watermark, or None if there is none."""
    if not NAME.fullmatch(edge):  # Some databases reject a NUL even in a query.
        return None
    changed = sa.update(edges).where(edges.c.edge == edge, *where).values(values).returning(edges.c.seq)
    watermark: int | None = await connection.scalar(changed)
    return watermark
