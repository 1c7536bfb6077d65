"""Operator alerts of the collector itself: expiring certificates, high denial rates.

Gaps, quarantine and rejected events raise their alerts in the transactions that record them.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.accounts.audit_details import CONTACT
from edgeproxy.collector.alerts.alert import Alert, raise_alerts
from edgeproxy.collector.alerts.kinds import AlertKind, Severity
from edgeproxy.collector.database.book_text import as_stored
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import Job, repeat
from edgeproxy.collector.database.schema import metadata
from edgeproxy.collector.database.unreadable_rows import UnreadableRow, forget_untold, list_untold
from edgeproxy.config.collector.alerts import Alerts

WATCH_SECONDS = 60.0
"""Seconds between two checks."""
DAY_SECONDS = 86400
CERTIFICATE_DAYS: tuple[tuple[int, Severity], ...] = ((30, "info"), (7, "warn"), (1, "page"))
"""Days before a certificate's expiry when an alert is raised, and its severity."""
WORST = 3
"""Kinds of denials listed in an alert."""

Expiry = Callable[[], Mapping[str, float]]
"""Returns the Unix second of expiry of each certificate, by file."""


DeniedRequest = tuple[str, str, str, int, str]
"""The key for counting denials: actor, origin, target, status, reason."""


class OperatorAlerts:
    """Periodic operator checks."""

    def __init__(self, database: Database, settings: Alerts, expiry: Expiry) -> None:
        self._database = database
        self._settings = settings
        self._expiry = expiry
        self._raised: set[str] = set()
        """Keys of raised alerts about certificates."""
        self._limited_log = log.RateLimitedLog(60.0)

    def use(self, settings: Alerts) -> None:
        """Apply new alert settings."""
        self._settings = settings

    async def run(self) -> None:
        """Check every minute until cancelled."""
        failed = "nobody looked after what is due, and somebody does later"
        await repeat(Job("operator-alerts", WATCH_SECONDS, failed, lambda: self.step(time.time())), self._limited_log)

    async def step(self, now: float) -> None:
        """Check once."""
        expiring = [
            certificate_alert
            for certificate_alert in make_certificate_alerts(self._expiry(), now)
            if certificate_alert.key not in self._raised
        ]
        if expiring:
            async with self._database.writing() as connection:
                await raise_alerts(connection, expiring)
            self._raised.update(alert.key for alert in expiring)
        if unreadable := list_untold():
            async with self._database.writing() as connection:
                named = [key for row in unreadable for key in await find_keys(connection, row)]
                await raise_alerts(connection, [make_unreadable_alert(row, now) for row in named])
            forget_untold(unreadable)

    async def denied(self, counts: Counter[DeniedRequest], now: float) -> None:
        """Raise an alert if too many requests were denied in the last minute."""
        alert = make_denial_alert(counts, self._settings.denials, now)
        if alert is not None:
            async with self._database.writing() as connection:
                await raise_alerts(connection, [alert])


def make_certificate_alerts(expiry: Mapping[str, float], now: float) -> list[Alert]:
    """Return the alerts for certificates with these Unix seconds of expiry: the most severe due alert of each. Pure."""
    alerts = []
    for file, end in expiry.items():
        due = [(days, severity) for days, severity in CERTIFICATE_DAYS if end - now < days * DAY_SECONDS]
        if due:
            days, severity = due[-1]
            at = datetime.fromtimestamp(end, UTC)
            when = f"expired on {at:%Y-%m-%d}" if end <= now else f"expires on {at:%Y-%m-%d %H:%M} UTC"
            alerts.append(
                Alert(
                    key=f"certificate:{file}:{int(end)}:{days}",
                    kind=AlertKind.CERTIFICATE_EXPIRING,
                    severity=severity,
                    title=f"the collector's certificate {file} {when}",
                    details={"file": file, "expires": f"{at:%Y-%m-%dT%H:%M:%SZ}"},
                    at=now,
                )
            )
    return alerts


async def find_keys(connection: AsyncConnection, row: UnreadableRow) -> list[UnreadableRow]:
    """Return an unreadable row with its primary key. If the key is unknown, the row is found by its stored value."""
    if not row.stored:
        return [row]
    table = metadata.tables[row.table]
    keys = sa.select(*table.primary_key).where(as_stored(table.c[row.column]) == row.stored)
    return [row._replace(key=",".join(map(str, key))) for key in await connection.execute(keys)] or [row]


def make_unreadable_alert(row: UnreadableRow, now: float) -> Alert:
    """Return the alert for a row that was set aside, without its content. Pure."""
    return Alert(
        key=f"row_unreadable:{row.table}:{row.key}",
        kind=AlertKind.ROW_UNREADABLE,
        title=f"a row of {row.table} cannot be read, and is left out: {row.key}",
        details={"table": row.table, "key": row.key, "why": row.why},
        at=now,
    )


def make_denial_alert(counts: Counter[DeniedRequest], most: int, now: float) -> Alert | None:
    """Return the alert for a minute with at least `most` denied requests. There is one per hour. Pure.

    Contacts are not named: the alert belongs to no customer, so an erasure does not delete it.
    """
    total = counts.total()
    if total < most:
        return None
    names = ("actor", "origin", "target", "status", "why")
    worst = [{**dict(zip(names, what, strict=True)), "count": count} for what, count in counts.most_common(WORST)]
    for one in worst:
        if str(one["actor"]).startswith(CONTACT):
            one["actor"] = f"{CONTACT}…"
    return Alert(
        key=f"denials:{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H}",
        kind=AlertKind.REQUESTS_DENIED,
        title=f"{total} requests were denied in a minute",
        details={"denials": total, "worst": worst},
        at=now,
    )
