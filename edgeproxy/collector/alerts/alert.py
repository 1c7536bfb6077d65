"""Alerts as rows: what a person should know, raised once ever.

An alert is written in the transaction of the change that it is about, so both are there or neither is. Its key names
its subject and occasion, and there is one alert of a key, however often it is raised and through whichever collector.
What later ones gather is added to its row. `delivery.py` sends it to people.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.alerts.kinds import ALERT_POLICIES, EVENT_TYPES, AlertKind, Severity
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.database import build_insert_new
from edgeproxy.collector.encryption.data_keys import SealedValueError
from edgeproxy.collector.encryption.keyring import KeysUnavailableError
from edgeproxy.collector.languages.invisible import format_line
from edgeproxy.collector.webhooks.messages import enqueue_event, select_id

TITLE_CHARACTERS_MAX = 200
GATHERED_NAMES_MAX = 20
"""Names of a list of `gathered` that are stored."""

Gathered = Mapping[str, int | list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert that is to be raised. Its recipients see all of it: it holds no secrets.

    Raises ValueError where its kind does not allow the severity, or no customer.
    """

    key: str
    """The subject and the occasion, such as `quota:acme:calls:2026-11:80`; an alert is raised once for each key."""
    kind: AlertKind
    title: str
    """A line that says what happened, to whom."""
    at: float
    """The Unix second at which it happened."""
    severity: Severity | None = None
    """One of the severities of the kind; by default the only one that the kind has."""
    customer: str | None = None
    """The name of the customer that it is about, who may read it too; None: operators alone may."""
    details: Mapping[str, object] = field(default_factory=dict)
    """Further facts, as JSON has them."""
    gathered: Gathered = field(default_factory=dict)
    """Details to which those of later alerts of the key are added: numbers, and lists of the first names."""

    def __post_init__(self) -> None:
        """Set the severity, and hold the alert to the row of its kind."""
        policy = ALERT_POLICIES[self.kind]
        if self.severity is None and len(policy.severities) == 1:
            object.__setattr__(self, "severity", policy.severities[0])
        if self.severity not in policy.severities:
            raise ValueError(f"an alert {self.kind} has no severity {self.severity}: {', '.join(policy.severities)}")
        if self.customer is not None and not policy.to_customer:
            raise ValueError(f"an alert {self.kind} is for operators alone, and names a customer as its reader")


async def raise_once(connection: AsyncConnection, alert: Alert) -> bool:
    """Raise an alert in the transaction that is under way; return False where there is one of its key already.

    A transaction that raises several does so by `raise_all`, or in the order of their keys: two that raise the same
    ones in different orders would wait for each other.
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
    """Raise alerts in the transaction that is under way, of each key the first; return those that were not there."""
    first: dict[str, Alert] = {}
    for alert in alerts_to_raise:
        before = first.setdefault(alert.key, alert)
        if before is not alert and alert.gathered:
            first[alert.key] = replace(before, gathered=merge_gathered(before.gathered, alert.gathered))
    return [first[key] for key in sorted(first, key=_rank_key) if await raise_once(connection, first[key])]


def _rank_key(key: str) -> tuple[str, int, str]:
    """Rank a key, everywhere alike: of a quota's thresholds 80 is before 100, so that the highest is the newest."""
    head, _, tail = key.rpartition(":")
    return head, len(tail), tail


def merge_gathered(before: Gathered, more: Gathered) -> dict[str, int | list[str]]:
    """Return what two alerts of a key gather together: sums of numbers, and the first names of both."""
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
    """Write the message to webhooks of the customer that an alert is about."""

    async def build_data() -> dict[str, object]:
        about = {"customer": customer, "title": format_title(alert.title), "severity": alert.severity}
        return {**about, "details": {**alert.details, **alert.gathered}}

    if (event_type := EVENT_TYPES.get(alert.kind)) is not None:
        try:
            await enqueue_event(connection, select_id(customer), event_type, round(alert.at * 1000), build_data)
        except (KeysUnavailableError, SealedValueError) as error:  # An alert, and its batch, must not wait for keys.
            log.get_logger().warning("a webhook is not told of an alert", key=alert.key, why=str(error))


def _dump_details(details: Mapping[str, object]) -> str:
    return orjson.dumps(dict(details), option=orjson.OPT_NON_STR_KEYS).decode()


def is_unraised(key: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the SQL condition that no alert of this key was raised yet."""
    return ~sa.exists().where(alerts.c.key == key)


def format_title(text: str) -> str:
    """Return a text as a title: one line of printable characters, of TITLE_CHARACTERS_MAX at most."""
    line = format_line(text)
    return line if len(line) <= TITLE_CHARACTERS_MAX else f"{line[: TITLE_CHARACTERS_MAX - 1]}…"
