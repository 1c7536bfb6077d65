"""The portal's pages about prepaid credits: the balance, purchases, and monthly statements."""

from decimal import Decimal

from aiohttp import web
from typing_extensions import TypedDict

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.pages import keys
from edgeproxy.collector.pages.site import Page, PageError, Visit
from edgeproxy.config.collector.credits import PACKAGE_CENTS_MAX, PACKAGE_CENTS_MIN
from edgeproxy.config.collector.currency_units import USD

CREDITS = "/account/credits"
PURCHASES_MAX = 24
MILLICREDITS_PER_CENT = 10_000


class StatementLineView(TypedDict):
    """A line of a statement, as far as it is read here."""

    millicredits: int


class StatementView(TypedDict):
    """A statement of the API, as far as it is read here; amounts are millicredits."""

    opening: int
    lines: list[StatementLineView]


def list_pages() -> list[Page]:
    """Return the pages and the forms."""
    own = (
        ("GET", CREDITS, show_credits),
        ("POST", f"{CREDITS}/buy", buy_credits),
        ("GET", f"{CREDITS}/purchases/{{purchase}}/receipt", open_receipt),
        ("GET", f"{CREDITS}/statements/{{month}}", show_statement),
    )
    return [Page(method, path, "customer", handler) for method, path, handler in own]


async def show_credits(visit: Visit) -> web.Response:
    """Show the balance, the purchases, and the months that have statements."""
    query = {"limit": str(PURCHASES_MAX)}
    if cursor := visit.request.query.get("cursor"):
        query["cursor"] = cursor
    purchases = await visit.fetch("GET", "/billing/purchases", query=query)
    charged = await visit.fetch("GET", "/billing/status")
    billing = visit.site.settings_now().billing
    terms = None if billing is None else billing.credits
    customer = await visit.fetch("GET", "/v1/customers/{customer}", names={"customer": visit.customer})
    return visit.render(
        "credits.html",
        held=await visit.fetch("GET", "/billing/balance"),
        purchases=purchases["purchases"],
        more=str(purchases.get("next", "")),
        months=(await visit.fetch("GET", "/billing/statements"))["statements"],
        sold=charged["purchase"] and charged["mode"] != "off" and customer["currency"] in (None, USD),
        packages=() if terms is None else terms.packages,
        least=PACKAGE_CENTS_MIN,
        most=PACKAGE_CENTS_MAX,
        millicredits=MILLICREDITS_PER_CENT,
    )


async def buy_credits(visit: Visit) -> web.Response:
    """Begin a purchase of credits; the page links to Stripe, where it is paid."""
    cents = parse_cents(visit.form.get("usd", ""))
    back = f"{visit.site.url}{CREDITS}"
    body: JsonObject = {
        "millicredits": cents * MILLICREDITS_PER_CENT,
        "success_url": f"{back}?done=bought",
        "cancel_url": back,
    }
    checkout = await visit.fetch("POST", "/billing/checkout", body=body, once=keys.read_idempotency_key(visit))
    return visit.render("checkout.html", cents=cents, credits=cents * MILLICREDITS_PER_CENT, url=checkout["url"])


def parse_cents(written: str) -> int:
    """Return the cents of an amount in US dollars, with a point or a comma before the cents; raises PageError."""
    try:
        cents = Decimal(written.strip().replace(",", ".")) * 100
        if cents.is_finite() and PACKAGE_CENTS_MIN <= cents <= PACKAGE_CENTS_MAX and cents == int(cents):
            return int(cents)
    except ArithmeticError:  # Of what is no number, or one that no memory holds.
        pass
    least, most = PACKAGE_CENTS_MIN / 100, PACKAGE_CENTS_MAX / 100
    raise PageError(422, f"write an amount from {least:g} to {most:g} US dollars, in whole cents")


async def open_receipt(visit: Visit) -> web.Response:
    """Redirect to the receipt of a purchase."""
    names = {"purchase": visit.path_parameter("purchase")}
    response = await visit.require("GET", "/billing/purchases/{purchase}/receipt", names=names)
    return visit.redirect(response.fields["Location"])


async def show_statement(visit: Visit) -> web.Response:
    """Show the statement of a month; `.csv` or `.pdf` after the month sends it as a file."""
    month = visit.path_parameter("month")
    response = await visit.require("GET", "/billing/statements/{month}", names={"month": month})
    if response.body is None:
        return visit.send_file(response)
    return visit.render("statement.html", month=month, lines=add_balances(response.body), result=response.body)


def add_balances(statement: StatementView) -> list[dict[str, object]]:
    """Return the lines of a statement, each with the balance after it."""
    lines, balance = [], statement["opening"]
    for line in statement["lines"]:
        balance += line["millicredits"]
        lines.append({**line, "balance": balance})
    return lines
