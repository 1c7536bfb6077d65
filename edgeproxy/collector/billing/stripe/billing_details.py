"""Billing details: how a customer pays, and the data on its invoices. Stripe owns them; we store Stripe's last answer.

A page cannot wait for Stripe, and Stripe may be unavailable. So each event about a customer at Stripe, its tax numbers
or its payment methods makes us fetch and store the current details. Card numbers never reach us, because they are
entered at Stripe.

Events and changes from our page may store answers concurrently, each some time after its request. An answer that was
requested before another one was stored may be older than that one. In that case Stripe is asked again.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, cast

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
from edgeproxy.collector.database.unreadable_rows import parse_object, reading_row
from edgeproxy.collector.encryption.rows import fetch_rows, seal_rows
from edgeproxy.config.collector.tax_numbers import TAX_NUMBER_TYPES

EXPANDED = ("invoice_settings.default_payment_method", "tax_ids")
"""The fields to expand when a customer is fetched."""
REQUESTED_AT: Final = "requested_at"
"""The key in a customer object for the Unix millisecond of the request to Stripe."""
ADDRESS_FIELDS = ("line1", "line2", "city", "state", "postal_code", "country")
TABLE = billing_details.name
columns = billing_details.c


class BillingAddress(TypedDict):
    """An address. A missing part is null."""

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
    """The country (ISO 3166-1 alpha-2), for example `NL`."""


class TaxNumber(TypedDict):
    """The number that identifies a business at a tax office."""

    id: str
    """The id at Stripe."""
    type: str
    """The type at Stripe, for example `eu_vat`."""
    value: str
    """The number."""
    status: Literal["pending", "unavailable", "unverified", "verified"] | None
    """The result of Stripe's check with the tax office; null if Stripe does not check this type."""


class PaymentMethod(TypedDict):
    """The payment method for invoices: its parts that we may know. Only Stripe has the number of a card."""

    id: str
    """The id at Stripe."""
    type: str
    """The type at Stripe, for example `card` or `sepa_debit`."""
    brand: str | None
    """The brand of a card, for example `visa`, or the name of a bank."""
    last4: str | None
    """The last four digits of the card or the account."""
    exp_month: int | None
    """The last month when the card can be charged, from 1 to 12."""
    exp_year: int | None
    """The year of that month."""


class StoredDetails(NamedTuple):
    """Stripe's last answer about a customer."""

    name: str | None
    email: str | None
    follows_contacts: bool
    """True if the e-mail address is a contact's. It then changes with the contacts."""
    address: BillingAddress | None
    tax_numbers: Sequence[TaxNumber]
    payment_method: PaymentMethod | None
    read_at: int
    """Unix milliseconds; 0 if Stripe must be asked again."""


class StaleCustomerError(Exception):
    """Another answer of Stripe about the customer was stored after this one was requested."""


# ---- parsing Stripe's answers; pure


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
    """Return the payment method for a customer's invoices. Without expansion only its id is known."""
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


# ---- stored details


async def find_details(connection: AsyncConnection, customer: str) -> StoredDetails | None:
    """Return the stored details of a customer by id, or None if there are none. Raises UnreadableRowError."""
    statement = sa.select(billing_details).where(columns.customer == customer)
    rows = await fetch_rows(connection, TABLE, statement)
    if not rows:
        return None
    (row,) = rows
    method = row["payment_method"]
    read_at = row["read_at"]
    assert isinstance(read_at, int)
    with reading_row(TABLE, customer):
        payer: dict[str, Any] = parse_object(str(row["payer"]))
        stored_method = None if method is None else cast(PaymentMethod, parse_object(str(method)))
        return StoredDetails(**payer, payment_method=stored_method, read_at=read_at)


async def has_payment_method(connection: AsyncConnection, customer: str) -> bool:
    """Return whether the stored details of a customer, by id, have a payment method to charge."""
    statement = sa.select(columns.payment_method.is_not(None)).where(columns.customer == customer)
    return bool(await connection.scalar(statement))


async def apply_stripe_customer(connection: AsyncConnection, stripe_customer: StripeObject) -> None:
    """Store the details of a Stripe customer if it is one of ours. Raises StaleCustomerError.

    A customer that was erased here is not stored. The details of a customer deleted at Stripe are deleted.
    """
    known = billing_customers.join(customers, customers.c.id == billing_customers.c.customer)
    owner = sa.select(billing_customers.c.customer).select_from(known)
    owner = owner.where(billing_customers.c.stripe_id == stripe_customer["id"], customers.c.erased_at.is_(None))
    customer = await connection.scalar(owner)
    if customer is None:
        return
    if stripe_customer.get("deleted"):
        await connection.execute(sa.delete(billing_details).where(columns.customer == customer))
        return
    before = sa.select(columns.read_at).where(columns.customer == customer).with_for_update()
    read_at, now = await connection.scalar(before), now_ms()
    # A time later than now comes from a clock that was ahead, so it proves nothing.
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
    """Mark the details of a customer, by id, as outdated, so that Stripe is asked before they are shown again."""
    await connection.execute(sa.update(billing_details).where(columns.customer == customer).values(read_at=0))


# ---- calls to Stripe


async def fetch_stripe_customer(stripe: Stripe, stripe_id: str) -> StripeObject:
    """Fetch a Stripe customer with the fields that details need. Raises StripeCallError."""
    return await _request_customer(stripe, "v1.customers.retrieve", stripe_id, {})


def find_tax_number_type(country: str | None) -> str | None:
    """Return Stripe's type of tax number for a country, or None if it is unknown."""
    return TAX_NUMBER_TYPES.get(country or "")


async def replace_tax_number(
    stripe: Stripe, stripe_id: str, before: Sequence[TaxNumber], value: str | None, kind: str
) -> None:
    """Replace or remove the first tax number of a customer at Stripe. Raises StripeCallError.

    The new number is created before the old one is deleted, so a number that Stripe refuses changes nothing. A repeated
    call after a crash creates no second number.
    """
    if value is not None and all(tax_number["value"] != value for tax_number in before):
        await stripe.call("v1.customers.tax_ids.create", stripe_id, type=kind, value=value)
    if before and before[0]["value"] != value:
        await stripe.call("v1.customers.tax_ids.delete", stripe_id, before[0]["id"])


async def update_stripe_customer(stripe: Stripe, stripe_id: str, changes: StripeObject) -> StripeObject:
    """Update fields of a customer at Stripe, and return it with the fields that details need.

    Raises StripeCallError.
    """
    return await _request_customer(stripe, "v1.customers.update", stripe_id, changes)


async def _request_customer(stripe: Stripe, method: str, stripe_id: str, changes: StripeObject) -> StripeObject:
    """Call a method that returns a customer, and add REQUESTED_AT to it."""
    requested_at = now_ms()
    stripe_customer = await stripe.call(method, stripe_id, expand=list(EXPANDED), **changes)
    return {**stripe_customer, REQUESTED_AT: requested_at}


async def write_newest(database: Database, stripe: Stripe, stripe_customer: StripeObject) -> None:
    """Store a customer as fetched, or fetch it again if another answer was stored meanwhile.

    Raises StripeCallError.
    """
    while True:
        try:
            async with database.writing() as connection:
                await apply_stripe_customer(connection, stripe_customer)
            return
        except StaleCustomerError:
            stripe_customer = await fetch_stripe_customer(stripe, stripe_customer["id"])
