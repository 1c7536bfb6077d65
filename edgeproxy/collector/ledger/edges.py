"""Status of edges: how far each has come, its lag, its missing batches; and retired edges.

An edge is retired by hand, up to its watermark at that time. Nothing that it counted is lost, and the first later batch
brings the edge back.
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
"""Gaps and quarantined batches that are listed."""
SHOWN_MAX = 200
"""Edges that metrics name: those that are most behind, and those that have most gaps."""

EDGES = edges.c.edge != EVENTS
"""Condition of rows that are edges: one stands for what services report."""
SERVING = EDGES & (edges.c.retired.is_(None) | (edges.c.retired != edges.c.seq))
"""Condition of edges that are not retired."""
ODD = NOT_COUNTED & batches.c.state.in_([GAP, QUARANTINED])
"""Condition of batches that are gaps, or in quarantine."""


class EdgeStatus(NamedTuple):
    """Figures on all edges. Retired edges count in `gaps` and `quarantined` alone."""

    edges: int
    retired: int
    gaps: int
    quarantined: int
    until: dict[str, int]
    """The Unix second that an edge has come to, of the SHOWN_MAX that are most behind, these first."""
    gaps_of: dict[str, int]
    """Gaps by edge, of the SHOWN_MAX edges with the most, and of those in `until`."""

    @property
    def unshown(self) -> int:
        """Edges of which nothing is said, as others are worse."""
        return self.edges - len(self.gaps_of)


async def fetch_status(connection: AsyncConnection) -> EdgeStatus:
    """Return the figures of this moment."""
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
    """Return what can be changed of an edge, locked until the transaction ends; None where there is no such edge."""
    if not NAME.fullmatch(edge):  # Not every database takes a NUL, even to find nothing.
        return None
    columns = edges.c
    statement = sa.select(columns.token, columns.region, columns.gap_to, columns.retired, columns.seq)
    row = (await connection.execute(statement.where(columns.edge == edge).with_for_update())).one_or_none()
    if row is None:
        return None
    return {"token": row.token, "region": row.region, "gap_to": row.gap_to, "retired": row.retired == row.seq}


async def set_retired(connection: AsyncConnection, edge: str, *, retired: bool) -> int | None:
    """Mark an edge as retired or active; return its watermark, None if there is no such edge."""
    return await _update_edge(connection, edge, retired=edges.c.seq if retired else sa.null())


async def rebind_edge(connection: AsyncConnection, edge: str, *, token: str, region: str) -> int | None:
    """Bind an edge to another token and region; return its watermark, None where there is no such edge."""
    return await _update_edge(connection, edge, token=token, region=region)


async def allow_initial_gap(connection: AsyncConnection, database: Database, edge: str, gap_to: int) -> int | None:
    """Let the chain of an edge begin with a gap up to `gap_to`, also where the edge is not known yet.

    Return its watermark, 0; None where the name is none, or the edge has begun already.
    """
    if not NAME.fullmatch(edge):
        return None
    begun = {"edge": edge, "seq": 0, "hash": FIRST, "received": round(time.time() * 1000)}
    await database.insert_edges(connection, [begun])
    return await _update_edge(connection, edge, edges.c.seq == 0, gap_to=gap_to)


async def _update_edge(
    connection: AsyncConnection, edge: str, *where: sa.ColumnElement[bool], **values: object
) -> int | None:
    """Change these columns of an edge of which all this holds; return its watermark, None where there is none such."""
    if not NAME.fullmatch(edge):  # Not every database takes a NUL, even to find nothing.
        return None
    changed = sa.update(edges).where(edges.c.edge == edge, *where).values(values).returning(edges.c.seq)
    watermark: int | None = (await connection.execute(changed)).scalar_one_or_none()
    return watermark
