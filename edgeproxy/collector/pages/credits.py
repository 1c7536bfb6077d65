"""The portal's pages about prepaid credits: the balance, purchases, and monthly statements."""

from decimal import Decimal

from aiohttp import web
from typing_extensions import TypedDict

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.pages import keys
from edgeproxy.collector.pages.credit_worth import fetch_outlook
from edgeproxy.collector.pages.site import Page, PageError, Visit
from edgeproxy.collector.problems import billing_codes, page_codes
from edgeproxy.config.collector.credits import Credits
from edgeproxy.config.collector.currency_units import DECIMALS, MILLICREDITS, get_payable_unit, to_decimal

CREDITS = "/account/credits"
TOP_UP = "/billing/credits/top-up"
"""The path of automatic top-up in the API."""
PURCHASES_MAX = 24


class StatementLineView(TypedDict):
    """A statement line. Only the fields of the API that pages read."""

    millicredits: int


class StatementView(TypedDict):
    """A statement. Only the fields of the API that pages read; amounts are millicredits."""

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
    held = await visit.fetch("GET", "/billing/balance")
    currency, terms = held["currency"], get_terms(visit)
    packages = () if terms is None else terms.list_packages(currency)
    least, most = terms.find_bounds(currency) if terms is not None and packages else (0, 0)
    return visit.render(
        "credits.html",
        held=held,
        outlook=await fetch_outlook(visit, terms, currency, held["available"]),
        purchases=purchases["purchases"],
        more=str(purchases.get("next", "")),
        months=(await visit.fetch("GET", "/billing/statements"))["statements"],
        sold=charged["purchase"] and charged["mode"] != "off" and packages,
        packages=packages,
        least=least,
        most=most,
        step=to_decimal(get_payable_unit(currency), currency),
        to_decimal=lambda amount: to_decimal(amount, currency),
        millicredits=MILLICREDITS,
        **await fetch_top_up(visit, currency, {}),
    )


async def fetch_top_up(visit: Visit, currency: str, query: dict[str, str]) -> dict[str, object]:
    """Return the automatic top-up of a customer, and the amounts that its form begins with, or None without a form."""
    top_up, billing = await visit.fetch("GET", TOP_UP, query=query), visit.site.settings_now().billing
    terms = None if billing is None or billing.tax.stripe_tax else billing.credits
    packages = () if terms is None else terms.list_packages(currency)
    amounts: tuple[int, ...] = ()
    if top_up["below"] is not None:
        own = (top_up["below"], top_up["millicredits"], top_up["month_max"])
        amounts = tuple(amount // MILLICREDITS for amount in own)
    elif packages:
        usual = packages[min(1, len(packages) - 1)]
        amounts = (packages[0], usual, 4 * usual)
    values = [f"{to_decimal(amount, currency):f}" for amount in amounts]
    names = ("below", "amount", "month_max")
    return {"top_up": top_up, "top_up_amounts": dict(zip(names, values, strict=False)) if packages else None}


def get_terms(visit: Visit) -> Credits | None:
    """Return the terms of credits, or None if they are not sold."""
    billing = visit.site.settings_now().billing
    return None if billing is None else billing.credits


async def buy_credits(visit: Visit) -> web.Response:
    """Begin a purchase of credits. The page links to Stripe for the payment."""
    terms, currency = get_terms(visit), (await visit.fetch("GET", "/billing/balance"))["currency"]
    if terms is None or not terms.list_packages(currency):
        raise PageError(billing_codes.CURRENCY_NOT_SOLD, f"no credits are sold in {currency.upper()}")
    cents = parse_purchase(visit.read_field("amount"), currency, terms.find_bounds(currency))
    back = f"{visit.site.url}{CREDITS}"
    body: JsonObject = {
        "millicredits": cents * MILLICREDITS,
        "currency": currency,
        "success_url": f"{back}?done=bought",
        "cancel_url": back,
    }
    checkout = await visit.fetch("POST", "/billing/checkout", body=body, once=keys.read_idempotency_key(visit))
    credits = cents * MILLICREDITS
    return visit.render("checkout.html", cents=cents, currency=currency, credits=credits, url=checkout["url"])


def parse_purchase(written: str, currency: str, bounds: tuple[int, int]) -> int:
    """Return an entered amount in smallest units, with a decimal point or comma. Raises PageError if not for sale."""
    least, most = bounds
    try:
        amount = Decimal(written.strip().replace(",", "."))
        cents = amount.scaleb(DECIMALS[currency])
        if cents.is_finite() and least <= cents <= most and cents % get_payable_unit(currency) == 0:
            return int(cents)
    except ArithmeticError:  # The text is no number, or the number is too large for memory.
        pass
    lowest, highest, step = (f"{to_decimal(one, currency):f}" for one in (least, most, get_payable_unit(currency)))
    span = f"from {lowest} to {highest} {currency.upper()}"
    raise PageError(
        page_codes.AMOUNT_NOT_SOLD,
        f"write an amount {span}, in whole parts of {step}",
        params={"least": lowest, "most": highest, "currency": currency.upper(), "step": step},
    )


async def open_receipt(visit: Visit) -> web.Response:
    """Redirect to the receipt of a purchase."""
    response = await visit.require("GET", "/billing/purchases/{purchase}/receipt")
    return visit.redirect(response.fields["Location"])


async def show_statement(visit: Visit) -> web.Response:
    """Show the statement of a month. A suffix `.csv` or `.pdf` of the month sends it as a file."""
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
