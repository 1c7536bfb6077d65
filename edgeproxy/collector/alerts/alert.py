"""An alert: what somebody should hear of, once ever.

It is a row, written in the transaction of what it tells of: both are there, or neither is. Its key says what it is
about, and there is one alert of a key, whoever raises it how often, and through whichever collector. What it gathers of
later ones is added to its row, for who looks at it. How it gets to people is for `delivery.py`, later.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.database import build_insert_new

Severity = Literal["page", "warn", "info"]
SEVERITIES: tuple[Severity, ...] = ("page", "warn", "info")
"""From what wakes somebody to what can wait."""
TITLE_CHARACTERS_MAX = 200
GATHERED_NAMES_MAX = 20
"""Names of a list of `gathered` that are kept."""


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
    gathered: Mapping[str, int | list[str]] = field(default_factory=dict)
    """Details to which those of later alerts of the key are added: numbers, and lists of the first names."""


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
        "title": format_title(alert.title),
        "details": _dump_details({**alert.details, **alert.gathered}),
        "at": round(alert.at * 1000),
    }
    inserted = await connection.execute(build_insert_new(connection, alerts, "key").values(row).returning(alerts.c.id))
    if inserted.first() is not None:
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
    return [first[key] for key in sorted(first) if await raise_once(connection, first[key])]


def merge_gathered(before: Mapping[str, Any], more: Mapping[str, int | list[str]]) -> dict[str, int | list[str]]:
    """Return what two alerts of a key gather together; of a field that the first lacks, what the other has."""
    sums: dict[str, int | list[str]] = {}
    for name, value in more.items():
        if isinstance(value, int):
            sums[name] = before.get(name, 0) + value
        else:
            sums[name] = list(dict.fromkeys([*before.get(name, ()), *value]))[:GATHERED_NAMES_MAX]
    return sums


def _dump_details(details: Mapping[str, Any]) -> str:
    return orjson.dumps(dict(details), option=orjson.OPT_NON_STR_KEYS).decode()


def is_unraised(key: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the condition that there is no alert of this key, for a query that looks for what to raise."""
    return ~sa.exists().where(alerts.c.key == key)


def format_title(text: str) -> str:
    """Return a text as a title has it: one line of printable characters, of a bounded length."""
    line = "".join(one if one.isprintable() else " " for one in text)
    return line if len(line) <= TITLE_CHARACTERS_MAX else f"{line[: TITLE_CHARACTERS_MAX - 1]}…"
