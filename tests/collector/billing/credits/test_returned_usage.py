"""Usage that is taken back: its credits return to their grants, and pay for other usage before these end."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.billing.credits import consumption, credits, returned_usage
from edgeproxy.collector.billing.credits.consumption import COMPLETE_SECONDS, CreditMeters
from edgeproxy.collector.billing.credits.credits import Payment
from edgeproxy.collector.billing.credits.paid_usage import list_paid_usage
from edgeproxy.collector.billing.credits.purchase_list import fetch_origins
from edgeproxy.collector.billing.credits.returned_usage import OVERDRAFT, Debts, PaidUse, UseMove
from edgeproxy.collector.billing.credits.statements import month_of
from edgeproxy.collector.billing.jobs.credits import CreditsJob
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.postings import CENT, CreditBalance, Grant
from edgeproxy.collector.billing.journal.verification import verify_journal
from edgeproxy.collector.database.credit_tables import credit_balances, credit_grants, credit_transactions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, HOUR, events
from edgeproxy.collector.ledger.queries import format_time
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.credits import Credits
from loadtest.testbed.batch_chains import NOON
from tests.support.credited import ALICE, count, opened, read, write

METERS = CreditMeters("cost")
ID = "id-acme"


class Shop:
    """A customer with credits, and a clock."""

    def __init__(self, database: Database) -> None:
        self.database, self.now = database, NOON
        self._minute = 0

    async def use(self, hour: int, amount: int, customer: str = "acme") -> None:
        """Count usage of an hour after NOON; a negative one as an event with a value below zero."""
        self._minute += 1
        if amount < 0:
            row = {"source": "s", "id": f"{self._minute}", "customer": customer, "meter": "cost", "is_dated": 1}
            async with self.database.writing() as connection:
                await connection.execute(sa.insert(events), [{**row, "value": amount, "time": NOON + hour * HOUR}])
        await count(self.database, NOON + hour * HOUR + self._minute * 60, (customer, "cost", amount, "m"))

    async def book_until(self, hour: int) -> None:
        """Book all hours before this one after NOON, and late or returned usage."""
        self.now = NOON + hour * HOUR + COMPLETE_SECONDS
        while await consumption.book_next_hour(self.database, METERS, self.now):
            pass
        await consumption.revise_days(self.database, METERS, [NOON // DAY * DAY])

    async def give(self, id_: str, amount: int, until: int | None) -> None:
        expires = None if until is None else (NOON + until * HOUR) * 1000
        await write(self.database, credits.book_gift, ALICE, ID, id_, amount, "x", expires)

    async def buy(self, id_: str, amount: int) -> None:
        await write(self.database, credits.book_purchase, ID, Payment(id_, f"intent-{id_}", amount))

    async def rests(self) -> dict[str, int]:
        """The rest of each grant, and the overdraft."""
        async with self.database.reading() as connection:
            grants = (await connection.execute(sa.select(credit_grants.c.id, credit_grants.c.rest))).all()
            owed = (await connection.execute(sa.select(credit_balances.c.overdraft))).scalar_one()
        return {row.id: row.rest for row in grants} | ({"owed": owed} if owed else {})


def play(url: str, monkeypatch: pytest.MonkeyPatch, work: Callable[[Shop], Any]) -> None:
    """Run `work` on a new database, and verify the journal."""

    async def do() -> None:
        async with opened(url, "acme") as database:
            shop = Shop(database)
            monkeypatch.setattr(journal, "now_ms", lambda: shop.now * 1000)
            await work(shop)
            await read(database, verify_journal)

    asyncio.run(do())


async def take_back_the_only_use(shop: Shop) -> None:
    await shop.give("g", 100, 1)
    await shop.use(0, 100)
    await shop.book_until(3)
    await shop.use(0, -60)


async def take_back_with_an_overdraft_of_later(shop: Shop) -> None:
    """The overdraft is of an hour after the end of the gift, so the returned credits do not pay it."""
    await shop.give("g", 100, 1)
    await shop.use(0, 100)
    await shop.use(1, 50)
    await shop.book_until(3)
    await shop.use(0, -60)


async def take_back_before_another_use(shop: Shop) -> None:
    await shop.give("g", 100, 3)
    await shop.buy("p", 1000)
    for hour in (0, 1, 3):
        await shop.use(hour, 80)
    await shop.book_until(5)
    await shop.use(0, -70)


async def take_back_through_two_gifts(shop: Shop) -> None:
    """The first gift pays for an hour of the second one, and that one for an hour of the purchase."""
    await shop.give("g", 100, 2)
    await shop.give("h", 100, 3)
    await shop.buy("p", 1000)
    for hour in (0, 1, 2, 3):
        await shop.use(hour, 100)
    await shop.book_until(5)
    await shop.use(0, -90)


async def take_back_with_a_gift_that_goes_on(shop: Shop) -> None:
    await shop.give("g", 100, 9)
    await shop.buy("p", 1000)
    for hour in (0, 1):
        await shop.use(hour, 80)
    await shop.book_until(3)
    await shop.use(0, -80)


async def take_back_an_overdraft_that_a_purchase_paid(shop: Shop) -> None:
    """The usage was an overdraft, and the next purchase paid it."""
    await shop.give("g", 10, 1)
    await shop.use(0, 60)
    await shop.book_until(1)
    await shop.buy("p", 1000)
    await shop.book_until(2)
    await shop.use(0, -55)


async def take_back_from_an_hour_before(shop: Shop) -> None:
    """A service reports the value below zero without a time, so it counts in a later hour."""
    await shop.buy("p", 1000)
    for hour in (0, 1):
        await shop.use(hour, 100)
    await shop.book_until(2)
    await shop.use(4, -130)
    await shop.book_until(5)
    await shop.use(2, 20)


async def take_back_more_than_was_used(shop: Shop) -> None:
    await shop.buy("p", 1000)
    await shop.use(1, 100)
    await shop.use(0, -500)
    await shop.use(2, -300)
    await shop.book_until(3)
    await shop.use(3, 7)


async def take_back_after_a_chargeback(shop: Shop) -> None:
    """Without the usage, the chargeback would have taken the rest of its purchase."""
    await shop.give("g", 50, 1)
    await shop.give("h", 100, 9)
    await shop.buy("p", CENT)
    await shop.use(0, 150 + CENT)
    await shop.book_until(2)
    await write(shop.database, credits.book_chargeback, "intent-p", "dispute", CENT)
    assert await shop.rests() == {"g": 0, "h": 0, "p": 0, "owed": CENT}
    await shop.use(0, -(CENT + 130))


RESTS: dict[Callable[[Shop], Any], dict[str, int]] = {
    take_back_the_only_use: {"g": 0},
    take_back_with_an_overdraft_of_later: {"g": 0, "owed": 50},
    take_back_before_another_use: {"g": 0, "p": 1000 - 80},
    take_back_through_two_gifts: {"g": 0, "h": 0, "p": 1000 - 110},
    take_back_with_a_gift_that_goes_on: {"g": 20, "p": 1000},
    take_back_an_overdraft_that_a_purchase_paid: {"g": 0, "p": 1000},
    take_back_from_an_hour_before: {"p": 1000 - 90},
    take_back_more_than_was_used: {"p": 1000 - 7},
    take_back_after_a_chargeback: {"g": 0, "h": 100, "p": 0},
}


@pytest.mark.parametrize("take_back", RESTS, ids=lambda one: one.__name__)
def test_returned_credits_are_as_if_the_usage_had_never_been(
    database: str, monkeypatch: pytest.MonkeyPatch, take_back: Callable[[Shop], Any]
) -> None:
    async def work(shop: Shop) -> None:
        await take_back(shop)
        await shop.book_until(6)
        await shop.book_until(7)
        assert await shop.rests() == RESTS[take_back]

    play(database, monkeypatch, work)


def test_moved_usage_has_its_new_payer_in_the_list_of_paid_usage(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(shop: Shop) -> None:
        await take_back_before_another_use(shop)
        await shop.book_until(6)
        month = month_of(shop.now * 1000)
        async with shop.database.reading() as connection:
            rows = await list_paid_usage(connection, ID, month, limit=50)
        paid: dict[tuple[str, str], int] = {}
        for row in rows:
            name = row.consumption.split("/")[1][11:13], row.purchase
            paid[name] = paid.get(name, 0) + row.amount
        assert {name: amount for name, amount in paid.items() if amount} == {
            ("12", "g"): 10,
            ("13", "g"): 80,
            ("15", "p"): 80,
        }
        assert {row.seq for row in rows if row.slice < 0} == set(), "each part has the hour of its usage"

    play(database, monkeypatch, work)


def test_reversal_by_an_operator_follows_moved_usage(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(shop: Shop) -> None:
        await take_back_with_a_gift_that_goes_on(shop)
        await shop.book_until(6)
        columns = credit_transactions.c
        latest = sa.select(columns.source).where(columns.kind == "consumption").order_by(columns.seq.desc()).limit(1)
        async with shop.database.reading() as connection:
            source = (await connection.execute(latest)).scalar_one()
        await write(shop.database, credits.book_usage_refund, ALICE, source, "r", 80, "x")
        assert await shop.rests() == {"g": 100, "p": 1000}
        await shop.use(1, -80)
        await shop.use(1, -80, "nobody")
        await shop.book_until(7)
        assert await shop.rests() == {"g": 100, "p": 1000}, "nothing returns twice, or to a name that has no credits"

    play(database, monkeypatch, work)


@pytest.mark.both_databases
def test_corrections_of_other_meters_and_hours_return_nothing(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger has less than the journal for another reason, for example deleted minutes."""

    async def work(shop: Shop) -> None:
        await shop.buy("p", 1000)
        await shop.use(0, 100)
        await shop.book_until(1)
        await count(shop.database, NOON + 1800, ("acme", "cost", -100, "m"))
        row = {"source": "s", "customer": "acme", "meter": "cost", "is_dated": 1, "value": -100, "time": NOON}
        others = [
            {**row, "id": "meter", "meter": "tokens"},
            {**row, "id": "marked", "meter": "tokens", "is_summed": 2},
            {**row, "id": "later", "time": NOON + HOUR},
            {**row, "id": "earlier", "time": NOON - HOUR},
        ]
        async with shop.database.writing() as connection:
            await connection.execute(sa.insert(events), [{"is_summed": 1, **other} for other in others])
        await shop.book_until(1)
        assert await shop.rests() == {"p": 900}

    play(database, monkeypatch, work)


