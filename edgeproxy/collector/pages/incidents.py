"""Incidents and their updates for the status page. Each change has its audit entry."""

from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Annotated, Literal, NamedTuple, get_args

import orjson
import sqlalchemy as sa
from pydantic import BeforeValidator, Field
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.fields import NOT_BLANK, Text, refuse_blank
from edgeproxy.collector.accounts.ids import generate_id, is_id, now_ms
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.database.page_tables import incident_updates, incidents
from edgeproxy.collector.database.unreadable_rows import parse_rows, parse_texts, parse_word, reading_row
from edgeproxy.collector.problems import page_codes
from edgeproxy.config.collector.regions import REGIONS_MAX
from edgeproxy.config.field_types import Name

DAYS = 90
"""Days back that are listed."""
LISTED_MAX = 100
UPDATES_MAX = 100
"""Most updates of an incident."""
RESOLVED = "resolved"
MAINTENANCE = "maintenance"
"""The severity of rows for planned maintenance, which are no incidents."""
NOT_FOUND = "there is no such incident"
Severity = Literal["P0", "P1", "P2", "P3"]
State = Literal["investigating", "identified", "monitoring", "resolved"]
Message = Annotated[str, Field(min_length=1, max_length=2000, pattern=NOT_BLANK), BeforeValidator(refuse_blank)]


class CreateIncidentRequest(Body):
    """A new incident."""

    severity: Severity
    """P0: the service is down for everyone; P1: for many; P2: for some, or it is slow for all; P3: hardly anyone
    notices.
    """
    title: Text
    """The title, as the status page shows it."""
    regions: Annotated[tuple[Name, ...], Field(max_length=REGIONS_MAX)] = ()
    """The affected regions; by default all."""
    state: State = "investigating"
    """The state of the incident."""
    message: Message
    """The first message to readers of the status page."""


class IncidentUpdate(Body):
    """An update of an incident."""

    state: State
    """The state of the incident; `resolved` ends it."""
    message: Message
    """The message to readers of the status page."""


class IncidentUpdateEntry(TypedDict):
    """An update of an incident."""

    at: str
    """The time of the update."""
    state: State
    """The state of the incident since then."""
    message: str
    """The message to readers of the status page."""


class Incident(TypedDict):
    """An incident, its latest update first."""

    id: str
    """The id of the incident."""
    severity: Severity
    """`P0`, the worst, to `P3`."""
    title: str
    """The title, as the status page shows it."""
    regions: list[str]
    """The affected regions; an empty list means all."""
    began_at: str
    """The time when the incident began."""
    ended_at: str | None
    """The time when the incident was resolved; null until then."""
    state: State
    """`investigating`, `identified`, `monitoring` or `resolved`."""
    updates: list[IncidentUpdateEntry]
    """The updates, latest first."""


class IncidentList(TypedDict):
    """The incidents, latest first."""

    incidents: list[Incident]
    """The incidents, latest first."""


class IncidentRow(NamedTuple):
    """A row of `incidents`. Times are Unix seconds."""

    id: str
    severity: Severity
    title: str
    regions: str
    """JSON."""
    began_at: int
    ended_at: int | None


UpdateRow = sa.Row[tuple[object, ...]]
"""An update of an incident or of maintenance: `at` in Unix seconds, `state` and `message`."""


async def list_incidents(connection: AsyncConnection, now: float) -> list[Incident]:
    """Return ongoing incidents and all incidents of the last DAYS days, latest first."""
    columns = incidents.c
    lately = (columns.severity != MAINTENANCE) & (
        columns.ended_at.is_(None) | (columns.began_at >= int(now) - DAYS * 86400)
    )
    statement = (
        sa.select(incidents).where(lately).order_by(columns.began_at.desc(), columns.id.desc()).limit(LISTED_MAX)
    )
    return await _to_responses(connection, [IncidentRow(*row) for row in await connection.execute(statement)])


async def list_begun(connection: AsyncConnection, since: int, until: int) -> list[Incident]:
    """Return at most LISTED_MAX incidents that began within [since, until), in Unix seconds, latest first."""
    columns = incidents.c
    begun = (columns.severity != MAINTENANCE) & (columns.began_at >= since) & (columns.began_at < until)
    statement = sa.select(incidents).where(begun).order_by(columns.began_at.desc(), columns.id.desc())
    rows = await connection.execute(statement.limit(LISTED_MAX))
    return await _to_responses(connection, [IncidentRow(*row) for row in rows])


