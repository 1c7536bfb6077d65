"""Charging by file and by operators: the kill switch, its effect at edges, and the usage that it waives."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit, documents
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.alerts.alert import raise_once
from edgeproxy.collector.anomalies.job import build_pause_alert
from edgeproxy.collector.anomalies.judgement import Finding
from edgeproxy.collector.billing.period_close import quantities
from edgeproxy.collector.billing.rating.rater import Segment, Span, UsageKey
from edgeproxy.collector.billing.reports import rollout_figures
from edgeproxy.collector.billing.rollout import charging, gates
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import rollout, waivers, webhook_events
from edgeproxy.collector.database.schema import EVENTS, EVENTS_REGION, customers, directory_outbox
from edgeproxy.collector.ledger.ledger_writer import LedgerWriter
from edgeproxy.config.collector.billing import Billing, Rollout
from edgeproxy.config.collector.load import load_plans
from edgeproxy.wire.batch import FIRST, Batch

BOSS = Caller("boss")
PLANS = Path(__file__).parents[4] / "loadtest/testbed/plans.yaml"
ON = Billing(plans=PLANS, mode="live", rollout=Rollout(percent=5, allow=("acme",)))
OFF = ON.model_copy(update={"charging": False})
STOPPED = ON.model_copy(update={"rollout": Rollout(percent=5, stop="We are sorry.")})
PLANS_SOLD = load_plans(PLANS, {}).plans
USED = (("acme", "api_calls", "-", 100),)
Work = Callable[[AsyncConnection], Coroutine[Any, Any, None]]


def run_in_transactions(url: str, *works: Work) -> None:
    """Run each function in its own transaction."""

    async def run() -> None:
        database = await Database.connect(url)
        try:
            for work in works:
                async with database.writing() as connection:
                    await work(connection)
        finally:
            await database.close()

    asyncio.run(run())


async def insert_customer(connection: AsyncConnection, name: str, **paused: object) -> None:
    settings = json.dumps({"tier": "basic", **({"paused": paused} if paused else {})}, separators=(",", ":"))
    row = {"id": name, "name": name, "tier": "basic", "settings": settings, "metadata": "{}"}
    await connection.execute(sa.insert(customers), [{**row, "created_at": 1, "version": 1}])


async def fetch_refusal_status(connection: AsyncConnection, name: str) -> int | None:
    """Return the status of the edges' refusals of a customer, or None if they serve it."""
    pause = json.loads(await documents.fetch_line(connection, name))["customer"].get("paused")
    return pause and pause.get("status", 403)


def test_charging_stop_unpauses_unpaid_customers_and_waives_usage(database: str) -> None:
    async def stop(connection: AsyncConnection) -> None:
        await insert_customer(connection, "unpaid", why="An invoice is unpaid.", status=402)
        await insert_customer(connection, "abuser", why="Abuse.", status=403)
        assert [await fetch_refusal_status(connection, name) for name in ("unpaid", "abuser")] == [402, 403]
        await charging.stop_charging(connection, BOSS, "Free for now.", "a wrong price")

    async def check_stopped(connection: AsyncConnection) -> None:
        now = await charging.fetch_charging(connection, ON)
        assert (now.is_on, now.message, now.stopped_by, now.charges("acme")) == (False, "Free for now.", "boss", False)
        assert [await fetch_refusal_status(connection, name) for name in ("unpaid", "abuser")] == [None, 403]
        rows = await connection.execute(sa.select(directory_outbox.c.name))
        assert list(rows.scalars()) == ["billing-stopped", "unpaid"]
        (span,) = await charging.list_waived(connection)
        assert span.start <= time.time() < span.end
        assert span.start % 60 == 0
        with pytest.raises(ChangeRejectedError, match="nobody is charged already: boss has stopped it"):
            await charging.stop_charging(connection, BOSS, "x", "again")

    async def resume(connection: AsyncConnection) -> None:
        await charging.resume_charging(connection, BOSS, "mended")
        (span,) = await charging.list_waived(connection)
        assert span.end % 60 == 0
        assert 0 < span.end - time.time() <= 60
        assert [await fetch_refusal_status(connection, name) for name in ("unpaid", "abuser")] == [402, 403]
        with pytest.raises(ChangeRejectedError, match="charged already"):
            await charging.resume_charging(connection, BOSS, "again")

    async def stop_again(connection: AsyncConnection) -> None:
        """A stop in the minute of a resumption extends the earlier span, because no minute may belong to two."""
        await charging.stop_charging(connection, BOSS, "x", "y")
        (span,) = await charging.list_waived(connection)
        assert span.end > time.time() + 3600

    async def check_audit_log(connection: AsyncConnection) -> None:
        actions = [entry["action"] for entry in await audit.list_entries(connection, 0, 10)]
        assert actions == ["billing.stop", "billing.resume", "billing.stop"]
        kinds = (await connection.execute(sa.select(alerts.c.kind))).scalars().all()
        assert kinds == ["charging_stopped"] * 2

    run_in_transactions(database, stop, check_stopped, resume, stop_again, check_audit_log)


