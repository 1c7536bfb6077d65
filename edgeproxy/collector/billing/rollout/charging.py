"""The customers who are charged now, by the configuration and by decisions at run time.

While charging is off, service continues: usage is counted and waived for ever, and edges serve customers who were
paused for a payment or are past a cap of their plan. Rate limits, quotas of tiers, and seats stay in force.
"""

import time
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, documents
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError, require_version
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.rollout.gates import PERCENT_MAX, Mode, is_charged, settle_percent
from edgeproxy.collector.database.credit_tables import credit_balances
from edgeproxy.collector.database.delivery_tables import rollout, waivers
from edgeproxy.collector.database.read_once import fetch_once
from edgeproxy.collector.database.schema import MINUTE, customers
from edgeproxy.collector.database.statements import AnyRow
from edgeproxy.collector.database.unreadable_rows import parse_rows
from edgeproxy.collector.problems import billing_codes
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.credits import format_meters
from edgeproxy.config.directory import FREE

CONFIGURATION = Caller("configuration")
"""The caller in the audit log if the file stops or resumes charging."""
LASTING = 1 << 40
"""The end of a waiver that has no end yet."""
NO_CHARGE = "Billing is paused: what you use now is free."
"""The message for customers unless another one is set."""
NO_PURCHASE = "Plans and credits can be bought again once billing goes on."
"""The message for buyers while charging is stopped. It follows the other message."""


class Charging(NamedTuple):
    """The customers who are charged now, and the reason why others are not."""

    mode: Mode
    percent: int
    allow: frozenset[str]
    is_on: bool
    message: str | None
    """The message for customers; None while charging is on."""
    stopped_by: str | None
    since: int
    """The Unix second since which this percentage is charged."""
    version: int
    credits_meter: str | None = None
    """The meter that edges use to spend prepaid credits."""
    stored_percent: int | None = None
    """The percentage set last at run time or by an earlier file; None if none was set yet."""
    file_percent: int = PERCENT_MAX
    """The upper bound that the file sets."""

    def charges(self, customer: str) -> bool:
        """Return whether this customer, by name, is charged for its current usage."""
        return self.is_on and self.bills(customer)

    def bills(self, customer: str) -> bool:
        """Return whether this customer is among the charged ones, even while charging is stopped."""
        return is_charged(customer, self.mode, self.percent, self.allow)


class RolloutRow(NamedTuple):
    """The row of run-time decisions."""

    charging: int
    percent: int | None
    """The percentage set last; None means the configuration's."""
    message: str | None
    stopped_by: str | None
    since: int
    version: int
    credits_meter: str | None


async def fetch_charging(connection: AsyncConnection, billing: Billing) -> Charging:
    """Return the customers who are charged now."""
    row = await _fetch_rollout(connection)
    file_percent, allow = billing.rollout.percent, frozenset(billing.rollout.allow)
    percent = settle_percent(row.percent, billing.mode, file_percent)
    is_on = bool(row.charging) and is_enabled(billing)
    message = None if is_on else row.message or billing.rollout.stop or NO_CHARGE
    stopped, since = row.stopped_by, row.since
    runtime = (row.version, row.credits_meter, row.percent, file_percent)
    return Charging(billing.mode, percent, allow, is_on, message, stopped, since, *runtime)


async def stop_charging(connection: AsyncConnection, caller: Caller, message: str, why: str) -> None:
    """Stop charging from this minute on. Raises ChangeRejectedError if charging is already off."""
    row = await _fetch_rollout(connection, lock=True)
    if not row.charging:
        raise ChangeRejectedError(
            billing_codes.CHARGING_STOPPED,
            f"nobody is charged already: {row.stopped_by} has stopped it",
            params={"who": str(row.stopped_by)},
        )
    now = time.time()
    # Edges count by minutes, so the minute of the stop is free as a whole.
    since = int(now) // MINUTE * MINUTE
    values = {"charging": 0, "stopped_by": caller.actor, "message": message, "version": row.version + 1}
    await connection.execute(sa.update(rollout).values(values))
    # A waiver that ended in this same minute continues.
    reopened = (
        await connection.execute(sa.select(waivers.c.since).where(waivers.c.until > since))
    ).scalar_one_or_none()
    if reopened is None:
        waiver = {"since": since, "until": None, "who": caller.actor, "why": why}
        await connection.execute(sa.insert(waivers), [waiver])
    else:
        await connection.execute(sa.update(waivers).where(waivers.c.since == reopened).values(until=None))
    await _notify_edges(connection)
    before, after = {"charging": True}, {"charging": False, "message": message, "why": why}
    await audit.append_entry(connection, caller, AuditEntry("billing.stop", "billing", before, after))
    await raise_once(
        connection,
        Alert(
            key=f"billing-stopped-{row.version + 1}",
            kind=AlertKind.CHARGING_STOPPED,
            title=f"Nobody is charged any more: {why}",
            details={"who": caller.actor, "why": why},
            at=now,
        ),
    )


