"""The outbox against Stripe's sums: the compared days and pairs, and the result of a difference."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.meter_export import metered_segments, outbox_rows
from edgeproxy.collector.billing.meter_export.exporter import MeterEventsUnavailableError, MeterEventsUnlistedError
from edgeproxy.collector.billing.meter_export.meter_events import StripeMeterEvents
from edgeproxy.collector.billing.meter_export.outbox import Answer, RowState
from edgeproxy.collector.billing.meter_export.outbox_rows import new_row
from edgeproxy.collector.billing.mismatch import Comparison, Drift, Level
from edgeproxy.collector.billing.period_close.collection.invoice_items import InvoiceMismatchError
from edgeproxy.collector.billing.period_close.collection.meters import (
    SETTLED_TRIES,
    InvoiceNotReadyError,
    MeteredInvoices,
)
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.reconciliation import sampling, usage
from edgeproxy.collector.billing.stripe.client import CallOutcome, StripeCallError
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, HOUR
from tests.support.credited import opened

MONDAY = 20_000 * DAY
NOON = 12 * HOUR


class Sums:
    """Stripe's sums as a table; each read is noted."""

    skew = 0.0
    customers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, counted: Mapping[tuple[str, str, int], int], fails: int = 0) -> None:
        self.counted_of = counted
        self.fails = fails
        self.reads: list[tuple[str, str, int]] = []

    async def send(self, row: outbox_rows.OutboxRow) -> Answer:
        raise AssertionError

    async def learn_names(self, customers: Mapping[str, str]) -> None:
        pass

    async def fetch_sum(self, customer: str, meter: str, span: Span) -> int:
        if self.fails:
            self.fails -= 1
            raise MeterEventsUnavailableError("no answer")
        self.reads.append((customer, meter, span.start))
        if customer == "gone":
            raise MeterEventsUnlistedError(customer)
        return self.counted_of.get((customer, meter, span.start), 0)


async def put(database: Database, *rows: tuple[str, str, int, int, RowState]) -> None:
    """Have rows in the outbox: customer, meter, slice, value, state."""
    async with database.writing() as connection:
        made = [
            new_row("acct", (name, meter, at, 0), at + HOUR, 0, value)._replace(state=state)
            for name, meter, at, value, state in rows
        ]
        await outbox_rows.insert_rows(connection, made, 0)


async def at_once(_: float) -> None:
    """A pause that takes no time."""


def play(url: str, work: Callable[[Database], Awaitable[None]]) -> None:
    async def do() -> None:
        async with opened(url) as database:
            await work(database)

    asyncio.run(do())


async def fetch_recorded(database: Database) -> list[dict[str, Any]]:
    async with database.reading() as connection:
        return await discrepancies.list_reconciliations(connection, "B", 100)


async def raised(database: Database) -> list[tuple[str, str]]:
    async with database.reading() as connection:
        rows = await connection.execute(sa.select(alerts.c.severity, alerts.c.title).order_by(alerts.c.id))
        return [(row[0], row[1]) for row in rows]


@pytest.mark.both_databases
def test_each_day_is_reconciled_once_and_doubtful_days_again(database: str) -> None:
    async def work(of: Database) -> None:
        accepted, unknown = RowState.ACCEPTED, RowState.UNKNOWN
        await put(
            of,
            ("acme", "tokens", MONDAY + NOON, 500, accepted),
            ("acme", "tokens", MONDAY + NOON + HOUR, 7, unknown),
            ("bolt", "tokens", MONDAY, 90, RowState.WAIVED),
            ("cora", "calls", MONDAY + DAY, 40, accepted),
        )
        stripe = Sums({("acme", "tokens", MONDAY): 500, ("cora", "calls", MONDAY + DAY): 40})
        early = MONDAY + DAY + 2 * HOUR - 1
        assert await usage.reconcile_days(of, stripe, early, pause=at_once) == 1, "the day before, which is empty"
        assert stripe.reads == []
        assert await usage.reconcile_days(of, stripe, early + 1, pause=at_once) == 1
        assert await usage.reconcile_days(of, stripe, early + 2, pause=at_once) == 0
        # The row with an unknown outcome was not counted.
        assert {row.state for row in await rows_of(of, "acme")} == {RowState.CONFIRMED, unknown}
        assert await usage.reconcile_days(of, stripe, MONDAY + 4 * DAY + 2 * HOUR, pause=at_once) == 3
        assert set(stripe.reads) == {("acme", "tokens", MONDAY), ("cora", "calls", MONDAY + DAY)}
        assert stripe.reads.count(("acme", "tokens", MONDAY)) == 4, "once for its day, then each day while in doubt"
        assert [row.state for row in await rows_of(of, "cora")] == [RowState.CONFIRMED]
        recorded = await fetch_recorded(of)
        days = {one["since"] for one in recorded}
        assert len(days) == 5, "each day has one"
        assert {one["level"] for one in recorded} == {"none"}
        assert await raised(of) == []

    play(database, work)


