"""An alert: what somebody should hear of, once ever.

It is a row, written in the transaction of what it tells of: both are there, or neither is. Its key says what it is
about, and there is one alert of a key, whoever raises it how often, and through whichever collector. How it gets to
people is for `delivery.py`, later.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.database.alert_tables import alerts
from edgeproxy.database.database import insert_new

Severity = Literal["page", "warn", "info"]
SEVERITIES: tuple[Severity, ...] = ("page", "warn", "info")
"""From what wakes somebody to what can wait."""
TITLE_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What somebody should hear of. What is in it is told to whoever it is sent to: no secrets."""

    key: str
    """What it is about: subject and occasion, such as `quota:acme:calls:2026-11:80`. There is one of each, ever."""
    kind: str
    """A word for all of its kind, such as `quota`: of the code, never of a request."""
    severity: Severity
    title: str
    """A line that says what happened, to whom."""
    at: float
    """The Unix second at which it happened."""
    customer: str | None = None
    """The name of the customer that it is about, who may read it too; None: operators alone may."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else is to be known, as JSON has it."""


async def raise_once(connection: AsyncConnection, alert: Alert) -> bool:
    """Raise an alert in the transaction that is under way; False where there is one of its key already.

    A transaction that raises several does so by `raise_all`, or in the order of their keys: two that raise the same
    ones in different orders would wait for each other.
    """
    row = {
        "key": alert.key,
        "kind": alert.kind,
        "severity": alert.severity,
        "customer": alert.customer,
        "title": in_a_line(alert.title),
        "details": orjson.dumps(dict(alert.details), option=orjson.OPT_NON_STR_KEYS).decode(),
        "at": round(alert.at * 1000),
    }
    made = await connection.execute(insert_new(connection, alerts, "key").values(row).returning(alerts.c.id))
    return made.first() is not None


async def raise_all(connection: AsyncConnection, some: Iterable[Alert]) -> list[Alert]:
    """Raise alerts in the transaction that is under way, of each key the first; return those that were not there."""
    first: dict[str, Alert] = {}
    for alert in some:
        first.setdefault(alert.key, alert)
    return [first[key] for key in sorted(first) if await raise_once(connection, first[key])]


def unraised(key: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the condition that there is no alert of this key, for a query that looks for what to raise."""
    return ~sa.exists().where(alerts.c.key == key)


def in_a_line(text: str) -> str:
    """Return a text as a title has it: one line of printable characters, of a bounded length."""
    line = "".join(one if one.isprintable() else " " for one in text)
    return line if len(line) <= TITLE_CHARACTERS_MAX else f"{line[: TITLE_CHARACTERS_MAX - 1]}…"