async def begin_incident(connection: AsyncConnection, caller: Caller, new: CreateIncidentRequest) -> Incident:
    """Create an incident."""
    id_, at = generate_id(), now_ms() // 1000
    row = {
        "id": id_,
        "severity": new.severity,
        "title": new.title,
        "regions": orjson.dumps(new.regions).decode(),
        "began_at": at,
        "ended_at": at if new.state == RESOLVED else None,
    }
    await connection.execute(sa.insert(incidents), [row])
    await insert_update(connection, id_, at, new.state, new.message)
    incident = await _fetch(connection, id_)
    await audit.append_entry(connection, caller, AuditEntry("incident.create", id_, None, incident))
    return incident


async def update_incident(connection: AsyncConnection, caller: Caller, id_: str, change: IncidentUpdate) -> Incident:
    """Add an update to an incident. The state `resolved` ends the incident, and another state reopens it.

    Raises ChangeRejectedError.
    """
    row = await _get_row(connection, id_, lock=True)
    at = now_ms() // 1000
    await require_room(connection, id_)
    ended = (row.ended_at or at) if change.state == RESOLVED else None
    await connection.execute(sa.update(incidents).where(incidents.c.id == id_).values(ended_at=ended))
    await insert_update(connection, id_, at, change.state, change.message)
    incident = await _fetch(connection, id_)
    await audit.append_entry(connection, caller, AuditEntry("incident.update", id_, None, change.model_dump()))
    return incident


async def require_room(connection: AsyncConnection, incident: str) -> None:
    """Raise ChangeRejectedError if there are UPDATES_MAX updates already."""
    there = sa.select(sa.func.count()).select_from(incident_updates).where(incident_updates.c.incident == incident)
    if (await connection.execute(there)).scalar_one() >= UPDATES_MAX:
        raise ChangeRejectedError(
            page_codes.INCIDENT_UPDATES_FULL, f"it has {UPDATES_MAX} updates, which is as many as there may be"
        )


async def insert_update(connection: AsyncConnection, incident: str, at: int, state: str, message: str) -> None:
    """Insert an update. It is mailed to subscribers."""
    row = {"id": generate_id(), "incident": incident, "at": at, "state": state, "message": message}
    await connection.execute(sa.insert(incident_updates), [row])


async def _get_row(connection: AsyncConnection, id_: str, *, lock: bool = False) -> IncidentRow:
    row = None
    if is_id(id_):
        statement = sa.select(incidents).where(incidents.c.id == id_, incidents.c.severity != MAINTENANCE)
        row = (await connection.execute(statement.with_for_update() if lock else statement)).one_or_none()
    if row is None:
        raise ChangeRejectedError(page_codes.INCIDENT_NOT_FOUND, NOT_FOUND)
    return IncidentRow(*row)


async def fetch_updates(
    connection: AsyncConnection, ids: Sequence[str], states: Collection[str]
) -> dict[str, list[UpdateRow]]:
    """Return the updates of each id, latest first; those with none of these states are set aside."""
    updates: dict[str, list[UpdateRow]] = {id_: [] for id_ in ids}
    statement = sa.select(incident_updates).where(incident_updates.c.incident.in_(ids))
    rows = await connection.execute(statement.order_by(incident_updates.c.id.desc()))

    def parse(row: UpdateRow) -> UpdateRow:
        parse_word(row.state, states)
        return row

    for row in parse_rows(incident_updates.name, rows, parse, attrgetter("id")):
        updates[row.incident].append(row)
    return updates


async def _fetch(connection: AsyncConnection, id_: str) -> Incident:
    """Return an incident; raises ChangeRejectedError and UnreadableRowError."""
    row = await _get_row(connection, id_)
    return _to_response(row, (await fetch_updates(connection, [id_], get_args(State)))[id_])


async def _to_responses(connection: AsyncConnection, rows: Sequence[IncidentRow]) -> list[Incident]:
    updates = await fetch_updates(connection, [row.id for row in rows], get_args(State))
    return parse_rows(incidents.name, rows, lambda row: _to_response(row, updates[row.id]), attrgetter("id"))


def _to_response(row: IncidentRow, updates: Sequence[UpdateRow]) -> Incident:
    with reading_row(incidents.name, row.id):
        parse_word(row.severity, get_args(Severity))
        return {
            "id": row.id,
            "severity": row.severity,
            "title": row.title,
            "regions": parse_texts(row.regions),
            "began_at": format_timestamp(row.began_at * 1000),
            "ended_at": None if row.ended_at is None else format_timestamp(row.ended_at * 1000),
            "state": updates[0].state,
            "updates": [
                {"at": format_timestamp(update.at * 1000), "state": update.state, "message": update.message}
                for update in updates
            ],
        }
