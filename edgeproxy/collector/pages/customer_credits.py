"""The console's page of a customer's credits: gifts, refunds of purchases, and the reversal of usage."""

from decimal import Decimal

from aiohttp import web

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.pages import keys
from edgeproxy.collector.pages.site import Page, PageError, Visit, format_path

CREDITS = "/console/customers/{customer}/credits"
ROWS_MAX = 24
"""Purchases, and consumptions, of a page."""
MILLICREDITS_OF_USD = 1_000_000
USD_MAX = 10**7
"""The largest amount that a form may have."""


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
    """Show the balance, and a page of consumptions, or of purchases where the query says so."""
    customer, of_purchases = visit.path_parameter("customer"), "purchases" in visit.request.query
    page = {"limit": str(ROWS_MAX)}
    if cursor := visit.request.query.get("cursor"):
        page["cursor"] = cursor
    query, first = {"customer": customer}, {"customer": customer, "limit": str(ROWS_MAX)}
    purchases = await visit.fetch("GET", "/billing/purchases", query=query | page if of_purchases else first)
    consumptions = await visit.fetch("GET", "/billing/consumptions", query=first if of_purchases else query | page)
    return visit.render(
        "customer_credits.html",
        customer=customer,
        held=await visit.fetch("GET", "/billing/balance", query=query),
        purchases=purchases["purchases"],
        more_purchases=purchases.get("next"),
        consumptions=consumptions["consumptions"],
        more=consumptions.get("next"),
    )


async def give_credits(visit: Visit) -> web.Response:
    """Give credits, as goodwill."""
    body: JsonObject = {"millicredits": parse_usd(visit.form.get("usd", ""))}
    if expires := visit.form.get("expires", "").strip():
        body["expires_at"] = expires
    return await _adjust(visit, body, "credits-given")


async def withdraw_credits(visit: Visit) -> web.Response:
    """Take back credits that were given and are unspent."""
    return await _adjust(visit, {"millicredits": -parse_usd(visit.form.get("usd", ""))}, "credits-withdrawn")


async def reverse_consumption(visit: Visit) -> web.Response:
    """Reverse usage that credits have paid for."""
    consumption = visit.form.get("consumption", "")
    body: JsonObject = {"millicredits": parse_usd(visit.form.get("usd", "")), "consumption": consumption}
    return await _adjust(visit, body, "usage-reversed")


async def refund_purchase(visit: Visit) -> web.Response:
    """Pay back a purchase, or a part of it; without an amount all that is unspent."""
    body: JsonObject = {"purchase": visit.form.get("purchase", ""), "why": visit.form.get("why", "")}
    if usd := visit.form.get("usd", "").strip():
        body["millicredits"] = parse_usd(usd)
    await visit.fetch("POST", "/billing/refunds", body=body, once=keys.read_idempotency_key(visit))
    return _return(visit, "purchase-refunded")


async def _adjust(visit: Visit, change: JsonObject, done: str) -> web.Response:
    body = {"customer": visit.path_parameter("customer"), "why": visit.form.get("why", ""), **change}
    await visit.fetch("POST", "/billing/credits/adjust", body=body, once=keys.read_idempotency_key(visit))
    return _return(visit, done)


def _return(visit: Visit, done: str) -> web.Response:
    return visit.redirect(format_path(CREDITS, customer=visit.path_parameter("customer")), done=done)


def parse_usd(written: str) -> int:
    """Return the millicredits of an amount in US dollars, such as 12.34; raises PageError."""
    try:
        amount = Decimal(written.strip()) * MILLICREDITS_OF_USD
        if amount.is_finite() and 0 < amount <= USD_MAX * MILLICREDITS_OF_USD and amount == int(amount):
            return int(amount)
    except ArithmeticError:  # Of what is no number, or one that no memory holds.
        pass
    raise PageError(422, "write the amount in US dollars, such as 12.34")