@pytest.mark.parametrize(("file", "message"), [(OFF, charging.NO_CHARGE), (STOPPED, "We are sorry.")])
def test_configuration_resumes_only_its_own_charging_stop(sqlite_database: str, file: Billing, message: str) -> None:
    async def check_configuration(connection: AsyncConnection) -> None:
        await charging.apply_configuration(connection, file)
        now = await charging.fetch_charging(connection, file)
        assert (now.is_on, now.message, now.stopped_by) == (False, message, "configuration")
        await charging.apply_configuration(connection, file)
        await charging.apply_configuration(connection, ON)
        assert (await charging.fetch_charging(connection, ON)).is_on
        await charging.stop_charging(connection, BOSS, "x", "y")
        await charging.apply_configuration(connection, ON)
        assert not (await charging.fetch_charging(connection, ON)).is_on

    run_in_transactions(sqlite_database, check_configuration)


def test_reload_from_shadow_to_live_adds_no_charged_customer(database: str) -> None:
    """The file allows all customers throughout; in shadow, and after it, only those in `allow` are charged."""
    shadow = ON.model_copy(update={"mode": "shadow", "rollout": Rollout(percent=100, allow=("acme",))})
    live = shadow.model_copy(update={"mode": "live"})
    lower = live.model_copy(update={"rollout": Rollout(percent=5)})
    names = [f"customer-{number}" for number in range(6)]

    async def charged(connection: AsyncConnection, billing: Billing) -> tuple[int, list[str]]:
        now = await charging.fetch_charging(connection, billing)
        if charging.is_behind(now, billing):
            await charging.apply_configuration(connection, billing)
            now = await charging.fetch_charging(connection, billing)
        assert not charging.is_behind(now, billing)
        return now.percent, [name for name in ("acme", *names) if now.charges(name)]

    async def step(connection: AsyncConnection) -> None:
        assert await charged(connection, shadow) == (0, ["acme"])
        with pytest.raises(ChangeRejectedError, match="mode: shadow charges allow alone"):
            await charging.set_percent(connection, BOSS, shadow, 5, "a step down from 100?")
        assert await charged(connection, live) == (0, ["acme"]), "a reload is no step"
        now = await charging.fetch_charging(connection, live)
        figures = await rollout_figures.fetch_figures(connection, now, time.time() + 3600, live)
        first = gates.evaluate_gates(now.percent, 5, figures)[0]
        assert (first.name, first.figure, first.is_open) == ("time at 0 %", "60 of 240 min", False)
        await charging.set_percent(connection, BOSS, live, 100, "forced")
        assert await charged(connection, live) == (100, ["acme", *names])
        assert (await charged(connection, lower))[0] == 5, "the file lowers it at once"
        assert (await charged(connection, live))[0] == 5, "and does not raise it again"
        assert await charged(connection, shadow) == (0, ["acme"])

    async def check_audit_log(connection: AsyncConnection) -> None:
        entries = list(await audit.list_entries(connection, 0, 10))
        steps = [(entry["actor"], entry["after"]["percent"]) for entry in entries]
        assert steps == [("configuration", 0), ("boss", 100), ("configuration", 5), ("configuration", 0)]

    run_in_transactions(database, step, check_audit_log)


