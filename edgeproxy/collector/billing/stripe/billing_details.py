"""Billing details: how a customer pays, and what is on its invoices. Stripe has them; here is what it said last.

A page cannot wait for Stripe, and Stripe may be away. So each event of a customer at Stripe, of its tax numbers and of
its payment methods writes down what Stripe has by then. The number of a card never comes here: it is entered at Stripe.

Events and changes from our page are written down beside each other, each some time after Stripe was asked. What was
asked for before another answer was written down may be older than that one: Stripe is asked again.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, cast

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.billing.stripe.client import Stripe, StripeObject
from edgeproxy.collector.billing.stripe.customers import EMAIL, find_payment_method
from edgeproxy.collector.database.billing_tables import billing_customers, billing_details
from edgeproxy.collector.database.database import Database, build_upsert
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.encryption.rows import fetch_rows, seal_rows
from edgeproxy.config.collector.tax_numbers import TAX_NUMBER_TYPES

EXPANDED = ("invoice_settings.default_payment_method", "tax_ids")
"""The fields that a customer is fetched with."""
REQUESTED_AT: Final = "requested_at"
"""The key of a customer with the Unix millisecond at which Stripe was asked for it."""
ADDRESS_FIELDS = ("line1", "line2", "city", "state", "postal_code", "country")
TABLE = billing_details.name
columns = billing_details.c


class BillingAddress(TypedDict):
    """An address; a field that it does not have is null."""

    line1: str | None
    """The street and number, or the first line."""
    line2: str | None
    """The second line."""
    city: str | None
    """The city."""
    state: str | None
    """The state, province or county."""
    postal_code: str | None
    """The postal code."""
    country: str | None
    """The country (ISO 3166-1 alpha-2), such as `NL`."""


class TaxNumber(TypedDict):
    """The number by which a tax office knows a business."""

    id: str
    """Its id at Stripe."""
    type: str
    """Stripe's type of it, such as `eu_vat`."""
    value: str
    """The number."""
    status: Literal["pending", "unavailable", "unverified", "verified"] | None
    """Whether the tax office knows it, as Stripe has asked there; null where Stripe does not ask."""


class PaymentMethod(TypedDict):
    """What invoices are charged to, as far as it may be known. Stripe alone has the number of a card."""

    id: str
    """Its id at Stripe."""
    type: str
    """Stripe's type of it, such as `card` or `sepa_debit`."""
    brand: str | None
    """The brand of a card, such as `visa`, or the name of a bank."""
    last4: str | None
    """The last four digits of the card or the account."""
    exp_month: int | None
    """The last month in which a card can be charged, from 1 to 12."""
    exp_year: int | None
    """The year of that month."""


class StoredDetails(NamedTuple):
    """What Stripe said last of a customer."""

    name: str | None
    email: str | None
    follows_contacts: bool
    """Whether the e-mail address is that of a contact, and changes with the contacts."""
    address: BillingAddress | None
    tax_numbers: Sequence[TaxNumber]
    payment_method: PaymentMethod | None
    read_at: int
    """Unix milliseconds; 0: Stripe is to be asked anew."""


class StaleCustomerError(Exception):
    """Another answer of Stripe's about a customer was written down since it was asked for this one."""


# ---- what Stripe says; pure


def parse_details(stripe_customer: StripeObject, now: int) -> StoredDetails:
    """Return the details of a customer that was fetched with EXPANDED, at the Unix millisecond `now`."""
    email = stripe_customer.get("email")
    given = stripe_customer.get("address")
    address = None if not given else {name: given.get(name) or None for name in ADDRESS_FIELDS}
    listed = (stripe_customer.get("tax_ids") or {}).get("data") or ()
    return StoredDetails(
        name=stripe_customer.get("name"),
        email=email,
        follows_contacts=email is None or email == (stripe_customer.get("metadata") or {}).get(EMAIL),
        address=cast(BillingAddress | None, address),
        tax_numbers=[_parse_tax_number(one) for one in listed],
        payment_method=_parse_payment_method(stripe_customer),
        read_at=now,
    )


def _parse_tax_number(tax_id: StripeObject) -> TaxNumber:
    status = (tax_id.get("verification") or {}).get("status")
    return {"id": tax_id["id"], "type": tax_id["type"], "value": tax_id["value"], "status": status}


def _parse_payment_method(stripe_customer: StripeObject) -> PaymentMethod | None:
    """Return what invoices of a customer are charged to; of what is not expanded, its id alone is known."""
    method_id = find_payment_method(stripe_customer)
    if method_id is None:
        return None
    method = (stripe_customer.get("invoice_settings") or {}).get("default_payment_method")
    kind = method["type"] if isinstance(method, dict) else "unknown"
    facts = (method.get(kind) or {}) if isinstance(method, dict) else {}
    return {
        "id": method_id,
        "type": kind,
        "brand": facts.get("display_brand") or facts.get("brand") or facts.get("bank_name"),
        "last4": facts.get("last4"),
        "exp_month": facts.get("exp_month"),
        "exp_year": facts.get("exp_year"),
    }


# ---- what is stored


