"""Billing details as the API shows them."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, WithJsonSchema
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.contacts import ADDRESS_SCHEMA, parse_alert_address
from edgeproxy.collector.accounts.fields import Text
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.billing.stripe.billing_details import BillingAddress, PaymentMethod, TaxNumber
from edgeproxy.config.collector.tax_numbers import COUNTRIES
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
        raise value_error(f"{format_value(text)} is not a country that addresses can have", A_COUNTRY)
    return text


def read_tax_number(value: object) -> str | None:
    """Read a tax number and remove blanks. Null means none."""
    if value is None:
        return None
    text = "".join(read_text(value, A_TAX_NUMBER).split()).upper()
    is_written = text.isascii() and all(one.isalnum() or one in SEPARATORS for one in text)
    if not (1 <= len(text) <= TAX_NUMBER_CHARACTERS_MAX and is_written):
        raise value_error(f"{format_value(text)} is not a tax number", A_TAX_NUMBER)
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
    """The name on invoices; null leaves the name unchanged."""
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
