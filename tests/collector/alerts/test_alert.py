"""An alert is raised once only. It commits together with its cause."""

import asyncio

import pytest
import sqlalchemy as sa

from edgeproxy.collector.alerts.alert import TITLE_CHARACTERS_MAX, Alert, format_title, raise_alerts, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.database import Database
from tests.support.credited import run


def alert(key: str = "quota:acme:calls:2026-11:80") -> Alert:
    return Alert(
        key=key,
        kind=AlertKind.QUOTA_REACHED,
        severity="info",
        title="of acme\n\0",
        customer="acme",
        at=1.5,
        details={"n": 1},
    )


async def rows(database: Database) -> list[tuple[str, str, str, int]]:
    async with database.reading() as connection:
        columns = (alerts.c.key, alerts.c.title, alerts.c.details, alerts.c.at)
        return [tuple(row) for row in await connection.execute(sa.select(*columns).order_by(alerts.c.id))]


async def broken(database: Database) -> None:
    async with database.writing() as connection:
        assert await raise_once(connection, alert())
        raise ZeroDivisionError


async def test_alert_of_one_key_is_raised_once_by_concurrent_collectors(database: str) -> None:
    async def collect(shared: Database) -> int:
        raised = 0
        for number in range(20):
            async with shared.writing() as connection:
                raised += await raise_once(connection, alert(f"one:{number}"))
        return raised

    one, other = await Database.connect(database), await Database.connect(database)
    try:
        assert sum(await asyncio.gather(collect(one), collect(other))) == 20
        assert await rows(one) == [(f"one:{n}", "of acme  ", '{"n":1}', 1500) for n in range(20)]
    finally:
        await one.close()
        await other.close()


def test_alert_is_committed_with_its_cause_or_not_at_all(database: str) -> None:
    async def work(opened: Database) -> None:
        with pytest.raises(ZeroDivisionError):
            await broken(opened)
        assert await rows(opened) == []
        async with opened.writing() as connection:
            new = await raise_alerts(connection, [alert("b"), alert("a"), alert("b")])
        assert [alert.key for alert in new] == ["a", "b"]
        assert [row[0] for row in await rows(opened)] == ["a", "b"]
        # Lists begin with the newest alert, and that should be the highest threshold.
        thresholds = ["q:80", "q:100", "q:120"]
        async with opened.writing() as connection:
            new = await raise_alerts(connection, [alert(key) for key in reversed(thresholds)])
        assert [alert.key for alert in new] == thresholds

    run(database, work)


def test_a_title_is_one_line_of_a_bounded_length() -> None:
    assert format_title("a\r\nBcc: b@c.d\u2028") == "a  Bcc: b@c.d "
    assert len(format_title("x" * 1000)) == TITLE_CHARACTERS_MAX