def test_credits_of_no_grant_become_a_gift(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator reversed other usage, and its credits paid the overdraft."""

    async def work(shop: Shop) -> None:
        await shop.give("g", 100, 1)
        await shop.use(0, 100)
        await shop.use(1, 50)
        await shop.book_until(2)
        source = f"{ID}/{format_time(NOON)}/0"
        await write(shop.database, credits.book_usage_refund, ALICE, source, "r", 50, "x")
        assert await shop.rests() == {"g": 0}
        await shop.use(1, -50)
        await shop.use(2, -70)
        await shop.book_until(6)
        gift = f"{ID}/{format_time(NOON + HOUR)}/0/returned/50"
        assert await shop.rests() == {"g": 0, gift: 50}, "the credits of the first hour have expired"
        (origin,) = (await read(shop.database, fetch_origins, ID)).values()
        assert (origin.kind, origin.granted) == ("gift", 50), "the credits come from no other residency"

    play(database, monkeypatch, work)


def test_overdraft_belongs_to_the_latest_usage_and_grants_paid_the_usage_before_them() -> None:
    uses = [
        PaidUse("a", 0, 1, {OVERDRAFT: 50}),
        PaidUse("b", 1, 3, {OVERDRAFT: 30, "g": 40}),
        PaidUse("c", 2, 5, {OVERDRAFT: 20}),
    ]
    grants = [Grant("g", 0), Grant("h", 0)]
    attributed = returned_usage.attribute_uses(uses, grants, {"g": 2, "h": 4}, Debts(25, {"g": 45, "h": 25}))
    assert [use.payers for use in attributed] == [
        {OVERDRAFT: 5, "g": 45},
        {OVERDRAFT: 5, "g": 40, "h": 25},
        {OVERDRAFT: 20},
    ]
    # A grant that got back a former overdraft has a negative amount.
    refunded = [PaidUse("a", 0, 1, {OVERDRAFT: 50, "g": -20})]
    (use,) = returned_usage.attribute_uses(refunded, grants, {"g": 2, "h": 4}, Debts(0, {"g": 45}))
    assert use.payers == {OVERDRAFT: 0, "g": 30}


def test_grant_pays_for_no_usage_that_was_booked_before_it() -> None:
    grants = (Grant("p", 0, paid=CENT), Grant("g", 30, (NOON + 9 * HOUR) * 1000))
    uses = [PaidUse("a", NOON, 2, {"p": 10}), PaidUse("b", NOON + HOUR, 4, {"p": 10, OVERDRAFT: 5})]
    moves = list(returned_usage.list_moves(CreditBalance(grants, 3), uses, {"p": 1, "g": 3}, {"g": 30}))
    assert moves == [UseMove(uses[1], OVERDRAFT, "g", 3), UseMove(uses[1], "p", "g", 10)]


def test_hour_below_zero_takes_back_the_latest_usage_before_it() -> None:
    assert consumption.compute_reductions({0: -5, 1: 10, 2: 20, 3: -25, 4: 7, 5: -3, 6: -100}) == {1: 10, 2: 20, 4: 7}
    assert consumption.compute_reductions({1: 10, 2: 20, 3: -15}) == {2: 15}


def test_hour_below_zero_returns_credits_in_the_round_that_books_it(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(shop: Shop) -> None:
        job = CreditsJob(shop.database, lambda: Billing(plans=Path("plans.yaml"), credits=Credits(meter="cost")), None)
        await shop.buy("p", 1000)
        await shop.use(0, 100)
        await shop.use(1, -60)
        for hour, rest in ((1, 900), (2, 960)):
            shop.now = NOON + hour * HOUR + COMPLETE_SECONDS
            await job.step(shop.now)
            assert await shop.rests() == {"p": rest}

    play(database, monkeypatch, work)
