"""The way of alerts to their channels: routed once, tried until they are taken or dead letters, escalated meanwhile.

What is to be done is in the database, so that a kill at any moment loses nothing: at worst something is sent twice,
under the same id. Each channel has a task of its own, so that one that is slow is in the way of no other, and of
several collectors one sends by a channel at a time.
"""

import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.alerts.alert import SEVERITIES, Severity
from edgeproxy.collector.alerts.channels import DeliveryFailure, send_message
from edgeproxy.collector.alerts.message import AlertMessage
from edgeproxy.collector.alerts.retries import compute_wait
from edgeproxy.collector.database.alert_tables import alert_deliveries, alerts
from edgeproxy.collector.database.database import Database, build_insert_new
from edgeproxy.collector.database.periodic import repeat, run_guarded
from edgeproxy.collector.database.single_runner import try_exclusive
from edgeproxy.config.collector.alerts import Alerts

POLL_SECONDS = 1.0
"""Seconds between two looks for something to do."""
COUNT_SECONDS = 10.0
"""Seconds between two looks what waits, and what is to be escalated."""
ROUTED_MAX = 200
"""Alerts that are routed at once."""
SENT_MAX = 50
"""Messages of a channel that are read at once."""
DUE, SENT, DEAD = "due", "sent", "dead"
"""What a delivery can be: still to be made, made, or given up."""
TO_CUSTOMER = ":customer"
"""What the channel of a delivery ends in that is the customer's own; no name of a channel has it."""
NO_CHANNEL = "the configuration has no such channel"

Contacts = Callable[[AsyncConnection, Iterable[str]], Awaitable[dict[str, str]]]
"""Says at which address customers want their own alerts; those who have none are left out."""


class AlertMetrics(Protocol):
    """What is reported of alerts, to whoever presents metrics."""

    def alert_raised(self, kind: str, key: str) -> None:
        """An alert of this kind was raised, under this key."""

    def alert_tried(self, channel: str, result: str) -> None:
        """A channel was tried: `sent`, `failed` or `dead`."""

    def alerts_outstanding(self, due: int, dead: int) -> None:
        """So many deliveries are still to be made, and so many were given up."""


