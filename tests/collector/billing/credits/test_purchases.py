"""The payment service's events about purchases are booked once, in any order."""

from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.credits.purchases import (
    APPLIERS,
    CUSTOMER,
    REFUND,
    PurchaseResults,
    UnexpectedObjectError,
    find_results,
)
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.journal.verification import verify_journal
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.credit_tables import credit_transactions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.page_tables import contacts
from tests.support.credited import ALICE, opened, read, write

ACME = "id-acme"
OURS = {CUSTOMER: ACME}


def session(**also: Any) -> dict[str, Any]:
    body = {"object": "checkout.session", "id": "cs_1", "payment_status": "paid", "currency": "usd", "metadata": OURS}
    amounts = {"amount_total": 1190, "total_details": {"amount_tax": 190}, "payment_intent": "pi_1"}
    return {**body, **amounts, **also}


def charge(**also: Any) -> dict[str, Any]:
    body = {"object": "charge", "id": "ch_1", "payment_intent": {"id": "pi_1"}, "metadata": OURS}
    return {**body, **also}


@pytest.mark.parametrize(
    ("events", "purchase", "expected"),
    [
        (["checkout.session.completed"], session(), {"paid"}),
        (["checkout.session.completed"], session(payment_status="unpaid"), set()),
        (["checkout.session.completed", "checkout.session.async_payment_succeeded"], session(), {"paid"}),
        (["checkout.session.expired"], session(payment_status="unpaid"), {"expired"}),
        (["charge.failed"], charge(), {"failed"}),
        (["charge.succeeded", "charge.updated"], charge(), set()),
        (["charge.failed"], charge(metadata={}), set()),
    ],
)
def test_final_event_of_a_purchase_reports_its_result_once(
    events: list[str], purchase: dict[str, Any], expected: set[str]
) -> None:
    assert find_results(events, purchase) == expected


def test_delayed_payment_with_two_paid_events_is_counted_once() -> None:
    results = PurchaseResults()
    assert results.report(["checkout.session.completed"], session()) == {"paid"}
    assert results.report(["checkout.session.async_payment_succeeded"], session()) == set()
    assert results.report(["checkout.session.async_payment_succeeded"], session(id="cs_other")) == {"paid"}


def refund(status: str, **also: Any) -> dict[str, Any]:
    body = {"object": "refund", "id": "re_1", "status": status, "amount": 595, "payment_intent": "pi_1"}
    return {**body, "metadata": None, **also}


def dispute(*moved: tuple[str, int, int], **also: Any) -> dict[str, Any]:
    body = {"object": "dispute", "id": "dp_1", "payment_intent": "pi_1", "amount": 1190, "currency": "usd", **also}
    transactions = [{"id": id_, "amount": amount, "fee": fee} for id_, amount, fee in moved]
    return {**body, "balance_transactions": transactions}


async def apply(database: Database, *objects: dict[str, Any]) -> list[str]:
    """Have each of these applied, twice; the kinds that are booked by now."""
    for object_ in objects:
        for _ in range(2):
            await write(database, APPLIERS[object_["object"]], object_)
    return await kinds(database)


async def kinds(database: Database) -> list[str]:
    await read(database, verify_journal)
    async with database.reading() as connection:
        statement = sa.select(credit_transactions.c.kind).order_by(credit_transactions.c.seq)
        return list((await connection.execute(statement)).scalars())


WITHDRAWN, REINSTATED = ("txn_2", -1190, 1500), ("txn_3", 1190, 0)
UNBOOKED = {"id": "pi_1", "metadata": OURS}


