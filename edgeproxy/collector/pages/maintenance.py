"""Planned maintenance for the status page. The clock begins and ends it. Each change has its audit entry.

Maintenance is stored as an incident of the severity MAINTENANCE with planned `began_at` and `ended_at`, so its updates
are mailed like incident updates.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from operator import attrgetter
from typing import Annotated, Literal, NamedTuple, get_args

import orjson
import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError, reject_field
from edgeproxy.collector.accounts.fields import End, Text
from edgeproxy.collector.accounts.ids import generate_id, is_id, now_ms
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.database.page_tables import incidents
from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.database.unreadable_rows import parse_rows, parse_texts, reading_row
from edgeproxy.collector.pages.incidents import (
    DAYS,
    LISTED_MAX,
    MAINTENANCE,
    Message,
    UpdateRow,
    fetch_updates,
    insert_update,
    require_room,
)
from edgeproxy.collector.problems import page_codes
from edgeproxy.config import field_codes
from edgeproxy.config.collector.regions import REGIONS_MAX
from edgeproxy.config.field_types import Name

SECONDS_MAX = 7 * DAY
"""Longest maintenance in seconds. A longer one is most likely a typing error."""
LATE_SECONDS = 60
"""Seconds that a beginning may lie in the past, since forms have whole minutes. Past downtime cannot become planned."""
TELL_SECONDS = 3600
"""Seconds after its end until an update is still published. After a longer outage of all collectors it is late."""
CANCELLED = "cancelled"
NOT_FOUND = "there is no such maintenance"
MaintenanceState = Literal["scheduled", "in_progress", "completed", "cancelled"]
UpdateState = Literal["announced", "changed", "cancelled", "begun", "ended"]


class AnnounceMaintenanceRequest(Body):
    """Planned maintenance."""

    title: Text
    """The title, as the status page shows it."""
    regions: Annotated[tuple[Name, ...], Field(max_length=REGIONS_MAX)] = ()
    """The affected regions; by default all."""
    begins_at: End
    """The start of the maintenance. It must not be in the past."""
    ends_at: End
    """The end of the maintenance, at most 7 days after the start."""
    message: Message
    """The message to readers of the status page."""


class MaintenanceUpdate(Body):
    """A change of planned maintenance."""

    state: Literal["changed", "cancelled"]
    """`cancelled`: the maintenance does not take place; possible until it starts. `changed`: it takes place at the
    times in this request.
    """
    begins_at: End | None = None
    """The new start; by default unchanged. It cannot be changed once the maintenance has started."""
    ends_at: End | None = None
    """The new end; by default unchanged."""
    message: Message
    """The message to readers of the status page."""


class MaintenanceUpdateEntry(TypedDict):
    """An announcement about planned maintenance."""

    at: str
    """The time of the announcement."""
    state: UpdateState
    """`announced`, `changed` or `cancelled` by a person; `begun` or `ended` by the clock."""
    message: str
    """The message to readers of the status page; empty if the clock caused the announcement."""


class Maintenance(TypedDict):
    """Planned maintenance, its latest announcement first."""

    id: str
    """The id of the maintenance."""
    title: str
    """The title, as the status page shows it."""
    regions: list[str]
    """The affected regions; an empty list means all."""
    begins_at: str
    """The start of the maintenance."""
    ends_at: str
    """The end of the maintenance."""
    state: MaintenanceState
    """`scheduled`, `in_progress` or `completed`, by the clock; or `cancelled`."""
    updates: list[MaintenanceUpdateEntry]
    """The announcements, latest first."""


class MaintenanceList(TypedDict):
    """Planned maintenance, latest first."""

    maintenance: list[Maintenance]
    """Planned maintenance, the latest start first."""


class Plan(NamedTuple):
    """The planned times of maintenance, in Unix seconds."""

    begins: int
    ends: int


def compute_state(plan: Plan, is_cancelled: bool, now: float) -> MaintenanceState:
    """Return the state at the Unix second `now`."""
    if is_cancelled:
        return "cancelled"
    if now < plan.begins:
        return "scheduled"
    return "in_progress" if now < plan.ends else "completed"


def at_time(one: Maintenance, now: float) -> Maintenance:
    """Return maintenance with its state at the Unix second `now`. The database is not used."""
    return {**one, "state": compute_state(_read_plan(one), one["state"] == CANCELLED, now)}


def list_days(listed: Iterable[Maintenance], regions: Iterable[str]) -> frozenset[tuple[str, int]]:
    """Return the pairs of region and day with past or ongoing maintenance. A day is the Unix second when it begins."""
    names = tuple(regions)
    return frozenset(
        (region, second)
        for maintenance in listed
        if maintenance["state"] in ("in_progress", "completed")
        for region in names
        if not maintenance["regions"] or region in maintenance["regions"]
        for second in range(_read_plan(maintenance).begins // DAY * DAY, _read_plan(maintenance).ends, DAY)
    )


def require_usable(plan: Plan, now: int, begun: Plan | None = None) -> None:
    """Raise ChangeRejectedError if these times are not permitted. Maintenance that has `begun` keeps its beginning."""
    if begun is not None and plan.begins != begun.begins:
        raise reject_field("begins_at", "cannot be changed: it has begun", field_codes.BEGUN)
    if begun is None and plan.begins < now - LATE_SECONDS:
        raise reject_field("begins_at", "is past", field_codes.PAST)
    if plan.ends <= now:
        raise reject_field("ends_at", "is past", field_codes.PAST)
    if not 0 < plan.ends - plan.begins <= SECONDS_MAX:
        days = SECONDS_MAX // DAY
        why = f"is not within {days} days after its beginning"
        raise reject_field("ends_at", why, field_codes.END_TOO_LATE, days=days)


def find_untold(plan: Plan, states: Collection[str], now: float) -> Literal["begun", "ended"] | None:
    """Return the state to publish at the Unix second `now`, given the states of earlier updates, or None."""
    if CANCELLED in states or "ended" in states:
        return None
    if now >= plan.ends:
        return "ended" if now - plan.ends < TELL_SECONDS else None
    return "begun" if now >= plan.begins and "begun" not in states else None


async def list_untold(
    connection: AsyncConnection, now: int, *, lock: bool = False
) -> list[tuple[str, Literal["begun", "ended"]]]:
    """Return the ids of maintenance with an unpublished state at the Unix second `now`, and that state.

    With `lock`, other transactions cannot publish or change it before this one ends.
    """
    columns = incidents.c
    lately = (columns.began_at <= now) & (columns.ended_at > now - TELL_SECONDS)
    statement = sa.select(incidents).where(columns.severity == MAINTENANCE, lately).order_by(columns.id)
    rows = (await connection.execute(statement.with_for_update() if lock else statement)).all()
    updates = await fetch_updates(connection, [row.id for row in rows], get_args(UpdateState))
    candidates = (
        (row.id, find_untold(Plan(row.began_at, row.ended_at), [update.state for update in updates[row.id]], now))
        for row in rows
    )
    return [(id_, untold) for id_, untold in candidates if untold is not None]


async def list_maintenance(connection: AsyncConnection, now: float) -> list[Maintenance]:
    """Return planned maintenance and the maintenance of the last DAYS days, latest first."""
    columns = incidents.c
    lately = (columns.severity == MAINTENANCE) & (columns.ended_at >= int(now) - DAYS * DAY)
    statement = sa.select(incidents).where(lately).order_by(columns.began_at.desc(), columns.id.desc())
    rows = (await connection.execute(statement.limit(LISTED_MAX))).all()
    updates = await fetch_updates(connection, [row.id for row in rows], get_args(UpdateState))
    return parse_rows(incidents.name, rows, lambda row: _to_response(row, updates[row.id], now), attrgetter("id"))


async def announce(connection: AsyncConnection, caller: Caller, new: AnnounceMaintenanceRequest) -> Maintenance:
    """Announce maintenance. Raises ChangeRejectedError."""
    id_, now = generate_id(), now_ms() // 1000
    plan = Plan(new.begins_at // 1000, new.ends_at // 1000)
    require_usable(plan, now)
    row = {
        "id": id_,
        "severity": MAINTENANCE,
        "title": new.title,
        "regions": orjson.dumps(new.regions).decode(),
        "began_at": plan.begins,
        "ended_at": plan.ends,
    }
    await connection.execute(sa.insert(incidents), [row])
    await insert_update(connection, id_, now, "announced", new.message)
    announced = await _fetch(connection, id_, now)
    await audit.append_entry(connection, caller, AuditEntry("maintenance.announce", id_, None, announced))
    return announced


async def change(connection: AsyncConnection, caller: Caller, id_: str, update: MaintenanceUpdate) -> Maintenance:
    """Change or cancel maintenance that is not over. Raises ChangeRejectedError."""
    now = now_ms() // 1000
    before = await _fetch(connection, id_, now, lock=True)
    if before["state"] in ("completed", CANCELLED):
        raise ChangeRejectedError(
            page_codes.MAINTENANCE_ENDED, f"the maintenance is {before['state']}: announce another one"
        )
    await require_room(connection, id_)
    was = _read_plan(before)
    if update.state == CANCELLED:
        if before["state"] == "in_progress":
            raise ChangeRejectedError(page_codes.MAINTENANCE_BEGUN, "the maintenance has begun: change its end")
    else:
        plan = Plan(
            was.begins if update.begins_at is None else update.begins_at // 1000,
            was.ends if update.ends_at is None else update.ends_at // 1000,
        )
        require_usable(plan, now, was if before["state"] == "in_progress" else None)
        times = {"began_at": plan.begins, "ended_at": plan.ends}
        await connection.execute(sa.update(incidents).where(incidents.c.id == id_).values(times))
    await insert_update(connection, id_, now, update.state, update.message)
    after = await _fetch(connection, id_, now)
    times_before = {name: before[name] for name in ("begins_at", "ends_at")}
    entry = {
        "begins_at": after["begins_at"],
        "ends_at": after["ends_at"],
        **update.model_dump(include={"state", "message"}),
    }
    await audit.append_entry(connection, caller, AuditEntry("maintenance.update", id_, times_before, entry))
    return after


async def _fetch(connection: AsyncConnection, id_: str, now: float, *, lock: bool = False) -> Maintenance:
    row = None
    if is_id(id_):
        statement = sa.select(incidents).where(incidents.c.id == id_, incidents.c.severity == MAINTENANCE)
        row = (await connection.execute(statement.with_for_update() if lock else statement)).one_or_none()
    if row is None:
        raise ChangeRejectedError(page_codes.MAINTENANCE_NOT_FOUND, NOT_FOUND)
    return _to_response(row, (await fetch_updates(connection, [id_], get_args(UpdateState)))[id_], now)


def _to_response(row: sa.Row[tuple[object, ...]], updates: list[UpdateRow], now: float) -> Maintenance:
    with reading_row(incidents.name, row.id):
        plan = Plan(row.began_at, row.ended_at)
        return {
            "id": row.id,
            "title": row.title,
            "regions": parse_texts(row.regions),
            "begins_at": format_timestamp(plan.begins * 1000),
            "ends_at": format_timestamp(plan.ends * 1000),
            "state": compute_state(plan, updates[0].state == CANCELLED, now),
            "updates": [
                {"at": format_timestamp(update.at * 1000), "state": update.state, "message": update.message}
                for update in updates
            ],
        }


def _read_plan(one: Maintenance) -> Plan:
    begins, ends = (int(datetime.fromisoformat(written).timestamp()) for written in (one["begins_at"], one["ends_at"]))
    return Plan(begins, ends)
