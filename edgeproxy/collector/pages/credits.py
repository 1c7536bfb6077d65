"""A customer's prepaid credits: what there is to spend, what was bought, and statements of each month."""

from decimal import Decimal
from typing import Any

from aiohttp import web

from edgeproxy.collector.pages import keys
from edgeproxy.collector.pages.site import Fault, Page, Visit

CREDITS = "/account/credits"
PURCHASES_MAX = 24
PACKAGES = (1_000, 2_500, 5_000, 10_000, 25_000, 100_000)
"""Cents that a button buys."""
LEAST, MOST = 500, 1_000_000
"""Cents that can be bought at once; the API says so too."""
MILLICREDITS = 10_000
"""Of a cent."""


def pages() -> list[Page]:
    """List the pages and the forms."""
    own = (
        ("GET", CREDITS, shown),
        ("POST", f"{CREDITS}/buy", buy),
        ("GET", f"{CREDITS}/purchases/{{purchase}}/receipt", receipt),
        ("GET", f"{CREDITS}/statements/{{month}}", statement),
    )
    return [Page(method, path, "customer", handler) for method, path, handler in own]


async def shown(visit: Visit) -> web.Response:
    """Show the balance, what was bought, and the months of which there are statements."""
    query = {"limit": str(PURCHASES_MAX)}
    if cursor := visit.request.query.get("cursor"):
        query["cursor"] = cursor
    bought = await visit.ask("GET", "/billing/purchases", query=query)
    charged = await visit.ask("GET", "/billing/status")
    return visit.page(
        "credits.html",
        held=await visit.ask("GET", "/billing/balance"),
        purchases=bought["purchases"],
        more=str(bought.get("next", "")),
        months=(await visit.ask("GET", "/billing/statements"))["statements"],
        sold=charged["purchase"] and charged["mode"] != "off",
        packages=PACKAGES,
        least=LEAST,
        most=MOST,
        millicredits=MILLICREDITS,
    )


async def buy(visit: Visit) -> web.Response:
    """Begin to buy credits: the next page leads to where one pays."""
    cents = cents_of(visit.form.get("usd", ""))
    back = f"{visit.site.url}{CREDITS}"
    body = {"millicredits": cents * MILLICREDITS, "success_url": f"{back}?done=bought", "cancel_url": back}
    made = await visit.ask("POST", "/billing/checkout", body=body, once=keys.once_of(visit))
    return visit.page("checkout.html", cents=cents, credits=cents * MILLICREDITS, url=made["url"])


def cents_of(written: str) -> int:
    """Read an amount of US dollars, with a point or a comma before the cents; raises Fault."""
    try:
        cents = Decimal(written.strip().replace(",", ".")) * 100
        if cents.is_finite() and LEAST <= cents <= MOST and cents == int(cents):
            return int(cents)
    except ArithmeticError:  # Of what is no number, or one that no memory holds.
        pass
    raise Fault(422, f"write an amount from {LEAST / 100:g} to {MOST / 100:g} US dollars, in whole cents")


async def receipt(visit: Visit) -> web.Response:
    """Send the browser to the receipt of a purchase."""
    names = {"purchase": visit.name("purchase")}
    told = await visit.told("GET", "/billing/purchases/{purchase}/receipt", names=names)
    return visit.go(told.fields["Location"])


async def statement(visit: Visit) -> web.Response:
    """Show the statement of a month; with .csv or .pdf behind the month, give it as a file."""
    month = visit.name("month")
    told = await visit.told("GET", "/billing/statements/{month}", names={"month": month})
    if told.body is None:
        return visit.file(told)
    return visit.page("statement.html", month=month, lines=with_balance(told.body), found=told.body)


def with_balance(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the lines of a statement, each with what there was after it."""
    found, balance = [], told["opening"]
    for line in told["lines"]:
        balance += line["millicredits"]
        found.append({**line, "balance": balance})
    return found
