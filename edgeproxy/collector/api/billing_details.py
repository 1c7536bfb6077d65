"""Billing details of a customer: read from our copy of Stripe's data, changed at Stripe."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, WithJsonSchema
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.accounts.change import ChangeRejectedError, reject_field
from edgeproxy.collector.accounts.contacts import ADDRESS_SCHEMA, parse_alert_address
from edgeproxy.collector.accounts.fields import Text
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.api.customer_billing import (
    STRIPE_LATER,
    CustomerBillingHandlers,
    CustomerQuery,
    Payer,
    build_stripe_problem,
)
from edgeproxy.collector.api.endpoint import BILLING, MONEY_READERS, OWN, Call, Nothing, get, patch
from edgeproxy.collector.api.group import Group
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.responses import ProblemError
from edgeproxy.collector.billing.invoices.dunning import is_declined
from edgeproxy.collector.billing.stripe import billing_details
from edgeproxy.collector.billing.stripe.billing_details import (
    BillingAddress,
    PaymentMethod,
    StaleCustomerError,
    StoredDetails,
    TaxNumber,
)
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError, StripeObject
from edgeproxy.collector.billing.stripe.customers import (
    EMAIL,
    NAME,
    find_contact_email,
    find_invoice_name,
    find_stripe_id,
)
from edgeproxy.collector.problems import billing_codes
from edgeproxy.config.collector.tax_numbers import COUNTRIES
from edgeproxy.config.field_codes import COUNTRY_NEEDED, NOT_A_COUNTRY, NOT_A_TAX_NUMBER, REFUSED_BY_STRIPE
from edgeproxy.config.units import format_value, read_text, value_error

TAX_NUMBER_CHARACTERS_MAX = 30
A_COUNTRY = "the code of a country such as NL"
A_TAX_NUMBER = f"1 to {TAX_NUMBER_CHARACTERS_MAX} letters, digits, points, dashes and slashes"
SEPARATORS = frozenset("./-&")

PaymentMethodState = Literal["valid", "expires_soon", "expired", "declined"]
"""`declined`: this method was declined for an open invoice; `expires_soon`: in this month or the next."""


def read_country(value: object) -> str:
    """Read the code of a country."""
    text = read_text(value, A_COUNTRY).upper()
    if text not in COUNTRIES:
        raise value_error(f"{format_value(text)} is not a country that addresses can have", A_COUNTRY, NOT_A_COUNTRY)
    return text


def read_tax_number(value: object) -> str | None:
    """Read a tax number and remove blanks. Null means none."""
    if value is None:
        return None
    text = "".join(read_text(value, A_TAX_NUMBER).split()).upper()
    is_written = text.isascii() and all(character.isalnum() or character in SEPARATORS for character in text)
    if not (1 <= len(text) <= TAX_NUMBER_CHARACTERS_MAX and is_written):
        raise value_error(
            f"{format_value(text)} is not a tax number", A_TAX_NUMBER, NOT_A_TAX_NUMBER, most=TAX_NUMBER_CHARACTERS_MAX
        )
    return text


class AddressRequest(Body):
    """An address, as a whole."""

    line1: Text
    """The street and number, or the first line."""
    line2: Text | None = None
    """The second line."""
    city: Text | None = None
    """The city."""
    state: Text | None = None
    """The state, province or county."""
    postal_code: Text | None = None
    """The postal code."""
    country: Annotated[
        str, BeforeValidator(read_country), WithJsonSchema({"type": "string", "enum": sorted(COUNTRIES)})
    ]
    """The country (ISO 3166-1 alpha-2), such as `NL`."""


class UpdateBillingDetailsRequest(Body):
    """The billing details to change. An omitted field stays unchanged."""

    name: Text | None = None
    """The name on invoices; null: the customer's own name. That one follows its later changes."""
    email: Annotated[str | None, BeforeValidator(parse_alert_address), WithJsonSchema(ADDRESS_SCHEMA)] = None
    """The e-mail address for invoices; null: the address for the customer's alerts, else the one of its first contact.
    """
    address: AddressRequest | None = None
    """The address on invoices; null leaves the address unchanged."""
    tax_number: Annotated[
        str | None,
        BeforeValidator(read_tax_number),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "pattern": "^[0-9A-Z]{4,20}$", "examples": ["NL123456789B01"]},
                    {"type": "null"},
                ]
            }
        ),
    ] = None
    """The tax number on invoices, of the country in the address; null removes it. It replaces the first tax number."""