def test_rollout_percentage_follows_the_file_until_an_operator_sets_another(sqlite_database: str) -> None:
    file = ON.model_copy(update={"rollout": Rollout(percent=50, allow=("acme",))})

    async def step(connection: AsyncConnection) -> None:
        before = await charging.fetch_charging(connection, ON)
        assert (before.percent, before.allow, before.mode) == (5, {"acme"}, "live")
        assert before.charges("acme")
        with pytest.raises(ChangeRejectedError) as raised:
            await charging.set_percent(connection, BOSS, file, 25, "why", frozenset({7}))
        assert raised.value.status == 412
        with pytest.raises(ChangeRejectedError, match="the collector's file allows 5 %"):
            await charging.set_percent(connection, BOSS, ON, 25, "why")
        await charging.set_percent(connection, BOSS, file, 25, "why")
        after = await charging.fetch_charging(connection, file)
        assert (after.percent, abs(after.since - time.time()) < 60) == (25, True)
        figures = await rollout_figures.fetch_figures(connection, after, time.time(), ON)
        closed = [gate for gate in gates.evaluate_gates(25, 50, figures) if not gate.is_open]
        assert len(closed) == 4
        assert figures.webhook_median is None
        event = {"type": "invoice.paid", "object_type": "invoice", "object": "in_1", "livemode": 0, "source": "poll"}
        event |= {"created": after.since, "received": after.since * 1000, "state": "applied", "payload": b""}
        rows = [{**event, "id": f"evt_{taken}", "applied": (after.since + taken) * 1000} for taken in (1, 9, 5)]
        await connection.execute(sa.insert(webhook_events), rows)
        figures = await rollout_figures.fetch_figures(connection, after, time.time(), ON)
        assert (figures.webhooks, figures.webhook_median, figures.paused) == (3, 5.0, 0)
        finding = Finding("volume", "page", 9.0, None, 5000, 900.0, after.since)
        await raise_once(connection, build_pause_alert("acme", "api_calls", finding, time.time()))
        assert (await rollout_figures.fetch_figures(connection, after, time.time(), ON)).paused == 1
        await connection.execute(sa.update(rollout).values(since=after.since - 3600))
        await charging.set_percent(connection, BOSS, file, 25, "said again")
        again = await charging.fetch_charging(connection, file)
        assert (again.percent, again.since) == (25, after.since - 3600), "the stage goes on"

    run_in_transactions(sqlite_database, step)


async def test_usage_while_charging_is_off_is_in_no_quantity(database: str) -> None:
    begin = 1_798_761_600
    segment = Segment("standard@1", PLANS_SOLD["standard@1"], Span(begin, begin + 86400), Span(begin, begin + 86400))
    rows = [Batch(EVENTS, EVENTS_REGION, 0, at, at + 60, FIRST, USED) for at in (begin, begin + 60, begin + 120)]

    books = await Database.connect(database)
    async with books.writing() as connection:
        edge = {"edge": EVENTS, "region": EVENTS_REGION, "seq": 0, "hash": FIRST, "received": 0}
        await books.ledger.insert_edges(connection, [edge])
        await LedgerWriter(books).add_batches(connection, rows)
        waiver = {"since": begin + 60, "until": begin + 120, "who": "me", "why": "a trial"}
        await connection.execute(sa.insert(waivers), [waiver])
    async with books.reading(whole=True) as connection:
        billed = await quantities.fetch_quantities(
            connection, "acme", [segment], segment, quantities.QuantityTerms({}, None)
        )
        waived = await quantities.fetch_waived(connection, "acme", [segment.span])
    await books.close()
    assert billed[UsageKey(segment.span, "api_calls")] == 200
    (usage,) = (
        one for one in quantities.plan_usage_to_response(segment.plan, billed, waived) if one["meter"] == "api_calls"
    )
    assert (usage["quantity"], usage["waived"]) == (200, 100), "a waiver is not a gap"
