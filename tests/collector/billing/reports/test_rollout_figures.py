"""The rollout gates on data of a database: good figures open them, and each bad figure closes its gate, by name."""

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.credits.credits import Payment
from edgeproxy.collector.billing.invoices import shadow_log
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.journal import Posting
from edgeproxy.collector.billing.journal.postings import CENT, ConsumptionPart, consumption_entries
from edgeproxy.collector.billing.mismatch import Comparison
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.reports import rollout_figures
from edgeproxy.collector.billing.reports.response_counts import ResponseCounts, fetch_since
from edgeproxy.collector.billing.rollout.charging import Charging
from edgeproxy.collector.billing.rollout.gates import evaluate_gates
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import webhook_events
from edgeproxy.collector.database.schema import DAY, EVENTS, EVENTS_REGION, HOUR
from edgeproxy.collector.ledger.ledger_writer import LedgerWriter
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.credits import Credits
from edgeproxy.wire.batch import FIRST, Batch
from tests.support.credited import opened, write

BEGAN = 20_000 * DAY
NOW = BEGAN + DAY + 2 * HOUR
SOLD = Billing.model_validate(
    {"plans": "plans.yaml", "collection": "meters", "credits": Credits(cogs={"tokens": "0.0001"})}
)
NEXT = {0: 5, 5: 25, 25: 100}


def event(number: int, kind: str, about: str, state: str = "applied") -> dict[str, Any]:
    of = {"type": kind, "object_type": kind.rpartition(".")[0], "object": about, "livemode": 0, "source": "webhook"}
    at = BEGAN + number
    times = {"created": at, "received": at * 1000, "applied": (at + 3) * 1000 if state == "applied" else None}
    return {**of, **times, "id": f"evt_{number}", "state": state, "payload": b""}


def bill(name: str, state: str) -> dict[str, Any]:
    row = {"id": name, "customer": "id-acme", "period": name, "kind": "period", "state": state, "currency": "usd"}
    amounts = dict.fromkeys(("period_start", "period_end", "tries", "failures", "try_at", "created_at"), 0)
    return {**row, **amounts, "subtotal": 500, "total": 500, "closes_at": BEGAN + 60}


def unpaid(number: int, at: int, kind: AlertKind = AlertKind.INVOICE_UNPAID) -> Alert:
    return Alert(key=f"{kind}-{number}", kind=kind, title="x", at=at)


async def good(of: Database) -> None:
    """Have figures that open all gates."""
    async with of.writing() as connection:
        charges = [event(n, "charge.succeeded", f"ch_{n}") for n in range(20)]
        sessions = [event(100 + n, "checkout.session.completed", f"cs_{n}") for n in range(5)]
        await connection.execute(sa.insert(webhook_events), [*charges, *sessions])
        await connection.execute(sa.insert(invoices), [bill("first", "paid"), bill("second", "waived")])
        for name in ("first", "second"):
            await shadow_log.record_shadow(connection, name, 500, NOW)
        await shadow_log.record_charged(connection, "first", 500, NOW)
        rows = [Comparison("acme", "tokens", 10_000, 10_000)]
        await discrepancies.record_reconciliation(connection, "B", Span(BEGAN, NOW), rows, NOW)
        edge = {"edge": EVENTS, "region": EVENTS_REGION, "seq": 0, "hash": FIRST, "received": 0}
        await of.ledger.insert_edges(connection, [edge])
        used = (("acme", "tokens", "-", 10_000),)  # A dollar.
        await LedgerWriter(of).add_batches(
            connection, [Batch(EVENTS, EVENTS_REGION, 0, BEGAN, BEGAN + 60, FIRST, used)]
        )
        for n in range(7):
            await raise_once(connection, unpaid(n, BEGAN - n * DAY))
        await raise_once(connection, unpaid(8, NOW - HOUR))
    answers = ResponseCounts()
    for n in range(2000):
        answers.record(500 if not n else 200, NOW, is_known=True)
    await answers.write(of)


async def closed(of: Database, percent: int) -> dict[str, str]:
    """The gates that are closed, with their figures."""
    now = Charging("live", percent, frozenset(), True, None, None, BEGAN, 1)
    async with of.reading(whole=True) as connection:
        figures = await rollout_figures.fetch_figures(connection, now, NOW, SOLD)
    return {gate.name: gate.figure for gate in evaluate_gates(percent, NEXT[percent], figures) if not gate.is_open}


async def lose(connection: AsyncConnection) -> None:
    await connection.execute(sa.insert(webhook_events), [event(300 + n, "charge.failed", f"no_{n}") for n in range(2)])


async def unbook(connection: AsyncConnection) -> None:
    late = event(400, "checkout.session.completed", "cs_late", "dead")
    await connection.execute(sa.insert(webhook_events), [late])


async def slow(connection: AsyncConnection) -> None:
    await connection.execute(sa.update(webhook_events).values(applied=webhook_events.c.applied + 60_000))


async def drift(connection: AsyncConnection) -> None:
    rows = [Comparison("acme", "tokens", 10_000, 9_998), Comparison("acme", "calls", 10**9, 10**9)]
    await discrepancies.record_reconciliation(connection, "B", Span(NOW, NOW + DAY), rows, NOW)


async def hold(connection: AsyncConnection) -> None:
    await connection.execute(sa.insert(invoices), [bill("third", "held")])


async def overcharge(connection: AsyncConnection) -> None:
    await shadow_log.record_charged(connection, "first", 501, NOW)