async def rows_of(database: Database, customer: str) -> list[outbox_rows.OutboxRow]:
    async with database.reading() as connection:
        return await outbox_rows.select_rows(connection, outbox_rows.columns.customer == customer)


@pytest.mark.parametrize(("lacking", "severity"), [(0, None), (1, None), (2, "warn"), (20, "page")])
def test_a_difference_is_named_by_customer_and_meter(sqlite_database: str, lacking: int, severity: str | None) -> None:
    """Of 10,000 units 2 are 0.02 %, and 20 are 0.2 %."""

    async def work(of: Database) -> None:
        await put(
            of,
            ("acme", "calls", MONDAY, 4_000, RowState.ACCEPTED),
            ("bolt", "calls", MONDAY, 6_000, RowState.ACCEPTED),
            ("bolt", "tokens", MONDAY, 10**9, RowState.ACCEPTED),
        )
        expected = {
            ("acme", "calls", MONDAY): 4_000,
            ("bolt", "calls", MONDAY): 6_000 - lacking,
            ("bolt", "tokens", MONDAY): 10**9,
        }
        drift, level = await usage.reconcile_span(of, Sums(expected), Span(MONDAY, MONDAY + DAY), 0, pause=at_once)
        assert drift == Drift(3, 10**9 + 10_000, lacking)
        assert level == Level(severity or "none")
        (one,) = await fetch_recorded(of)
        assert one["meters"] == {"calls": lacking / 10_000, "tokens": 0.0}
        raised_alerts = await raised(of)
        if severity is None:
            assert raised_alerts == []
        else:
            ratio = f"{100 * lacking / 10_000:.4f} %"
            title = f"The outbox and Stripe's sums are {ratio} apart: bolt calls -{lacking}"
            assert raised_alerts == [(severity, title)]
        if lacking:
            assert [(row["customer"], row["meter"], row["ours"], row["theirs"]) for row in one["rows"]] == [
                ("bolt", "calls", 6_000, 6_000 - lacking)
            ]
            assert str(lacking) in one["rows"][0]["action"]
            assert [row.state for row in await rows_of(of, "bolt")] == [RowState.ACCEPTED, RowState.CONFIRMED]
        async with of.reading() as connection:
            assert (await discrepancies.fetch_ratios(connection))["B", "calls"] == lacking / 10_000
            gate = await discrepancies.find_drift_since(connection, "B", 0)
            assert gate == (Drift(2, 10_000, lacking) if lacking else Drift(2, 10_000, 0))

    play(sqlite_database, work)


def test_customer_missing_at_stripe_is_a_difference_and_others_are_compared(sqlite_database: str) -> None:
    async def work(of: Database) -> None:
        await put(of, ("gone", "calls", MONDAY, 5, RowState.ACCEPTED), ("acme", "calls", MONDAY, 9, RowState.ACCEPTED))
        stripe = Sums({("acme", "calls", MONDAY): 9}, fails=2)
        await usage.reconcile_span(of, stripe, Span(MONDAY, MONDAY + DAY), 0, pause=at_once)
        (one,) = await fetch_recorded(of)
        assert [(row["customer"], row["theirs"]) for row in one["rows"]] == [("gone", 0)]
        assert [row.state for row in await rows_of(of, "acme")] == [RowState.CONFIRMED]
        stripe.fails = 1000
        with pytest.raises(MeterEventsUnavailableError):
            await usage.reconcile_span(of, stripe, Span(MONDAY, MONDAY + DAY), 1, pause=at_once)
        assert len(await fetch_recorded(of)) == 1, "nothing is kept of a time that was not compared"

    play(sqlite_database, work)


def test_of_more_pairs_than_can_be_read_those_in_doubt_are(
    sqlite_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "PAIRS_MAX", 3)
    monkeypatch.setattr(usage, "READ_RATE", 1e6)

    async def work(of: Database) -> None:
        names = [f"customer-{number}" for number in range(40)]
        rows = [(name, "calls", MONDAY, 1, RowState.CONFIRMED) for name in names]
        await put(of, *rows, ("doubtful", "calls", MONDAY, 1, RowState.ACCEPTED))
        stripe = Sums({(name, "calls", MONDAY): 1 for name in [*names, "doubtful"]})
        await usage.reconcile_span(of, stripe, Span(MONDAY, MONDAY + DAY), 0, pause=at_once)
        assert ("doubtful", "calls", MONDAY) in stripe.reads
        assert 1 < len(stripe.reads) < 25

    play(sqlite_database, work)


