"""What the payment service tells of purchases of credits, booked: its objects as they are when they are fetched.

Each function is idempotent, and takes an object in whatever state it is. What is not about credits is passed by.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.credits.credits import Payment
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.database.credit_tables import credit_grants
from edgeproxy.collector.database.schema import customers

CUSTOMER = "edgeproxy_credits"
"""The metadata of a checkout session, and of its payment, that says whose credits are bought: the customer's id."""
REFUND = "edgeproxy_refund"
"""The metadata of a refund that was held here: its id."""
FAILED = frozenset({"failed", "canceled"})

Object = Mapping[str, Any]
Result = Literal["paid", "failed", "expired"]
RESULTS: Mapping[str, Result] = {
    "checkout.session.completed": "paid",
    "checkout.session.async_payment_succeeded": "paid",
    "checkout.session.async_payment_failed": "failed",
    "charge.failed": "failed",
    "checkout.session.expired": "expired",
}
"""What came of a purchase of credits, by the event that tells of it."""


class Unexpected(Exception):
    """An object cannot be booked as it is: a sentence for who looks at it. To apply it later may do."""


def results(events: Iterable[str], found: Object) -> set[Result]:
    """What came of a purchase, as events of these types tell of their object; nothing where it is no purchase."""
    if CUSTOMER not in _metadata(found):
        return set()
    told = {RESULTS[event] for event in events if event in RESULTS}
    return told if found.get("payment_status", "paid") == "paid" else told - {"paid"}


async def apply_session(connection: AsyncConnection, session: Object) -> None:
    """Book a checkout session once it is paid; raises Unexpected."""
    customer = _metadata(session).get(CUSTOMER)
    if customer is None or session.get("payment_status") != "paid":
        return
    if session["currency"] != "usd":
        raise Unexpected(
            f"the checkout session {session['id']} is in {session['currency']}, and credits are sold in usd"
        )
    known = sa.select(customers.c.id).where(customers.c.id == customer)
    if (await connection.execute(known)).first() is None:
        raise Unexpected(f"the checkout session {session['id']} is of {customer}, which is no customer here")
    tax = (session.get("total_details") or {}).get("amount_tax") or 0
    paid = session["amount_total"] - tax
    payment = Payment(session["id"], id_of(session.get("payment_intent")), paid * CENT, tax * CENT)
    await credits.purchase(connection, customer, payment)


async def apply_charge(connection: AsyncConnection, charge: Object) -> None:
    """Book the fee of a purchase, once that is known; raises Unexpected where the purchase is not booked yet."""
    fee = charge.get("balance_transaction")
    intent = id_of(charge.get("payment_intent"))
    if CUSTOMER not in _metadata(charge) or not isinstance(fee, Mapping) or intent is None:
        return
    if not await _is_purchase(connection, intent):
        raise Unexpected(f"the purchase that {intent} pays is not booked yet")
    await credits.fee(connection, intent, fee["id"], fee["fee"] * CENT)


async def apply_refund(connection: AsyncConnection, refund: Object) -> None:
    """Book what has become of a refund: of one that was held here, or of one that was made elsewhere."""
    status = refund.get("status")
    held = _metadata(refund).get(REFUND)
    if held is not None:
        if status == "succeeded" or status in FAILED:
            await credits.settle(connection, held, paid=status == "succeeded", refund=refund["id"])
        return
    intent = id_of(refund.get("payment_intent"))
    if intent is None or not await _is_purchase(connection, intent):
        return
    if status == "succeeded":
        await credits.chargeback(connection, intent, refund["id"], refund["amount"] * CENT)
    elif status in FAILED and await credits.was_charged_back(connection, refund["id"]):
        await credits.chargeback_won(connection, intent, refund["id"], refund["amount"] * CENT)


async def apply_dispute(connection: AsyncConnection, dispute: Object) -> None:
    """Book what a dispute has moved: nothing as long as it is an inquiry, and what was won once it is."""
    intent = id_of(dispute.get("payment_intent"))
    if intent is None or not await _is_purchase(connection, intent):
        return
    for moved in dispute.get("balance_transactions") or ():
        if moved["amount"] < 0:
            await credits.chargeback(connection, intent, dispute["id"], -moved["amount"] * CENT)
        elif moved["amount"] > 0:
            await credits.chargeback_won(connection, intent, dispute["id"], moved["amount"] * CENT)
        await credits.fee(connection, intent, moved["id"], moved["fee"] * CENT)


APPLIED = {
    "checkout.session": apply_session,
    "charge": apply_charge,
    "refund": apply_refund,
    "dispute": apply_dispute,
}
"""What applies objects of these types."""
EXPANDED: Mapping[str, tuple[str, ...]] = {"charge": ("balance_transaction",)}
"""What has to be fetched with objects of these types."""


def id_of(said: Any) -> str | None:
    """The id of an object that is told by its id, or whole."""
    found: str | None = said["id"] if isinstance(said, Mapping) else said
    return found


def _metadata(said: Object) -> Mapping[str, str]:
    return said.get("metadata") or {}


async def _is_purchase(connection: AsyncConnection, intent: str) -> bool:
    """Whether credits were bought with this payment intent."""
    wanted = sa.select(credit_grants.c.id).where(credit_grants.c.payment == intent)
    return (await connection.execute(wanted)).first() is not None