@pytest.mark.parametrize(
    ("objects", "booked", "balance"),
    [
        ([session()], ["purchase"], 1000),
        ([session(total_details=None, payment_intent=None)], ["purchase"], 1190),
        ([session(payment_status="unpaid"), session(metadata={})], [], 0),
        ([session(), charge()], ["purchase"], 1000),
        ([charge(metadata={}), charge(payment_intent=None), refund("succeeded", payment_intent=None)], [], 0),
        ([refund("succeeded"), dispute(WITHDRAWN), dispute(payment_intent=None)], [], 0),  # Of something else.
        ([session(), refund("pending"), refund("succeeded")], ["purchase", "chargeback"], 500),
        ([session(), refund("failed")], ["purchase"], 1000),
        (
            [session(), refund("succeeded"), refund("failed")],
            ["purchase", "chargeback", "chargeback_won"],
            1000,
        ),
        ([session(), dispute()], ["purchase"], 1000),  # An inquiry.
        ([session(), dispute(WITHDRAWN)], ["purchase", "chargeback"], 0),
        (
            [session(), dispute(WITHDRAWN), dispute(WITHDRAWN, ("txn_4", 0, 100), REINSTATED)],
            ["purchase", "chargeback", "chargeback_won"],
            1000,
        ),
        # The account is settled in another currency: its movements have other amounts.
        ([session(), dispute(("txn_2", -1071, 1500), amount=595)], ["purchase", "chargeback"], 500),
        ([session(), refund("succeeded", metadata={REFUND: "unknown"})], ["purchase"], 1000),
    ],
)
async def test_each_stripe_object_books_its_postings(
    sqlite_database: str, objects: list[dict[str, Any]], booked: list[str], balance: int
) -> None:
    async with opened(sqlite_database, "acme") as database:
        assert await apply(database, *objects) == booked
        assert await read(database, journal.fetch_balance, ACME) == balance * CENT


async def test_title_of_a_payment_ends_with_the_name_so_that_an_arabic_one_moves_no_digits(
    sqlite_database: str,
) -> None:
    async with opened(sqlite_database, "متجر") as database:
        async with database.writing() as connection:
            contact = {"email": "ann@example.com", "customer": "id-متجر"}
            await connection.execute(sa.insert(contacts).values(contact))
        await apply(database, session(metadata={CUSTOMER: "id-متجر"}))
        async with database.reading() as connection:
            assert (await connection.execute(sa.select(alerts.c.title))).scalars().all() == ["11.90 USD paid by متجر"]


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (session(currency="eur"), "in eur, and the customer's credits are in usd"),
        (session(metadata={CUSTOMER: "nobody"}), "of nobody, which is no customer here"),
        (refund("succeeded", payment_intent=UNBOOKED), "re_1 is about pi_1, a purchase that is not booked yet"),
        (dispute(WITHDRAWN, payment_intent=UNBOOKED), "dp_1 is about pi_1, a purchase that is not booked yet"),
    ],
)
async def test_unbookable_stripe_object_raises_an_error_with_its_reason(
    sqlite_database: str, one: dict[str, Any], message: str
) -> None:
    async with opened(sqlite_database, "acme") as database:
        with pytest.raises(UnexpectedObjectError, match=message):
            await apply(database, one)
        assert await kinds(database) == []


async def test_a_dispute_in_another_currency_than_the_credits_is_not_booked(sqlite_database: str) -> None:
    async with opened(sqlite_database, "acme") as database:
        await apply(database, session())
        with pytest.raises(UnexpectedObjectError, match="dp_1 is in eur, and the credits of pi_1 are in usd"):
            await apply(database, dispute(WITHDRAWN, currency="eur"))
        assert await kinds(database) == ["purchase"]


async def test_stripe_result_settles_a_held_refund(database: str) -> None:
    async with opened(database, "acme") as there:
        await apply(there, session())
        await write(there, credits.hold_refund, ALICE, "cs_1", "r1", 500 * CENT, "asked")
        ours = {"metadata": {REFUND: "r1"}}
        assert await apply(there, refund("pending", **ours)) == ["purchase", "refund"]
        assert await apply(there, refund("succeeded", **ours)) == ["purchase", "refund", "refund_paid"]
        assert (await apply(there, refund("failed", **ours)))[-1] == "refund_failed"
        await write(there, credits.hold_refund, ALICE, "cs_1", "r2", 500 * CENT, "asked")
        assert (await apply(there, refund("canceled", metadata={REFUND: "r2"})))[-1] == "refund_failed"
        with pytest.raises(ChangeRejectedError, match="failed before"):
            await apply(there, refund("succeeded", metadata={REFUND: "r2"}))
        assert await read(there, journal.fetch_balance, ACME) == 1000 * CENT