async def resume_charging(connection: AsyncConnection, caller: Caller, why: str) -> None:
    """Charge again from the next minute on. Raises ChangeRejectedError if charging is already on."""
    row = await _fetch_rollout(connection, lock=True)
    if row.charging:
        raise ChangeRejectedError(billing_codes.CHARGING_RUNNING, "customers are charged already")
    # Usage is counted by minutes, and a part of this minute was free.
    until = int(time.time()) // MINUTE * MINUTE + MINUTE
    values = {"charging": 1, "stopped_by": None, "message": None, "version": row.version + 1}
    await connection.execute(sa.update(rollout).values(values))
    await connection.execute(sa.update(waivers).where(waivers.c.until.is_(None)).values(until=until))
    # A part of the credits that edges have counted since was waived, so they start a new count.
    await _notify_edges(connection, customers.c.id.in_(sa.select(credit_balances.c.customer)))
    before, after = {"charging": False}, {"charging": True, "why": why}
    await audit.append_entry(connection, caller, AuditEntry("billing.resume", "billing", before, after))


async def set_percent(
    connection: AsyncConnection,
    caller: Caller,
    billing: Billing,
    percent: int,
    why: str,
    expected_versions: frozenset[int] | None = None,
) -> None:
    """Set the percentage of customers who are charged. The gates decide whether an increase is allowed.

    Raises ChangeRejectedError if the file allows less.
    """
    if percent and billing.mode == "shadow":
        raise ChangeRejectedError(
            billing_codes.CHARGING_FIXED,
            "mode: shadow charges allow alone: write mode: live, reload, and take the step then",
        )
    if percent > billing.rollout.percent:
        raise ChangeRejectedError(
            billing_codes.CHARGING_FIXED,
            f"the collector's file allows {billing.rollout.percent} %: change it there, and reload",
        )
    row = await _fetch_rollout(connection, lock=True)
    require_version(row.version, expected_versions)
    await _store_percent(connection, caller, row, percent, why)


async def _store_percent(connection: AsyncConnection, caller: Caller, row: RolloutRow, percent: int, why: str) -> None:
    values = {"percent": percent, "version": row.version + 1}
    if percent != row.percent:  # Setting the same percentage again begins no new stage.
        values["since"] = int(time.time())
    await connection.execute(sa.update(rollout).values(values))
    before, after = {"percent": row.percent}, {"percent": percent, "why": why}
    await audit.append_entry(connection, caller, AuditEntry("billing.rollout", "billing", before, after))


async def apply_configuration(connection: AsyncConnection, billing: Billing) -> None:
    """Apply the file's settings.

    `charging: off` and `rollout.stop` stop charging; removing them resumes it unless a person stopped it at run time.
    `mode: shadow` and a lower `percent` lower the percentage. Edges learn the credits meter.
    """
    row = await _fetch_rollout(connection, lock=True)
    percent = settle_percent(row.percent, billing.mode, billing.rollout.percent)
    if billing.mode != "off" and percent != row.percent:
        await _store_percent(
            connection, CONFIGURATION, row, percent, f"mode: {billing.mode}, percent: {billing.rollout.percent}"
        )
        row = await _fetch_rollout(connection)
    if row.credits_meter != _credits_meter(billing):
        await connection.execute(sa.update(rollout).values(credits_meter=_credits_meter(billing)))
        payers = customers.join(credit_balances, credit_balances.c.customer == customers.c.id)
        names = await connection.scalars(sa.select(customers.c.name).select_from(payers))
        await documents.enqueue_changes(connection, "customer", list(names))
    if row.charging and not is_enabled(billing):
        await stop_charging(connection, CONFIGURATION, billing.rollout.stop or NO_CHARGE, "the configuration says so")
    elif not row.charging and is_enabled(billing) and row.stopped_by == CONFIGURATION.actor:
        await resume_charging(connection, CONFIGURATION, "the configuration says so")