async def find_details(connection: AsyncConnection, customer: str) -> StoredDetails | None:
    """Return what Stripe said last of a customer, by id; None where nothing is known of it."""
    statement = sa.select(billing_details).where(columns.customer == customer)
    rows = await fetch_rows(connection, TABLE, statement)
    if not rows:
        return None
    (row,) = rows
    method = row["payment_method"]
    payer = orjson.loads(str(row["payer"]))
    read_at = row["read_at"]
    assert isinstance(read_at, int)
    return StoredDetails(**payer, payment_method=None if method is None else orjson.loads(str(method)), read_at=read_at)


async def has_payment_method(connection: AsyncConnection, customer: str) -> bool:
    """Return whether Stripe said last that invoices of a customer, by id, can be charged."""
    statement = sa.select(columns.payment_method.is_not(None)).where(columns.customer == customer)
    return bool((await connection.execute(statement)).scalar_one_or_none())


async def apply_stripe_customer(connection: AsyncConnection, stripe_customer: StripeObject) -> None:
    """Write down the details of a customer as Stripe has it, if it is one of ours; raises StaleCustomerError.

    Of one that is deleted there or is erased here nothing is written.
    """
    known = billing_customers.join(customers, customers.c.id == billing_customers.c.customer)
    owner = sa.select(billing_customers.c.customer).select_from(known)
    owner = owner.where(billing_customers.c.stripe_id == stripe_customer["id"], customers.c.erased_at.is_(None))
    customer = (await connection.execute(owner)).scalar_one_or_none()
    if customer is None:
        return
    if stripe_customer.get("deleted"):
        await connection.execute(sa.delete(billing_details).where(columns.customer == customer))
        return
    before = sa.select(columns.read_at).where(columns.customer == customer).with_for_update()
    read_at, now = (await connection.execute(before)).scalar_one_or_none(), now_ms()
    # What is later than now is by a clock that is ahead, and says nothing.
    if read_at is not None and stripe_customer[REQUESTED_AT] < read_at <= now:
        raise StaleCustomerError(f"what Stripe has of {customer} was written down meanwhile")
    await _store(connection, customer, parse_details(stripe_customer, now))


async def _store(connection: AsyncConnection, customer: str, details: StoredDetails) -> None:
    payer = details._asdict()
    method = payer.pop("payment_method")
    row = {
        "customer": customer,
        "payment_method": None if method is None else orjson.dumps(method).decode(),
        "read_at": payer.pop("read_at"),
        "payer": orjson.dumps(payer).decode(),
    }
    (stored,) = await seal_rows(connection, TABLE, [row])
    await connection.execute(build_upsert(connection, billing_details, stored, "customer"))


async def expire_details(connection: AsyncConnection, customer: str) -> None:
    """Have Stripe asked anew for the details of a customer, by id, before they are shown again."""
    await connection.execute(sa.update(billing_details).where(columns.customer == customer).values(read_at=0))


# ---- asking and telling Stripe


async def fetch_stripe_customer(stripe: Stripe, stripe_id: str) -> StripeObject:
    """Return a customer of Stripe's with what details need; raises StripeCallError."""
    return await _request_customer(stripe, "v1.customers.retrieve", stripe_id, {})


def find_tax_number_type(country: str | None) -> str | None:
    """Return Stripe's type of a tax number of this country; None where it is not known."""
    return TAX_NUMBER_TYPES.get(country or "")


async def replace_tax_number(
    stripe: Stripe, stripe_id: str, before: Sequence[TaxNumber], value: str | None, kind: str
) -> None:
    """Replace the first tax number of a customer at Stripe by another one, or by none; raises StripeCallError.

    The new one is there before the old one goes, so that a number which Stripe refuses changes nothing. Whoever repeats
    this after a kill makes no second one.
    """
    if value is not None and all(one["value"] != value for one in before):
        await stripe.call("v1.customers.tax_ids.create", stripe_id, type=kind, value=value)
    if before and before[0]["value"] != value:
        await stripe.call("v1.customers.tax_ids.delete", stripe_id, before[0]["id"])


async def update_stripe_customer(stripe: Stripe, stripe_id: str, changes: StripeObject) -> StripeObject:
    """Change fields of a customer at Stripe, and return it with what details need; raises StripeCallError."""
    return await _request_customer(stripe, "v1.customers.update", stripe_id, changes)


async def _request_customer(stripe: Stripe, method: str, stripe_id: str, changes: StripeObject) -> StripeObject:
    """Call a method that answers with a customer; return it with REQUESTED_AT."""
    requested_at = now_ms()
    stripe_customer = await stripe.call(method, stripe_id, expand=list(EXPANDED), **changes)
    return {**stripe_customer, REQUESTED_AT: requested_at}


async def write_newest(database: Database, stripe: Stripe, stripe_customer: StripeObject) -> None:
    """Write down a customer as Stripe has it, or as it has it by now where another answer was written down meanwhile.

    Raises StripeCallError.
    """
    while True:
        try:
            async with database.writing() as connection:
                await apply_stripe_customer(connection, stripe_customer)
            return
        except StaleCustomerError:
            stripe_customer = await fetch_stripe_customer(stripe, stripe_customer["id"])
