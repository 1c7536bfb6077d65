"""The console's page of a customer's credits: gifts, refunds of purchases, and the reversal of usage."""

from decimal import Decimal

from aiohttp import web

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.pages import keys
from edgeproxy.collector.pages.credits import fetch_top_up
from edgeproxy.collector.pages.site import Page, PageError, Visit, format_path
from edgeproxy.collector.problems import page_codes
from edgeproxy.config.collector.currency_units import DECIMALS, USD, get_payable_unit, to_decimal

CREDITS = "/console/customers/{customer}/credits"
ROWS_MAX = 24
"""Purchases per page, and consumptions per page."""
AMOUNT_MAX = 10**7
"""The largest amount in a form, in whole units of a currency."""
PLACES = 4
"""Decimal places of a smallest unit that millicredits have."""


def list_pages() -> list[Page]:
    """Return the page and its forms."""
    own = (
        ("GET", CREDITS, show_credits),
        ("POST", f"{CREDITS}/gift", give_credits),
        ("POST", f"{CREDITS}/withdraw", withdraw_credits),
        ("POST", f"{CREDITS}/refund", refund_purchase),
        ("POST", f"{CREDITS}/reverse", reverse_consumption),
    )
    return [Page(method, path, "operator", handler) for method, path, handler in own]


async def show_credits(visit: Visit) -> web.Response:
    """Show the balance with a page of consumptions or, if the query says so, of purchases."""
    customer, of_purchases = visit.path_parameter("customer"), "purchases" in visit.request.query
    page = {"limit": str(ROWS_MAX)}
    if cursor := visit.request.query.get("cursor"):
        page["cursor"] = cursor
    query, first = {"customer": customer}, {"customer": customer, "limit": str(ROWS_MAX)}
    purchases = await visit.fetch("GET", "/billing/purchases", query=query | page if of_purchases else first)
    consumptions = await visit.fetch("GET", "/billing/consumptions", query=first if of_purchases else query | page)
    held = await visit.fetch("GET", "/billing/balance", query=query)
    currency = held["currency"]
    return visit.render(
        "customer_credits.html",
        customer=customer,
        held=held,
        step=to_decimal(get_payable_unit(currency), currency),
        exact_step=f"{to_decimal(1, currency).scaleb(-PLACES):f}",
        to_amount=lambda millicredits: f"{to_decimal(millicredits, currency).scaleb(-PLACES):f}",
        purchases=purchases["purchases"],
        more_purchases=purchases.get("next"),
        consumptions=consumptions["consumptions"],
        more=consumptions.get("next"),
        **await fetch_top_up(visit, currency, query),
    )


async def give_credits(visit: Visit) -> web.Response:
    """Give credits, as goodwill."""
    body: JsonObject = {"millicredits": _read_amount(visit)}
    if expires := visit.read_field("expires").strip():
        body["expires_at"] = expires
    return await _adjust(visit, body, "credits-given")


async def withdraw_credits(visit: Visit) -> web.Response:
    """Withdraw unspent gift credits."""
    return await _adjust(visit, {"millicredits": -_read_amount(visit)}, "credits-withdrawn")


async def reverse_consumption(visit: Visit) -> web.Response:
    """Reverse usage that was paid for with credits."""
    consumption = visit.read_field("consumption")
    body: JsonObject = {"millicredits": _read_amount(visit), "consumption": consumption}
    return await _adjust(visit, body, "usage-reversed")


async def refund_purchase(visit: Visit) -> web.Response:
    """Refund a purchase or a part of it. Without an amount all unspent credits are refunded."""
    body: JsonObject = {"purchase": visit.read_field("purchase"), "why": visit.read_field("why")}
    if visit.read_field("amount").strip():
        body["millicredits"] = _read_amount(visit)
    await visit.fetch("POST", "/billing/refunds", body=body, once=keys.read_idempotency_key(visit))
    return _return(visit, "purchase-refunded")


async def _adjust(visit: Visit, change: JsonObject, done: str) -> web.Response:
    body = {"customer": visit.path_parameter("customer"), "why": visit.read_field("why"), **change}
    await visit.fetch("POST", "/billing/credits/adjust", body=body, once=keys.read_idempotency_key(visit))
    return _return(visit, done)


def _return(visit: Visit, done: str) -> web.Response:
    return visit.redirect(format_path(CREDITS, customer=visit.path_parameter("customer")), done=done)


def _read_amount(visit: Visit) -> int:
    """Return a form's amount in millicredits, in the currency of its credits. Raises PageError."""
    currency = visit.form.get("currency", USD)
    if currency not in DECIMALS:
        raise PageError(page_codes.FORM_INCOMPLETE, "the form has a currency that no credits have")
    return parse_credits(visit.read_field("amount"), currency)


def parse_credits(written: str, currency: str) -> int:
    """Return the millicredits of an amount in a currency, for example 12.34. Raises PageError."""
    try:
        amount = Decimal(written.strip())
        millicredits = amount.scaleb(DECIMALS[currency] + PLACES)
        if amount.is_finite() and 0 < amount <= AMOUNT_MAX and millicredits == int(millicredits):
            return int(millicredits)
    except ArithmeticError:  # The text is no number, or the number is too large for memory.
        pass
    example = str(to_decimal(1234, currency))
    why = f"write the amount in {currency.upper()}, such as {example}"
    raise PageError(page_codes.AMOUNT_INVALID, why, params={"example": example})