WAIVED_SPANS = sa.select(waivers.c.since, waivers.c.until).order_by(waivers.c.since)


async def list_waived(connection: AsyncConnection) -> list[Span]:
    """Return the times without charging. A current one ends at LASTING."""

    async def fetch() -> list[Span]:
        rows = await connection.execute(WAIVED_SPANS)
        return [Span(since, LASTING if until is None else until) for since, until in rows]

    return await fetch_once("waived spans", fetch)


class Waiver(TypedDict):
    """A time without charges. Its end is missing while it lasts."""

    since: str
    """The start of the time without charges."""
    until: str | None
    """The end of the time without charges; null while it lasts."""
    who: str
    """The token or operator that stopped charging."""
    why: str
    """The reason."""


async def list_waivers(connection: AsyncConnection, limit: int) -> list[Waiver]:
    """Return the times without charging, latest first, in the form of the API."""
    rows = await connection.execute(sa.select(waivers).order_by(waivers.c.since.desc()).limit(limit))
    return parse_rows(waivers.name, rows, _waiver_to_response, attrgetter("since"))


def _waiver_to_response(row: AnyRow) -> Waiver:
    return {
        "since": format_timestamp(row.since * 1000),
        "until": None if row.until is None else format_timestamp(row.until * 1000),
        "who": row.who,
        "why": row.why,
    }


async def list_waived_within(connection: AsyncConnection, *spans: Span) -> list[Span]:
    """Return the parts of these spans without charging."""
    waived = await list_waived(connection)
    return [part for span in spans for part in _clip_spans(waived, span)]


async def list_charged_within(connection: AsyncConnection, spans: Iterable[Span]) -> dict[Span, list[Span]]:
    """Return the parts of each span with charging."""
    waived = await list_waived(connection)
    if not waived:
        return {span: [span] if span.start < span.end else [] for span in spans}
    # The times between the waived ones.
    starts, ends = [0, *(span.end for span in waived)], [*(span.start for span in waived), LASTING]
    charged = list(map(Span, starts, ends))
    return {span: _clip_spans(charged, span) for span in spans}


def _clip_spans(parts: Iterable[Span], span: Span) -> list[Span]:
    """Return the parts that are within a span, clipped to it."""
    clipped = (Span(max(part.start, span.start), min(part.end, span.end)) for part in parts)
    return [part for part in clipped if part.start < part.end]


def is_enabled(billing: Billing) -> bool:
    """Return whether the file has charging on."""
    return billing.charging and billing.rollout.stop is None


def _credits_meter(billing: Billing) -> str | None:
    return None if billing.credits is None else format_meters(billing.credits.meters)


def is_behind(now: Charging, billing: Billing) -> bool:
    """Return whether `apply_configuration` has work to do."""
    if now.credits_meter != _credits_meter(billing):
        return True
    if now.mode != "off" and now.stored_percent != now.percent:
        return True
    if now.stopped_by is None:
        return not is_enabled(billing)
    return now.stopped_by == CONFIGURATION.actor and is_enabled(billing)


async def _fetch_rollout(connection: AsyncConnection, *, lock: bool = False) -> RolloutRow:
    statement = sa.select(*(rollout.c[name] for name in RolloutRow._fields))
    return RolloutRow._make((await connection.execute(statement.with_for_update() if lock else statement)).one())


async def _notify_edges(connection: AsyncConnection, *conditions: sa.ColumnElement[bool]) -> None:
    """Make edges reload the flag that suspends charging, and all customers paused for a payment.

    Edges then serve these customers, or pause them again.
    """
    await documents.enqueue_changes(connection, "flag", [FREE])
    statement = sa.select(customers.c.name).where(sa.or_(customers.c.settings.like('%"status":402%'), *conditions))
    await documents.enqueue_changes(connection, "customer", list(await connection.scalars(statement)))