def test_matching_invoices_form_one_reconciliation_a_day(database: str) -> None:
    async def work(of: Database) -> None:
        day = Span(MONDAY, MONDAY + DAY)
        for name, theirs in (("acme", 100), ("bolt", 200), ("cora", 299), ("dora", 400)):
            ours = 300 if name == "cora" else theirs
            async with of.writing() as connection:
                await discrepancies.add_to_reconciliation(
                    connection, "C", day, [Comparison(name, "invoice", ours, theirs)], MONDAY
                )
        async with of.reading() as connection:
            listed = await discrepancies.list_reconciliations(connection, "C", 10)
        assert sorted(
            (reconciliation["compared"], reconciliation["units"], reconciliation["level"]) for reconciliation in listed
        ) == [
            (1, 300, "page"),
            (3, 700, "none"),
        ]
        assert [severity for severity, _ in await raised(of)] == ["page"]

    play(database, work)


def test_invoice_difference_has_both_usage_counts(sqlite_database: str) -> None:
    async def work(of: Database) -> None:
        accepted = RowState.ACCEPTED
        await put(of, ("acme", "calls", MONDAY, 40, accepted), ("acme", "tokens", MONDAY, 500, accepted))
        segment = SimpleNamespace(start=0, end=MONDAY + DAY, counted_from=0)
        unused: Any = None
        collection = MeteredInvoices(of, unused, unused)
        stripe = Sums({("acme", "calls", 0): 40, ("acme", "tokens", 0): 497})
        collection._events = stripe  # type: ignore[assignment]
        early = SimpleNamespace(name="acme", failures=SETTLED_TRIES - 1, accepted_why=None)
        with pytest.raises(InvoiceNotReadyError):
            await collection._fetch_counted(early, [segment])
        late = SimpleNamespace(name="acme", failures=SETTLED_TRIES, accepted_why=None)
        with pytest.raises(InvoiceMismatchError) as no:
            await collection._fetch_counted(late, [segment])
        assert no.value.rows == [Comparison("acme", "tokens in units", 500, 497)]
        taken = SimpleNamespace(name="acme", failures=SETTLED_TRIES, accepted_why="three tokens are no matter")
        assert await collection._fetch_counted(taken, [segment]) == {(0, "calls"): 40, (0, "tokens"): 500}
        assert {row.state for row in await rows_of(of, "acme")} == {accepted}, "not before all agree"
        stripe.counted_of = {**stripe.counted_of, ("acme", "tokens", 0): 500}
        assert await collection._fetch_counted(late, [segment]) == {(0, "calls"): 40, (0, "tokens"): 500}
        assert {row.state for row in await rows_of(of, "acme")} == {RowState.CONFIRMED}

    play(sqlite_database, work)


def test_invoices_that_are_closed_at_the_same_time_know_each_its_customer(
    sqlite_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        def __init__(self) -> None:
            self.both = asyncio.Barrier(2)

        async def list_all(self, name: str, *ids: str, **params: Any) -> list[dict[str, Any]]:
            if name == "v1.billing.meters.list":
                await asyncio.wait_for(self.both.wait(), 60)
                return [{"id": "mtr_1", "event_name": "edgeproxy_calls"}]
            return [{"aggregated_value": 40}]

    async def payers(_: object, names: list[str]) -> dict[str, str]:
        return {name: f"cus_{name}" for name in names}

    async def work(of: Database) -> None:
        monkeypatch.setattr(metered_segments, "fetch_stripe_ids", payers)
        await put(of, *((name, "calls", MONDAY, 40, RowState.ACCEPTED) for name in ("acme", "bolt")))
        segment = SimpleNamespace(start=0, end=MONDAY + DAY, counted_from=0)
        stripe: Any = Slow()
        unused: Any = None
        collection = MeteredInvoices(of, stripe, unused)
        rows = [SimpleNamespace(name=name, failures=0) for name in ("acme", "bolt")]
        sums = await asyncio.gather(*(collection._fetch_counted(row, [segment]) for row in rows))
        assert sums == [{(0, "calls"): 40}] * 2

    play(sqlite_database, work)


def test_customer_deleted_at_stripe_is_not_an_outage() -> None:
    class Gone:
        async def list_all(self, name: str, *ids: str, **params: Any) -> list[dict[str, Any]]:
            raise StripeCallError(CallOutcome.REFUSED, "No such customer", status=400, code="resource_missing")

    stripe: Any = Gone()
    events = StripeMeterEvents(stripe)
    events.customers, events.meters = {"acme": "cus_1"}, {"tokens": "mtr_1"}
    with pytest.raises(MeterEventsUnlistedError):
        asyncio.run(events.fetch_sum("acme", "tokens", Span(0, 60)))
