"""The forms of automatic top-up on the pages of credits, for customers and operators: a preview, on, and off."""

from aiohttp import web

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.pages import credits, customer_credits
from edgeproxy.collector.pages.credits import TOP_UP, parse_purchase
from edgeproxy.collector.pages.site import Audience, Page, PageError, Visit, format_path
from edgeproxy.collector.problems import billing_codes
from edgeproxy.config.collector.credits import MONTH_PURCHASES_MAX
from edgeproxy.config.collector.currency_units import MILLICREDITS, get_payable_unit


def list_pages() -> list[Page]:
    """Return the forms of both pages."""
    roots: dict[Audience, str] = {"customer": credits.CREDITS, "operator": customer_credits.CREDITS}
    return [
        Page("POST", f"{root}/top-up{path}", who, handler)
        for who, root in roots.items()
        for path, handler in (("/preview", preview_top_up), ("", put_top_up), ("/off", turn_off))
    ]


async def preview_top_up(visit: Visit) -> web.Response:
    """Show in words what automatic top-up would do. Nothing is changed."""
    body = await _parse_form(visit)
    top_up = await visit.fetch("PUT", TOP_UP, query=_get_query(visit) | {"dry_run": "true"}, body=body)
    fields = {name: visit.form[name] for name in ("below", "amount", "month_max")}
    return visit.render("top_up.html", top_up=top_up, fields=fields, root=_get_root(visit))


async def put_top_up(visit: Visit) -> web.Response:
    """Turn automatic top-up on, or change its amounts."""
    await visit.fetch("PUT", TOP_UP, query=_get_query(visit), body=await _parse_form(visit))
    return visit.redirect(_get_root(visit), done="top-up-on")


async def turn_off(visit: Visit) -> web.Response:
    """Turn automatic top-up off."""
    await visit.fetch("DELETE", TOP_UP, query=_get_query(visit))
    return visit.redirect(_get_root(visit), done="top-up-off")


async def _parse_form(visit: Visit) -> JsonObject:
    """Return the amounts of the form as the API takes them. Raises PageError."""
    currency = (await visit.fetch("GET", "/billing/balance", query=_get_query(visit)))["currency"]
    terms = credits.get_terms(visit)
    if terms is None or not terms.list_packages(currency):
        raise PageError(billing_codes.CURRENCY_NOT_SOLD, f"no credits are sold in {currency.upper()}")
    unit, (least, most) = get_payable_unit(currency), terms.find_bounds(currency)
    amount = parse_purchase(visit.read_field("amount"), currency, (least, most))
    below = parse_purchase(visit.read_field("below"), currency, (unit, amount))
    month_max = parse_purchase(visit.read_field("month_max"), currency, (amount, most * MONTH_PURCHASES_MAX))
    amounts = {"below": below, "millicredits": amount, "month_max": month_max}
    return {name: cents * MILLICREDITS for name, cents in amounts.items()}


def _get_query(visit: Visit) -> dict[str, str]:
    """Return the query that names the customer of an operator's page."""
    return {} if visit.signed_in.who.customer is not None else {"customer": visit.path_parameter("customer")}


def _get_root(visit: Visit) -> str:
    """Return the page of credits that the form is on."""
    if visit.signed_in.who.customer is not None:
        return credits.CREDITS
    return format_path(customer_credits.CREDITS, customer=visit.path_parameter("customer"))
