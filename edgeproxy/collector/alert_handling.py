"""Actions on alerts: acknowledge an alert, assign it to a person, and mute its kind for a while.

Operators and the alert's customer act separately; neither side sees the actions of the other. Each action is in the
audit log. A mute stops notifications of later alerts of the same kind and customer; the list still shows them.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError, reject_field
from edgeproxy.collector.accounts.states import DAY_MS
from edgeproxy.collector.alerts.mutes import Side, fetch_mutes, get_days_max
from edgeproxy.collector.database.alert_tables import alert_handling, alert_mutes, alerts
from edgeproxy.collector.problems import account_codes
from edgeproxy.config.field_codes import TOO_FAR

NOT_THERE = "there is no such alert"
handling, mutes = alert_handling.c, alert_mutes.c


class AlertHandling(TypedDict):
    """The handling of an alert by its readers: operators, or a customer's contacts."""

    acknowledged_at: str | None
    """The time when it was acknowledged; null until then."""
    acknowledged_by: str | None
    """The person or token that acknowledged it."""
    acknowledged_why: str | None
    """The note that the person or token wrote when acknowledging it."""
    assigned_to: str | None
    """The person who looks after it; null if it is assigned to no person."""
    assigned_by: str | None
    """The person or token that assigned it."""
    assigned_at: str | None
    """The time when it was assigned."""
    muted_until: str | None
    """The end of the mute; null if the kind is not muted. Until then, alerts of this kind for this customer are not
    sent.
    """
    muted_by: str | None
    """The person or token that muted the kind."""


class AlertSubject(NamedTuple):
    """The fields of an alert that its handling needs."""

    id: int
    kind: str
    """An AlertKind, or a kind of another version."""
    customer: str | None


UNHANDLED: AlertHandling = {
    "acknowledged_at": None,
    "acknowledged_by": None,
    "acknowledged_why": None,
    "assigned_to": None,
    "assigned_by": None,
    "assigned_at": None,
    "muted_until": None,
    "muted_by": None,
}


async def find_owner(connection: AsyncConnection, number: str) -> str | None:
    """Return the name of the customer of an alert, or None if there is none."""
    if not (number.isascii() and number.isdecimal() and len(number) <= 15):
        return None
    statement = sa.select(alerts.c.customer).where(alerts.c.id == int(number))
    return await connection.scalar(statement)


async def get_subject(connection: AsyncConnection, number: int) -> AlertSubject:
    """Return an alert. Raises ChangeRejectedError if it does not exist."""
    statement = sa.select(alerts.c.id, alerts.c.kind, alerts.c.customer).where(alerts.c.id == number)
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise ChangeRejectedError(account_codes.ALERT_NOT_FOUND, NOT_THERE)
    return AlertSubject(row.id, row.kind, row.customer)


async def acknowledge(
    connection: AsyncConnection, caller: Caller, alert: AlertSubject, side: Side, why: str | None, now_ms: int
) -> None:
    """Acknowledge an alert. Raises ChangeRejectedError if it was acknowledged before."""
    before = await _fetch_row(connection, alert.id, side)
    if before is not None and before["acknowledged_at"] is not None:
        when = format_timestamp(before["acknowledged_at"])
        raise ChangeRejectedError(
            account_codes.ALERT_ACKNOWLEDGED,
            f"{before['acknowledged_by']} has acknowledged it, at {when}",
            params={"who": before["acknowledged_by"]},
        )
    values = {"acknowledged_at": now_ms, "acknowledged_by": caller.actor, "acknowledged_why": why}
    await _put_row(connection, alert.id, side, values, is_there=before is not None)
    entry = AuditEntry("alert.acknowledge", str(alert.id), None, {"why": why}, alert.customer)
    await audit.append_entry(connection, caller, entry)


async def assign(
    connection: AsyncConnection, caller: Caller, alert: AlertSubject, side: Side, to: str | None, now_ms: int
) -> None:
    """Assign an alert to a person, or to no one with None."""
    before = await _fetch_row(connection, alert.id, side)
    values = {"assigned_to": to, "assigned_by": caller.actor, "assigned_at": now_ms}
    await _put_row(connection, alert.id, side, values, is_there=before is not None)
    former = None if before is None else {"to": before["assigned_to"]}
    entry = AuditEntry("alert.assign", str(alert.id), former, {"to": to}, alert.customer)
    await audit.append_entry(connection, caller, entry)


async def mute(
    connection: AsyncConnection, caller: Caller, alert: AlertSubject, side: Side, until_ms: int, why: str, now_ms: int
) -> None:
    """Mute an alert's kind for its customer until a Unix millisecond. A time in the past ends the mute.

    Raises ChangeRejectedError if the time is too far away.
    """
    days = get_days_max(alert.kind, side)
    if until_ms > now_ms + days * DAY_MS:
        raise reject_field("until", f"is more than {days} days away", TOO_FAR, days=days)
    key = {"side": side, "kind": alert.kind, "customer": alert.customer or ""}
    own = sa.and_(*(mutes[name] == value for name, value in key.items()))
    await connection.execute(sa.delete(alert_mutes).where(own))
    if until_ms > now_ms:
        row = {**key, "until": until_ms, "by": caller.actor, "muted_at": now_ms}
        await connection.execute(sa.insert(alert_mutes), [row])
    after = {"kind": alert.kind, "customer": alert.customer, "until": format_timestamp(until_ms), "why": why}
    await audit.append_entry(connection, caller, AuditEntry("alert.mute", str(alert.id), None, after, alert.customer))


async def fetch_handling(
    connection: AsyncConnection, listed: Collection[AlertSubject], side: Side, now_ms: int
) -> dict[int, AlertHandling]:
    """Return the handling of each of these alerts on a side, by alert id."""
    ids = [alert.id for alert in listed]
    statement = sa.select(alert_handling).where(handling.alert.in_(ids), handling.side == side)
    rows = {row["alert"]: row for row in (await connection.execute(statement)).mappings()}
    muted = await fetch_mutes(connection, side, {alert.customer or "" for alert in listed}, now_ms)
    return {
        alert.id: _to_response(rows.get(alert.id), muted.get((alert.kind, alert.customer or ""))) for alert in listed
    }


async def _fetch_row(connection: AsyncConnection, alert: int, side: Side) -> sa.RowMapping | None:
    own = (handling.alert == alert) & (handling.side == side)
    return (await connection.execute(sa.select(alert_handling).where(own).with_for_update())).mappings().one_or_none()


async def _put_row(
    connection: AsyncConnection, alert: int, side: Side, values: Mapping[str, object], *, is_there: bool
) -> None:
    if is_there:
        own = (handling.alert == alert) & (handling.side == side)
        await connection.execute(sa.update(alert_handling).where(own).values(**values))
    else:
        await connection.execute(sa.insert(alert_handling), [{"alert": alert, "side": side, **values}])


def _to_response(row: sa.RowMapping | None, muted: Mapping[str, int | str] | None) -> AlertHandling:
    response = UNHANDLED.copy()
    if row is not None:
        response["acknowledged_at"] = format_timestamp(row["acknowledged_at"])
        response["acknowledged_by"] = row["acknowledged_by"]
        response["acknowledged_why"] = row["acknowledged_why"]
        response["assigned_to"] = row["assigned_to"]
        response["assigned_by"] = row["assigned_by"]
        response["assigned_at"] = format_timestamp(row["assigned_at"])
    if muted is not None:
        response["muted_until"] = format_timestamp(int(muted["until"]))
        response["muted_by"] = str(muted["by"])
    return response
