"""Corrections take back reported usage: totals, permission, audit records and refusals."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.billing.credits import consumption, credits
from edgeproxy.collector.billing.credits.consumption import COMPLETE_SECONDS, CreditMeters
from edgeproxy.collector.billing.invoices.invoiced_usage import find_invoiced
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.verification import verify_journal
from edgeproxy.collector.database.schema import DAY, HOUR, audit
from edgeproxy.collector.events.event import InvalidEventError, UsageEvent, parse_event
from edgeproxy.collector.events.event_writer import CHAIN_MAX, EventRequest, EventWriter, Receipt
from edgeproxy.collector.ledger import known_names, queries
from edgeproxy.collector.ledger.known_names import KnownNames
from edgeproxy.collector.ledger.quantity import fetch_quantities
from edgeproxy.collector.ledger.queries import LedgerQuery
from edgeproxy.collector.ledger.verification import verify_ledger
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.meters import Meter
from loadtest.testbed.batch_chains import NOON
from tests.support.books import Books, Clock, clock
from tests.support.credited import ALICE, read, with_customers, write

__all__ = ["clock"]

CALLER = Caller("worker", "192.0.2.1", "request-1")


class Reporter:
    """A service that reports events to a writer, with or without the right to take usage back."""

    def __init__(self, books: Books, writer: EventWriter) -> None:
        self.books, self.database, self._writer = books, books.database, writer
        self._last = 0

    async def send(self, *events: UsageEvent, may_correct: bool = True) -> Receipt:
        caller = CALLER if may_correct else None
        return await self._writer.write_events(EventRequest("worker", list(enumerate(events)), (), caller=caller))

    def event(self, value: int, *, at: int = NOON, meter: str = "cost", **fields: Any) -> UsageEvent:
        self._last += 1
        return UsageEvent("s", f"e{self._last}", "acme", meter, value, at)._replace(**fields)

    async def total(self, meter: str = "cost") -> int:
        async with self.database.reading(whole=True) as connection:
            found = await queries.fetch_usage(
                connection, LedgerQuery("acme", meter, NOON - DAY, NOON + DAY, ("meter",))
            )
        return sum(row["value"] for row in found["rows"])

    async def verify(self) -> None:
        await verify_ledger(self.database)


def run(url: str, clock: Clock, work: Callable[[Reporter], Awaitable[None]], find: Any = find_invoiced) -> None:
    async def do() -> None:
        books = await Books.open(url, clock)
        metrics = Metrics()
        writer = EventWriter(books.database, KnownNames((), (), metrics), metrics, find_invoiced=find)
        running = asyncio.get_running_loop().create_task(writer.run())
        try:
            await with_customers(books.database, "acme")
            await work(Reporter(books, writer))
        finally:
            writer.end()
            await running
            await books.close()

    asyncio.run(do())


@pytest.mark.both_databases
def test_replacement_counts_instead_of_its_event_before_and_after_rollup(database: str, clock: Clock) -> None:
    async def work(of: Reporter) -> None:
        wrong = of.event(100, dimensions='{"model":"m1"}')
        await of.send(wrong, of.event(7))
        right = of.event(40, at=NOON + 60, replaces=wrong.id)
        assert (await of.send(right)).accepted == 1
        assert await of.total() == 47
        assert (await of.send(right)).duplicates == (await of.send(wrong)).duplicates == 1, "each counts once"
        clock.now = NOON + 2 * HOUR
        await of.books.roll_up()
        nothing = of.event(0, at=NOON + 60, replaces=right.id)
        minus = of.event(-5)
        assert (await of.send(nothing, minus)).accepted == 2
        assert await of.total() == 2
        await of.verify()
        async with of.database.reading() as connection:
            rows = (await connection.execute(sa.select(audit.c.action, audit.c.before, audit.c.after))).all()
        assert [row.action for row in rows] == ["usage.correct"] * 3
        assert '"value":100' in rows[0].before
        assert '"value":40' in rows[0].after
        assert rows[2].before is None

    run(database, clock, work)


def test_invalid_and_repeated_corrections_are_refused(database: str, clock: Clock) -> None:
    async def is_invoiced(_: AsyncConnection, uses: Any) -> set[tuple[str, int]]:
        return {use for use in uses if use[1] < NOON}

    async def work(of: Reporter) -> None:
        first, old, level = of.event(10), of.event(20, at=NOON - HOUR), of.event(3, meter="seats", is_summed=False)
        await of.send(first, old, level)
        replaces = of.event(1, replaces=first.id)
        for event, may_correct, why in (
            (replaces, False, "sensitive: true"),
            (of.event(-1), False, "sensitive: true"),
            (of.event(1, replaces="none"), True, "no such event"),
            (of.event(1, replaces=level.id), True, "another customer or meter"),
            (of.event(1, replaces=old.id), True, "closed invoice"),
            (of.event(-1, at=NOON - 1), True, "closed invoice"),
        ):
            receipt = await of.send(event, may_correct=may_correct)
            assert receipt.accepted == 0
            assert why in receipt.rejected[0].error
        receipt = await of.send(replaces, of.event(2, replaces=first.id))
        assert (receipt.accepted, "taken back before" in receipt.rejected[0].error) == (1, True)
        assert await of.total() == 21
        await of.verify()

    run(database, clock, work, is_invoiced)


@pytest.mark.both_databases
def test_events_and_corrections_of_one_request_apply_in_sequence(database: str, clock: Clock) -> None:
    async def work(of: Reporter) -> None:
        wrong = of.event(100)
        better = of.event(60, replaces=wrong.id)
        right = of.event(40, replaces=better.id)
        for order in ((right, wrong, better), (wrong, better, right)):
            receipt = await of.send(*order)
            assert not receipt.rejected
            assert await of.total() == 40
        assert receipt.duplicates == 3, "sent again"
        level, lower = (of.event(value, meter="seats", is_summed=False) for value in (1000, 5))
        receipts = await asyncio.gather(of.send(level), of.send(lower._replace(replaces=level.id)))
        assert [receipt.accepted for receipt in receipts] == [1, 1]
        async with of.database.reading(whole=True) as connection:
            assert await fetch_quantities(connection, "acme", "seats", NOON - 60, NOON + 60, aggregate="max") == {"": 5}
        other = of.event(7)
        receipt = await of.send(other, of.event(1, replaces=other.id), may_correct=False)
        assert (receipt.accepted, "sensitive: true" in receipt.rejected[0].error) == (1, True)
        await of.verify()

    run(database, clock, work)


@pytest.mark.parametrize("number", [1, 2, CHAIN_MAX - 1])
def test_circular_corrections_are_refused_and_chains_are_bounded(database: str, clock: Clock, number: int) -> None:
    async def work(of: Reporter) -> None:
        events = [of.event(1) for _ in range(number)]
        circle = [event._replace(replaces=events[at - 1].id) for at, event in enumerate(events)]
        assert (await of.send(*circle)).accepted == 0
        chain = [of.event(1)]
        for _ in range(number):
            chain.append(of.event(1, replaces=chain[-1].id))
        assert (await of.send(*chain)).accepted == number + 1
        assert await of.total() == 1, "the last one counts"
        long = [of.event(1)]
        for _ in range(2 * CHAIN_MAX):
            long.append(of.event(1, replaces=long[-1].id))
        assert 0 < len((await of.send(*long)).rejected) <= CHAIN_MAX, "a chain ends"
        assert await of.total() == 2

    run(database, clock, work)


def test_corrected_level_is_not_the_peak(database: str, clock: Clock) -> None:
    async def work(of: Reporter) -> None:
        high, low = (of.event(value, meter="seats", is_summed=False) for value in (1000, 5))
        await of.send(high, low)
        await of.send(of.event(7, meter="seats", is_summed=False, replaces=high.id))
        async with of.database.reading(whole=True) as connection:
            peak = await fetch_quantities(connection, "acme", "seats", NOON - 60, NOON + 60, aggregate="max")
        assert peak == {"": 7}
        await of.verify()

    run(database, clock, work)


def test_correction_returns_the_credits_of_the_usage(
    database: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "now_ms", lambda: int(clock.now * 1000))
    meters = CreditMeters("cost")

    async def work(of: Reporter) -> None:
        clock.now = NOON
        await write(of.database, credits.book_gift, ALICE, "id-acme", "g", 100, "welcome", None)
        wrong = of.event(60, at=NOON + 60)
        await of.send(wrong, of.event(10, at=NOON + 60))
        clock.now = NOON + HOUR + COMPLETE_SECONDS
        while await consumption.book_next_hour(of.database, meters, clock.now):
            pass
        assert await read(of.database, journal.fetch_balance, "id-acme") == 30
        await of.send(of.event(20, at=NOON + 60, replaces=wrong.id))
        for revised in (1, 0):
            assert await consumption.revise_days(of.database, meters, [NOON // DAY * DAY]) == revised
        assert await read(of.database, journal.fetch_balance, "id-acme") == 70
        await of.send(of.event(5, at=NOON + 120))
        for revised in (1, 0):
            assert await consumption.revise_days(of.database, meters, [NOON // DAY * DAY]) == revised
        assert await read(of.database, journal.fetch_balance, "id-acme") == 65
        await read(of.database, verify_journal)

    run(database, clock, work)


@pytest.mark.parametrize(
    ("text", "second"),
    [("2026-12-31T23:59:60Z", 1_798_761_599), ("2026-12-31T15:59:60.5-08:00", 1_798_761_599)],
)
def test_leap_second_counts_in_the_day_that_ends(text: str, second: int) -> None:
    body = {"id": "1", "source": "s", "customer": "acme", "meter": "cost", "value": 1, "time": text}
    assert parse_event(body, {"cost": Meter(count="events")}, 1_798_761_700).time == second
    with pytest.raises(InvalidEventError, match="is not a time"):
        parse_event({**body, "time": "2026-12-31T12:30:60Z"}, {"cost": Meter(count="events")}, 1_798_761_700)


def test_customers_that_remain_unknown_raise_one_alert(monkeypatch: pytest.MonkeyPatch) -> None:
    alerts: list[Any] = []
    now = 1000.0
    monkeypatch.setattr(known_names.time, "monotonic", lambda: now)

    async def note(alert: Any) -> None:
        alerts.append(alert)

    async def work() -> None:
        nonlocal now
        customers = {"acme"}

        async def find(names: Any) -> set[str]:
            return customers & set(names)

        names = KnownNames((), ("cost",), Metrics(), find, note)
        await names.record_names(["acme", "acmee", "late"], ["cost"])
        await names.refresh_unknown()
        customers.add("late")
        now += known_names.ALERT_SECONDS
        for _ in range(2):
            await names.refresh_unknown()
        assert [alert.details for alert in alerts] == [{"names": ["acmee"], "more": 0}]

    asyncio.run(work())
    assert time.monotonic() == now