async def refuse(connection: AsyncConnection) -> None:
    for n in range(2):
        await raise_once(connection, unpaid(20 + n, NOW - HOUR))


async def pause(connection: AsyncConnection) -> None:
    await raise_once(connection, unpaid(30, NOW - HOUR, AlertKind.CUSTOMER_PAUSED))


BAD = [
    (0, overcharge, {"shadow and real invoices": "1 of 1 differ"}),
    (0, hold, {"errors of calculation": "1"}),
    (5, lose, {"purchases that succeed": "20 of 22"}),
    (5, unbook, {"purchases that succeed": "19 of 20"}),
    (5, slow, {"median from event to effect": "63.0 s of 25"}),
    (5, drift, {"variance to Stripe": "0.0100 % of 20000 units"}),
    (25, refuse, {"customers paused with 402": "3 a day, 1 usually"}),
    (25, pause, {"customers paused for their usage": "1"}),
]


async def test_good_figures_open_every_gate_and_a_bad_one_closes_its_own(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "now_ms", lambda: (BEGAN + HOUR) * 1000)

    async def earn(connection: AsyncConnection, cents: int) -> None:
        async with journal.open_journal(connection) as books:
            entries = consumption_entries(
                await books.fetch_credit_balance("id-acme"), [ConsumptionPart("cost", "", cents * CENT)]
            )
            books.book(Posting("id-acme", "consumption", f"u{cents}", entries, slice=BEGAN))

    async with opened(database, "acme") as of:
        assert (await closed(of, 0)).keys() >= {"shadow and real invoices", "variance to Stripe"}
        assert (await closed(of, 5))["purchases that succeed"] == "0 of 0, too few to say"
        assert (await closed(of, 25)).keys() == {"error rate", "daily margin", "closed invoice runs"}
        await good(of)
        assert await closed(of, 0) == {}
        assert await closed(of, 5) == {}
        assert await closed(of, 25) == {"daily margin": "0.00 ×"}
        await write(of, credits.book_purchase, "id-acme", Payment("cs_0", "pi_0", 1000 * CENT))
        await write(of, earn, 400)
        assert await closed(of, 25) == {"daily margin": "4.00 ×"}
        await write(of, earn, 1)
        assert await closed(of, 25) == {}
        items = SOLD.model_copy(update={"collection": "invoice_items"})
        async with of.reading(whole=True) as connection:
            now = Charging("live", 5, frozenset(), True, None, None, BEGAN, 1)
            figures = await rollout_figures.fetch_figures(connection, now, NOW, items)
        assert figures.drift is None, "there are no sums where Stripe has no meters; its invoices were not compared"
        for percent, spoil, expected in BAD:
            async with of.writing() as connection, connection.begin_nested() as undo:
                await spoil(connection)
                now = Charging("live", percent, frozenset(), True, None, None, BEGAN, 1)
                figures = evaluate_gates(
                    percent, NEXT[percent], await rollout_figures.fetch_figures(connection, now, NOW, SOLD)
                )
                assert {gate.name: gate.figure for gate in figures if not gate.is_open} == expected
                await undo.rollback()


@pytest.mark.usefixtures("sqlite_with_threads")
async def test_answers_of_several_collectors_are_added_up(database: str) -> None:
    async with opened(database) as of:
        one, other = ResponseCounts(), ResponseCounts()
        for status in (200, 303, 401, 404, 429, 500, 503):
            one.record(status, NOW, is_known=True)
            other.record(status, NOW + HOUR, is_known=False)
        await asyncio.gather(one.write(of), other.write(of))
        await one.write(of)
        one.record(200, NOW, is_known=True)
        await one.write(of)
        async with of.reading() as connection:
            assert await fetch_since(connection, NOW) == (7, 4), "what is refused, or for anybody, hides no errors"
            assert await fetch_since(connection, NOW + HOUR) == (2, 2)
            assert await fetch_since(connection, NOW + 2 * HOUR) == (0, 0)


async def test_the_report_sets_shadow_beside_real(database: str) -> None:
    async with opened(database, "acme") as of:
        await good(of)
        async with of.writing() as connection:
            await connection.execute(sa.insert(invoices), [bill("third", "open")])
            await shadow_log.record_shadow(connection, "third", 400, NOW)
            await shadow_log.record_shadow(connection, "third", 999, NOW)  # Once only.
            await shadow_log.record_charged(connection, "third", 401, NOW)
            report = await shadow_log.fetch_report(connection, None, 10)
            only = await shadow_log.fetch_report(connection, "second", 10)
            await connection.execute(sa.insert(invoices), [{**bill("yen", "open"), "currency": "jpy"}])
            await shadow_log.record_shadow(connection, "yen", 7, NOW)
            in_two = await shadow_log.fetch_report(connection, None, 10)
        of_charged = {"charged": 2, "shadow_of_charged": 900, "real": 901, "different": 1}
        assert report["totals"] == [{"currency": "usd", "rated": 3, "shadow": 1400, **of_charged}]
        none = {"charged": 0, "shadow_of_charged": 0, "real": 0, "different": 0}
        assert in_two["totals"] == [{"currency": "jpy", "rated": 1, "shadow": 7, **none}, *report["totals"]]
        assert [(invoice["invoice"], invoice["shadow"], invoice["real"]) for invoice in report["invoices"]] == [
            ("third", 400, 401),
            ("first", 500, 500),
            ("second", 500, None),
        ]
        assert [(total["rated"], total["real"]) for total in only["totals"]] == [(1, 0)]