class PaymentMethodResponse(PaymentMethod):
    """The payment method for invoices, and its state."""

    state: PaymentMethodState
    """`declined`: the payment of an open invoice failed; `expired`; `expires_soon`: in this month or the next; else
    `valid`, as far as is known.
    """


class BillingDetails(TypedDict):
    """How a customer pays, and the details on its invoices, from Stripe's last answer."""

    customer: str
    """The customer, by name."""
    name: str | None
    """The name on invoices."""
    email: str | None
    """The e-mail address for invoices."""
    follows_contacts: bool
    """True if the e-mail address is a contact's, and changes with the contacts."""
    address: BillingAddress | None
    """The address on invoices; null if there is none."""
    tax_numbers: list[TaxNumber]
    """The tax numbers on invoices."""
    payment_method: PaymentMethodResponse | None
    """The payment method for invoices; null if the customer pays by hand."""
    read_at: str | None
    """The time of Stripe's last answer; null if Stripe does not know the customer yet, or has not answered so far."""
    is_stale: bool
    """True if Stripe was asked now and did not answer in time."""


FRESH_SECONDS = 86400.0
"""Seconds until Stripe is asked again, because an event may have been lost."""
READ_SECONDS = 3.0
"""Seconds that a reader waits for Stripe. Then the stored details are shown."""
CHANGE_SECONDS = 15.0
"""Seconds that Stripe has for a change."""
PARAMETERS = {"value": "tax_number", "email": "email", "name": "name", "address[country]": "address.country"}
"""Fields by the parameters that Stripe names in a refusal."""


class BillingDetailsHandlers(CustomerBillingHandlers):
    """Handlers of billing details."""

    @get("/billing/details", roles=MONEY_READERS | OWN, rate=RequestRate(100, "customer"))
    async def fetch_details(self, call: Call[CustomerQuery, Nothing]) -> BillingDetails:
        """Fetch the billing details of a customer."""
        customer = self._get_customer(call)
        stripe, now, is_stale = self._resources.stripe, time.time(), False
        async with self._database.reading() as connection:
            row = await customers.get_row(connection, customer)
            details = await billing_details.find_details(connection, row.id)
            stripe_id = await find_stripe_id(connection, row.id)
        is_old = details is None or details.read_at < (now - FRESH_SECONDS) * 1000
        if stripe is not None and stripe_id is not None and is_old and row.erased_at is None:
            is_stale = not await self._refresh(stripe, stripe_id)
        async with self._database.reading() as connection:
            return await build_response(connection, row, now, is_stale=is_stale)

    async def _refresh(self, stripe: Stripe, stripe_id: str) -> bool:
        """Store Stripe's current details of a customer. Return False if Stripe does not answer in time."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                stripe_customer = await billing_details.fetch_stripe_customer(stripe, stripe_id)
        except (StripeCallError, TimeoutError):
            return False
        try:
            async with self._database.writing() as connection:
                await billing_details.apply_stripe_customer(connection, stripe_customer)
        except StaleCustomerError:
            pass  # The stored details are recent too.
        return True

    @patch(
        "/billing/details",
        roles=BILLING | OWN,
        example={
            "name": "Acme B.V.",
            "address": {"line1": "Keizersgracht 1", "postal_code": "1015 CN", "city": "Amsterdam", "country": "NL"},
            "tax_number": "NL123456789B01",
        },
        errors={409: "Billing is off, the customer is being deleted, or Stripe refuses."},
        rate=RequestRate(10, "customer"),
    )
    async def update_details(self, call: Call[CustomerQuery, UpdateBillingDetailsRequest]) -> BillingDetails:
        """Change the name, e-mail address, address or tax number on the invoices of a customer."""
        changed = sorted(call.body.model_fields_set)
        payer = await self._get_payer(self._get_customer(call))
        # Before the change, because Stripe may apply it even if this process dies.
        await self._record(call, AuditEntry("billing.details", payer.id, None, {"fields": changed}, payer.id))
        try:
            async with asyncio.timeout(CHANGE_SECONDS):
                await self._change_at_stripe(payer, call.body)
        except StripeCallError as error:
            raise explain_refusal(error) from None
        except TimeoutError:
            raise ProblemError(
                billing_codes.STRIPE_UNAVAILABLE, "Stripe has not answered in time", headers=STRIPE_LATER
            ) from None
        async with self._database.reading() as connection:
            row = await customers.get_row(connection, payer.id)
            return await build_response(connection, row, time.time())

    async def _change_at_stripe(self, payer: Payer, body: UpdateBillingDetailsRequest) -> None:
        """Change a customer at Stripe, and store Stripe's new details. Raises StripeCallError.

        The tax number comes first, because Stripe validates it. If it is refused, nothing has changed.
        """
        stripe = self._get_stripe()
        before = billing_details.parse_details(
            await billing_details.fetch_stripe_customer(stripe, payer.stripe_id), int(time.time() * 1000)
        )
        if "tax_number" in body.model_fields_set:
            country = before.address["country"] if before.address is not None else None
            country = country if body.address is None else body.address.country
            await _change_tax_number(stripe, payer, before.tax_numbers, body.tax_number, country)
        changes: StripeObject = {}
        metadata: StripeObject = {}
        if "name" in body.model_fields_set:
            async with self._database.reading() as connection:
                own = await find_invoice_name(connection, payer.id)
            changes["name"], metadata[NAME] = body.name or own or "", own if body.name in (None, own) else ""
        if body.address is not None:
            # Stripe keeps a field that is missing, and clears an empty one.
            changes["address"] = {name: value or "" for name, value in body.address.model_dump().items()}
        if "email" in body.model_fields_set:
            async with self._database.reading() as connection:
                email = body.email or await find_contact_email(connection, payer.id)
            changes["email"], metadata[EMAIL] = email or "", "" if body.email else email or ""
        if metadata:
            changes["metadata"] = metadata
        stripe_customer = await billing_details.update_stripe_customer(stripe, payer.stripe_id, changes)
        await billing_details.write_newest(self._database, stripe, stripe_customer)


async def _change_tax_number(
    stripe: Stripe, payer: Payer, before: Sequence[TaxNumber], number: str | None, country: str | None
) -> None:
    """Change a customer's tax number of a country. Raises ChangeRejectedError and StripeCallError."""
    kind = billing_details.find_tax_number_type(country)
    if number is not None and kind is None:
        raise reject_field(
            "tax_number", "needs an address in a country whose tax numbers are known here", COUNTRY_NEEDED
        )
    await billing_details.replace_tax_number(stripe, payer.stripe_id, before, number, kind or "")


