"""Alerts as rows. Each is raised only once.

An alert is written in the transaction of its cause, so both exist or neither does. Its key names the subject and the
occasion. There is one alert per key, however often and by whichever collector it is raised. Gathered details of later
alerts are added to its row. `delivery.py` sends alerts to people.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.alerts.kinds import ALERT_POLICIES, EVENT_TYPES, AlertKind, Severity
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.database import build_insert_new
from edgeproxy.collector.database.schema import HOUR
from edgeproxy.collector.encryption.data_keys import SealedValueError
from edgeproxy.collector.encryption.keyring import KeysUnavailableError
from edgeproxy.collector.languages.invisible import format_line
from edgeproxy.collector.webhooks.messages import enqueue_event, select_id

TITLE_CHARACTERS_MAX = 200
HOURLY_MAX = 20
"""The most notices of a kind to a customer in an hour, and the most ends of its keys that anybody gets. So the creation
or the end of many keys does not send a mail for each."""
GATHERED_NAMES_MAX = 20
"""Names stored per list in `gathered`."""

Gathered = Mapping[str, int | list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert to raise. Its recipients see all of it, so it must have no secrets.

    Raises ValueError if its kind forbids the severity, or needs a customer.
    """

    key: str
    """The subject and the occasion, for example `quota:acme:calls:2026-11:80`. Each key is raised only once."""
    kind: AlertKind
    title: str
    """One line that says what happened, and to whom."""
    at: float
    """The Unix second of the event."""
    severity: Severity | None = None
    """One of the kind's severities; by default its only one."""
    customer: str | None = None
    """The name of the customer concerned, who may read it; None: only operators may."""
    details: Mapping[str, object] = field(default_factory=dict)
    """Further facts for JSON."""
    gathered: Gathered = field(default_factory=dict)
    """Details that later alerts with this key add to: numbers, and lists of the first names."""

    def __post_init__(self) -> None:
        """Set the severity, and check the alert against the row of its kind."""
        policy = ALERT_POLICIES[self.kind]
        if self.severity is None and len(policy.severities) == 1:
            object.__setattr__(self, "severity", policy.severities[0])
        if self.severity not in policy.severities:
            raise ValueError(f"an alert {self.kind} has no severity {self.severity}: {', '.join(policy.severities)}")
        if self.customer is not None and not policy.to_customer:
            raise ValueError(f"an alert {self.kind} is for operators alone, and names a customer as its reader")


async def raise_once(connection: AsyncConnection, alert: Alert) -> bool:
    """Raise an alert in the current transaction. Return False if its key exists already.

    A transaction with several alerts must use `raise_alerts`, or raise them in the order of their keys. Otherwise two
    transactions with common keys could deadlock.
    """
    row = {
        "key": alert.key,
        "kind": alert.kind,
        "severity": alert.severity,
        "customer": alert.customer,
        "title": format_title(alert.title),
        "details": _dump_details({**alert.details, **alert.gathered}),
        "at": round(alert.at * 1000),
    }
    inserted = await connection.execute(build_insert_new(connection, alerts, "key").values(row).returning(alerts.c.id))
    if inserted.first() is not None:
        if alert.customer is not None:
            await _enqueue_event(connection, alert, alert.customer)
        return True
    if alert.gathered:
        details = alerts.c.details
        statement = sa.select(details).where(alerts.c.key == alert.key).with_for_update()
        before = orjson.loads((await connection.execute(statement)).scalar_one())
        after = _dump_details({**before, **merge_gathered(before, alert.gathered)})
        await connection.execute(sa.update(alerts).where(alerts.c.key == alert.key).values(details=after))
    return False


async def raise_alerts(connection: AsyncConnection, alerts_to_raise: Iterable[Alert]) -> list[Alert]:
    """Raise alerts in the current transaction, the first one per key. Return the new ones."""
    first: dict[str, Alert] = {}
    for alert in alerts_to_raise:
        earlier = first.setdefault(alert.key, alert)
        if earlier is not alert and alert.gathered:
            first[alert.key] = replace(earlier, gathered=merge_gathered(earlier.gathered, alert.gathered))
    return [first[key] for key in sorted(first, key=_rank_key) if await raise_once(connection, first[key])]


async def fetch_times(connection: AsyncConnection, keys: Collection[str]) -> dict[str, float]:
    """Return the Unix seconds of the first alerts with these keys, by key."""
    statement = sa.select(alerts.c.key, alerts.c.at).where(alerts.c.key.in_(keys))
    return {key: at / 1000 for key, at in await connection.execute(statement)}


def _rank_key(key: str) -> tuple[str, int, str]:
    """Return the sort key of an alert key. For a quota, threshold 80 precedes 100, so the highest alert is newest."""
    head, _, tail = key.rpartition(":")
    return head, len(tail), tail


def merge_gathered(before: Gathered, more: Gathered) -> dict[str, int | list[str]]:
    """Combine the gathered details of two alerts with one key: sums of numbers, and the first names of both."""
    sums: dict[str, int | list[str]] = {}
    for name, value in more.items():
        earlier = before.get(name)
        if isinstance(value, int):
            sums[name] = value + (earlier if isinstance(earlier, int) else 0)
        else:
            names = earlier if isinstance(earlier, list) else []
            sums[name] = list(dict.fromkeys([*names, *value]))[:GATHERED_NAMES_MAX]
    return sums


async def _enqueue_event(connection: AsyncConnection, alert: Alert, customer: str) -> None:
    """Write the webhook message for the customer concerned."""

    async def build_data() -> dict[str, object]:
        summary = {"customer": customer, "title": format_title(alert.title), "severity": alert.severity}
        return {**summary, "details": {**alert.details, **alert.gathered}}

    if (event_type := EVENT_TYPES.get(alert.kind)) is not None:
        try:
            await enqueue_event(connection, select_id(customer), event_type, round(alert.at * 1000), build_data)
        except (KeysUnavailableError, SealedValueError) as error:  # An alert and its batch must not wait for keys.
            log.get_logger().warning("a webhook is not told of an alert", key=alert.key, why=str(error))


def _dump_details(details: Mapping[str, object]) -> str:
    return orjson.dumps(dict(details), option=orjson.OPT_NON_STR_KEYS).decode()


async def has_many(
    connection: AsyncConnection, customer: str, kind: str, at_ms: int, before: int | None = None
) -> bool:
    """Return whether a customer had HOURLY_MAX alerts of a kind in the hour until this Unix millisecond.

    `before`: only alerts before the one with this id count.
    """
    columns = alerts.c
    recent = sa.select(columns.id).where(
        columns.customer == customer, columns.kind == kind, columns.at > at_ms - HOUR * 1000
    )
    if before is not None:
        recent = recent.where(columns.id < before)
    return len((await connection.execute(recent.limit(HOURLY_MAX))).all()) == HOURLY_MAX


def is_unraised(key: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the SQL condition that this key has no alert yet."""
    return ~sa.exists().where(alerts.c.key == key)


def format_title(text: str) -> str:
    """Return a text as a title: one line of printable characters, at most TITLE_CHARACTERS_MAX."""
    line = format_line(text)
    return line if len(line) <= TITLE_CHARACTERS_MAX else f"{line[: TITLE_CHARACTERS_MAX - 1]}…"
