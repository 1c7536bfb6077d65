"""The portal's page for changing the details on invoices. The payment method is shown with the invoices."""

from collections.abc import Mapping, Sequence

from aiohttp import web

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.site import Handler, Visit
from edgeproxy.config.collector.tax_numbers import COUNTRIES

INVOICES = "/account/invoices"
DETAILS = f"{INVOICES}/details"
ADDRESS_FIELDS = ("line1", "line2", "city", "state", "postal_code", "country")
BRANDS = {
    "american_express": "American Express",
    "amex": "American Express",
    "cartes_bancaires": "Cartes Bancaires",
    "diners": "Diners Club",
    "diners_club": "Diners Club",
    "discover": "Discover",
    "eftpos_australia": "eftpos",
    "interac": "Interac",
    "jcb": "JCB",
    "mastercard": "Mastercard",
    "union_pay": "UnionPay",
    "unionpay": "UnionPay",
    "visa": "Visa",
}
"""Card brands, in the brands' own spelling."""
KINDS = {"link": "Link", "paypal": "PayPal", "sepa_debit": "SEPA", "us_bank_account": "ACH"}
"""Names of payment methods without a brand."""


def list_pages() -> Sequence[tuple[str, str, Handler]]:
    """Return the page and its form."""
    return (("GET", DETAILS, show_details), ("POST", DETAILS, change_details))


async def find_details(visit: Visit) -> JsonDocument | None:
    """Return the customer's billing details, or None if they are unavailable."""
    response = await visit.call("GET", "/billing/details")
    return response.body if response.is_success else None


async def show_details(visit: Visit) -> web.Response:
    """Show the form of the details on invoices."""
    details = await visit.fetch("GET", "/billing/details")
    countries = sorted(((visit.reader.country(code), code) for code in COUNTRIES), key=lambda one: one[0].casefold())
    address = details["address"] or dict.fromkeys(ADDRESS_FIELDS)
    return visit.render("billing_details.html", details=details, address=address, countries=countries)


async def change_details(visit: Visit) -> web.Response:
    """Change the details on invoices. Only changed fields are sent."""
    before = await visit.fetch("GET", "/billing/details")
    body = find_changes(before, visit.form)
    if body:
        await visit.fetch("PATCH", "/billing/details", body=body)
    return visit.redirect(INVOICES, done="details")


# ---- pure


def find_changes(before: JsonDocument, form: Mapping[str, str]) -> JsonObject:
    """Return the form's fields that differ from the billing details of the API.

    An address without any field is ignored: invoices need an address, so an existing one stays.
    """
    written = {name: value.strip() for name, value in form.items()}
    body: JsonObject = {}
    if written.get("name", "") != (before["name"] or ""):
        body["name"] = written.get("name") or None
    email = written.get("email", "")
    if email.lower() != (before["email"] or "").lower():
        body["email"] = email or None
    address = {name: written.get(name) or None for name in ADDRESS_FIELDS}
    if any(address.values()) and address != before["address"]:
        # Required fields are sent as empty texts, so that the API names them in its error.
        body["address"] = address | {name: address[name] or "" for name in ("line1", "country")}
    number = "".join(written.get("tax_number", "").split())
    first = before["tax_numbers"][0]["value"] if before["tax_numbers"] else ""
    if number.upper() != first.upper():
        body["tax_number"] = number or None
    return body


def describe_method(method: Mapping[str, str | None]) -> str:
    """Return the name of a payment method of the API: a card's brand in its own spelling."""
    brand, kind = method["brand"] or "", method["type"] or ""
    return BRANDS.get(brand) or brand or KINDS.get(kind) or kind.replace("_", " ")
