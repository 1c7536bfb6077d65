"""The parties of an invoice as printed by Stripe. Later changes of their details do not change an invoice."""

from typing import cast

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.collector.billing.stripe.billing_details import ADDRESS_FIELDS, BillingAddress
from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.collector.database.billing_tables import invoice_parties
from edgeproxy.collector.database.database import build_upsert
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.encryption.rows import fetch_rows, seal_rows
from edgeproxy.config.collector.seller import Seller

TABLE = invoice_parties.name


class InvoiceBuyer(TypedDict):
    """The buyer of an invoice, as of its issue."""

    name: str | None
    """The name of the person or the company."""
    address: BillingAddress | None
    """The address; null if Stripe had none."""
    tax_numbers: list[str]
    """The tax numbers on the invoice."""


class InvoiceSeller(TypedDict):
    """The seller of an invoice."""

    name: str
    """The name of the company."""
    address_lines: list[str]
    """The lines of the seller's address; empty if none is configured."""
    tax_number: str | None
    """The seller's tax number; null if none is configured."""


class InvoiceParties(TypedDict):
    """The parties of an invoice as printed by Stripe."""

    account_name: str | None
    """The name of the Stripe account, which is the seller."""
    buyer: InvoiceBuyer


async def store_parties(connection: AsyncConnection, invoice: str, customer: str, stripe_invoice: StripeObject) -> None:
    """Store the parties of an invoice finalized at Stripe, by ids, unless its customer is erased."""
    erased = sa.select(customers.c.erased_at).where(customers.c.id == customer)
    if (await connection.execute(erased)).scalar_one() is not None:
        return
    parties = orjson.dumps(parse_parties(stripe_invoice)).decode()
    (stored,) = await seal_rows(connection, TABLE, [{"invoice": invoice, "customer": customer, "parties": parties}])
    await connection.execute(build_upsert(connection, invoice_parties, stored, "invoice"))


async def find_parties(connection: AsyncConnection, invoice: str) -> InvoiceParties | None:
    """Return the parties of an invoice, by id, or None if it is not finalized or older than their storage."""
    statement = sa.select(invoice_parties).where(invoice_parties.c.invoice == invoice)
    rows = await fetch_rows(connection, TABLE, statement)
    return cast(InvoiceParties, orjson.loads(str(rows[0]["parties"]))) if rows else None


# ---- pure


def parse_parties(stripe_invoice: StripeObject) -> InvoiceParties:
    """Return the parties of a Stripe invoice."""
    given = stripe_invoice.get("customer_address")
    address = None if not given else {name: given.get(name) or None for name in ADDRESS_FIELDS}
    numbers = [one["value"] for one in stripe_invoice.get("customer_tax_ids") or () if one.get("value")]
    buyer: InvoiceBuyer = {
        "name": stripe_invoice.get("customer_name"),
        "address": cast(BillingAddress | None, address),
        "tax_numbers": numbers,
    }
    return {"account_name": stripe_invoice.get("account_name"), "buyer": buyer}


def build_seller(seller: Seller | None, parties: InvoiceParties | None) -> InvoiceSeller | None:
    """Return the seller: as configured, else by the name of the Stripe account; None if that is unknown."""
    if seller is not None:
        return {"name": seller.name, "address_lines": [*seller.address], "tax_number": seller.tax_number}
    name = None if parties is None else parties["account_name"]
    return None if name is None else {"name": name, "address_lines": [], "tax_number": None}