class AlertDelivery:
    """Brings alerts to their channels until it is cancelled."""

    def __init__(self, database: Database, settings: Alerts, metrics: AlertMetrics, contacts: Contacts) -> None:
        self._database = database
        self._settings = settings
        self._metrics = metrics
        self._contacts = contacts
        self._tasks = Tasks()
        self._busy: set[str] = set()
        """Channels whose task runs."""
        self._reported_at = float("-inf")
        self._log = log.get_logger()
        self._limited_log = log.RateLimitedLog(60.0)

    def use(self, settings: Alerts) -> None:
        """Send by these from now on."""
        self._settings = settings

    async def run(self) -> None:
        """Do what there is to do, for ever."""
        try:
            failed = "alerts could not be looked at, and are later"
            await repeat(POLL_SECONDS, self._limited_log, failed, lambda: self.step(time.time()))
        finally:
            await self._tasks.cancel()

    async def step(self, now: float) -> None:
        """Route what is new, and begin to send what is due."""
        await self._route(now)
        if time.monotonic() - self._reported_at >= COUNT_SECONDS:
            self._reported_at = time.monotonic()
            await self._escalate(now)
            await self._report_outstanding()
        statement = sa.select(alert_deliveries.c.channel).distinct().where(is_due(now))
        async with self._database.reading() as connection:
            due_channels = set((await connection.execute(statement)).scalars())
        for channel in sorted(due_channels - self._busy):
            self._busy.add(channel)
            failed = "a channel of alerts could not be served, and is later"
            self._tasks.start(
                f"alerts by {channel}", run_guarded(self._limited_log, failed, self._drain_channel(channel))
            )

    # ---- where to

    async def _route(self, now: float) -> None:
        """Say each new alert in the log, and make its deliveries."""
        statement = sa.select(alerts).where(alerts.c.routed_at.is_(None)).order_by(alerts.c.id).limit(ROUTED_MAX)
        async with self._database.reading() as connection:
            new = (await connection.execute(statement)).all()
        if not new:
            return
        async with self._database.writing() as connection:
            ours = await _claim_alerts(connection, new, "routed_at", now)
            contacts: dict[str, str] = {}
            if self._settings.customers is not None:
                contacts = await self._contacts(connection, sorted({row.customer for row in ours} - {None}))
            rows = [
                _build_delivery(row.id, channel, now) for row in ours for channel in self.list_channels(row.severity)
            ]
            rows += [
                _build_delivery(row.id, f"{self._settings.customers}{TO_CUSTOMER}", now, contacts[row.customer])
                for row in ours
                if row.customer in contacts
            ]
            await _insert_deliveries(connection, rows)
            for row in ours:
                self._log_alert(row)
        for row in ours:
            self._metrics.alert_raised(row.kind, row.key)

    def list_channels(self, severity: Severity) -> list[str]:
        """Return the channels of a severity; where it has none, those of the next lower one."""
        for one in SEVERITIES[SEVERITIES.index(severity) :]:
            if listed := getattr(self._settings.routes, one):
                return list(dict.fromkeys(listed))
        return []

    def _list_escalation_channels(self, severity: Severity) -> list[str]:
        """The channels to which an alert is escalated: those of the next higher severity, and of a page all."""
        at = SEVERITIES.index(severity)
        return self.list_channels(SEVERITIES[at - 1]) if at else list(self._settings.channels)

    def _log_alert(self, row: Any) -> None:
        """The line of the log that every alert is."""
        log_line = {"page": self._log.error, "warn": self._log.warning, "info": self._log.info}[row.severity]
        details = orjson.loads(row.details)
        log_line("alert", alert=row.id, key=row.key, severity=row.severity, title=row.title, details=details)

    async def _escalate(self, now: float) -> None:
        """Send by further channels what no channel has taken for a while."""
        own = alert_deliveries.c.channel.not_like(f"%{TO_CUSTOMER}")
        open_ = sa.select(alert_deliveries.c.alert).where(alert_deliveries.c.state.in_([DUE, DEAD]), own)
        sent = sa.exists().where(alert_deliveries.c.alert == alerts.c.id, alert_deliveries.c.state == SENT, own)
        before = round((now - self._settings.escalate) * 1000)
        statement = (
            sa.select(alerts)
            .where(alerts.c.id.in_(open_), ~sent, alerts.c.routed_at <= before, alerts.c.escalated_at.is_(None))
            .limit(ROUTED_MAX)
        )
        async with self._database.reading() as connection:
            unsent = (await connection.execute(statement)).all()
        if not unsent:
            return
        async with self._database.writing() as connection:
            ours = await _claim_alerts(connection, unsent, "escalated_at", now)
            rows = [
                _build_delivery(row.id, channel, now)
                for row in ours
                for channel in self._list_escalation_channels(row.severity)
            ]
            await _insert_deliveries(connection, rows)
        for row in ours:
            self._log.error("no channel has taken an alert, and others are tried", alert=row.id, key=row.key)

    async def _report_outstanding(self) -> None:
        """Count what is outstanding."""
        count = sa.select(alert_deliveries.c.state, sa.func.count()).where(alert_deliveries.c.state.in_([DUE, DEAD]))
        async with self._database.reading() as connection:
            rows = await connection.execute(count.group_by(alert_deliveries.c.state))
            counts: dict[str, int] = {row[0]: row[1] for row in rows}
        self._metrics.alerts_outstanding(counts.get(DUE, 0), counts.get(DEAD, 0))

    # ---- on the way

    async def _drain_channel(self, channel: str) -> None:
        """Send what is due by a channel, the oldest first, until it fails."""
        try:
            async with try_exclusive(self._database, f"alerts-{channel.partition(':')[0]}") as mine:
                while mine and (rows := await self._fetch_due(channel)):
                    for row in rows:
                        if not await self._attempt_delivery(channel, row):
                            return
        finally:
            self._busy.discard(channel)

    async def _fetch_due(self, channel: str) -> Sequence[Any]:
        deliveries = alert_deliveries.c
        statement = (
            sa.select(alerts, deliveries.recipient, deliveries.attempts)
            .join_from(alert_deliveries, alerts, alerts.c.id == deliveries.alert)
            .where(is_due(time.time()), deliveries.channel == channel)
            .order_by(deliveries.due_at, deliveries.alert)
            .limit(SENT_MAX)
        )
        async with self._database.reading() as connection:
            return (await connection.execute(statement)).all()

    async def _attempt_delivery(self, channel: str, row: Any) -> bool:
        """Try to send one message, and note what came of it; whether it was taken."""
        name = channel.partition(":")[0]
        settings = self._settings.channels.get(name)
        if settings is None:
            failure: DeliveryFailure | None = DeliveryFailure(NO_CHANNEL)
        else:
            failure = await send_message(settings, to_message(row), row.recipient, time.time())
        attempts, now = row.attempts + 1, time.time()
        values: dict[str, Any] = {"attempts": attempts}
        if failure is None:
            values |= {"state": SENT, "sent_at": round(now * 1000), "error": None}
        else:
            wait = None if failure.is_final else compute_wait(attempts, failure.wait, random.random)
            values |= {"error": failure.why}
            values |= {"state": DEAD} if wait is None else {"due_at": round((now + wait) * 1000)}
        own = (alert_deliveries.c.alert == row.id) & (alert_deliveries.c.channel == channel)
        async with self._database.writing() as connection:
            await connection.execute(sa.update(alert_deliveries).where(own).values(values))
        result = SENT if failure is None else DEAD if values.get("state") == DEAD else "failed"
        self._metrics.alert_tried(name, result)
        if failure is not None:
            about = {"alert": row.id, "attempts": attempts, "why": failure.why}
            self._log.warning("a channel did not take an alert", channel=name, result=result, **about)
        return failure is None


def is_due(now: float) -> sa.ColumnElement[bool]:
    """Return the condition that a delivery is to be made now."""
    return (alert_deliveries.c.state == DUE) & (alert_deliveries.c.due_at <= round(now * 1000))


def to_message(row: Any) -> AlertMessage:
    """Return what is told of the row of an alert."""
    details = orjson.loads(row.details)
    return AlertMessage(row.id, row.key, row.kind, row.severity, row.customer, row.title, details, row.at)


def _build_delivery(alert: int, channel: str, now: float, recipient: str | None = None) -> dict[str, Any]:
    row = {"alert": alert, "channel": channel, "recipient": recipient, "state": DUE, "attempts": 0}
    return {**row, "due_at": round(now * 1000)}


async def _claim_alerts(connection: AsyncConnection, rows: Sequence[Any], column: str, now: float) -> list[Any]:
    """Note in a column of alerts when they were taken up; return those that nobody else has taken up meanwhile."""
    field = alerts.c[column]
    ours = sa.update(alerts).where(alerts.c.id.in_([row.id for row in rows]), field.is_(None))
    noted = await connection.execute(ours.values({column: round(now * 1000)}).returning(alerts.c.id))
    claimed = set(noted.scalars())
    return [row for row in rows if row.id in claimed]


async def _insert_deliveries(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        await connection.execute(build_insert_new(connection, alert_deliveries, "alert", "channel"), list(rows))
