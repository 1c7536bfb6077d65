"""Open privacy requests raise one alert five days before they are due, and one when they are overdue."""

import sqlalchemy as sa

from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.customer_rows import insert_rows
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.accounts.states import DAY_MS
from edgeproxy.collector.alerts.alert import raise_alerts
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.privacy.due_alerts import list_due_alerts
from edgeproxy.collector.privacy.own_requests import record_deletion
from edgeproxy.collector.privacy.requests import CreatePrivacyRequest, PrivacyRequestStep, add_step, create_request
from edgeproxy.collector.residency import moves
from edgeproxy.config.customers import Customer
from tests.support.used_database import use_database

CALLER = Caller("test")
DAY = DAY_MS / 1000


async def test_due_alerts_name_open_requests_and_no_person(database: str) -> None:
    opened = await Database.connect(database)
    async with opened.writing() as connection:
        new = {"kind": "access", "person": "Ada Lovelace", "note": "her letter"}
        first = await create_request(connection, CALLER, CreatePrivacyRequest.model_validate(new))
        other = await create_request(connection, CALLER, CreatePrivacyRequest.model_validate({**new, "law": "ccpa"}))
        (due_at,) = (await connection.execute(sa.text("SELECT min(due_at) FROM privacy_requests"))).one()
        due = due_at / 1000
        told = []
        for moment in (due - 5 * DAY - 1, due - 5 * DAY + 1, due - 1, due + 1, due + 9 * DAY, due + 11 * DAY):
            raised = await raise_alerts(connection, await list_due_alerts(connection, moment))
            told.append([(alert.severity, alert.details["request"], alert.at) for alert in raised])
        soon, over = ("warn", first["id"], due - 5 * DAY), ("page", first["id"], due)
        assert told[:5] == [[], [soon], [], [over], []]
        assert [(severity, id_) for severity, id_, _ in told[5]] == [("warn", other["id"])]
        for state in ("identified", "done"):
            step = PrivacyRequestStep.model_validate({"state": state, "note": "as asked"})
            await add_step(connection, CALLER, other["id"], step)
        raised = await list_due_alerts(connection, due + 99 * DAY)
        assert {alert.details["request"] for alert in raised} == {first["id"]}
        rows = str((await connection.execute(sa.select(alerts))).all())
        assert "Ada" not in rows
        assert "letter" not in rows
    await opened.close()


def test_deletion_request_that_waits_for_a_move_raises_an_alert(database: str) -> None:
    async def do(opened: Database) -> None:
        async with opened.writing() as connection:
            row = customers.build_row("acme", Customer(tier="standard"))
            await insert_rows(connection, [row])
            await customers.start_deletion(connection, CALLER, "acme")
            row = await customers.get_row(connection, "acme")
            await record_deletion(connection, CALLER, row)
            later = now_ms() / 1000 + 31 * DAY
            assert await list_due_alerts(connection, later) == [], "the erasure answers it"
            await moves.insert_move(connection, row.id, "out", "us", peer=None)
            assert [alert.severity for alert in await list_due_alerts(connection, later)] == ["page"]

    use_database(database, do)