def explain_refusal(error: StripeCallError) -> ProblemError | ChangeRejectedError:
    """Return the problem document for a change that Stripe refuses, for the refused field if Stripe names it."""
    field = PARAMETERS.get(error.param or "")
    if error.outcome is CallOutcome.REFUSED and field is not None:
        return reject_field(field, f"is refused by Stripe: {error.message}", REFUSED_BY_STRIPE)
    return build_stripe_problem(error)


async def build_response(
    connection: AsyncConnection, customer: CustomerRow, now: float, *, is_stale: bool = False
) -> BillingDetails:
    """Return a customer's billing details in the API's form."""
    details = await billing_details.find_details(connection, customer.id)
    if details is None:
        details = StoredDetails(None, None, True, None, [], None, 0)
    method: PaymentMethodResponse | None = None
    if details.payment_method is not None:
        declined = await is_declined(connection, customer.id, details.payment_method["id"])
        state: PaymentMethodState = "declined" if declined else find_expiry(details.payment_method, now)
        method = {**details.payment_method, "state": state}
    return {
        "customer": customer.name,
        "name": details.name,
        "email": details.email or await find_contact_email(connection, customer.id),  # Stripe gets it with an invoice.
        "follows_contacts": details.follows_contacts,
        "address": details.address,
        "tax_numbers": list(details.tax_numbers),
        "payment_method": method,
        "read_at": format_timestamp(details.read_at) if details.read_at else None,
        "is_stale": is_stale,
    }


def find_expiry(method: PaymentMethod, now: float) -> PaymentMethodState:
    """Return whether a card has expired by the Unix second `now`, or expires in this month or the next."""
    year, month = method["exp_year"], method["exp_month"]
    if year is None or month is None:
        return "valid"
    at = datetime.fromtimestamp(now, UTC)
    months = (year - at.year) * 12 + month - at.month
    return "expired" if months < 0 else "expires_soon" if months <= 1 else "valid"


GROUP = Group(
    "billing-details",
    "How customers pay, and the details on their invoices. Stripe stores them; the collector keeps a copy of the "
    "last answer.",
    BillingDetailsHandlers,
    errors={404: "Billing is not configured, or the customer does not exist."},
)
