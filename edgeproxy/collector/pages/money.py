"""The console's pages about money: whether anybody is charged, invoices, reconciliation, how the business goes."""

from calendar import monthrange
from decimal import Decimal
from typing import Any

from aiohttp import web

from edgeproxy.collector.pages import charts, keys
from edgeproxy.collector.pages.site import Fault, Page, Visit, to
from edgeproxy.collector.pages.words import INVOICE_STATES, RECONCILED

ROLLOUT, INVOICES, RECONCILIATION = "/console/rollout", "/console/invoices", "/console/reconciliation"
FIGURES = "/console/figures"
INVOICE = f"{INVOICES}/{{invoice}}"
INVOICES_MAX = 50
RECONCILIATIONS_MAX = 100
"""Reconciliations that are looked at for the last of each kind."""
SHOWN_MAX = 30
CENTS_MAX = 10**15
"""Above what any invoice comes to, and no number that takes long to read."""
SAYING_MAX = 200
"""Characters of what customers are told while nobody is charged."""


def pages() -> list[Page]:
    """List the pages and the forms."""
    own = (
        ("GET", ROLLOUT, rollout),
        ("POST", f"{ROLLOUT}/stop", stop),
        ("POST", f"{ROLLOUT}/resume", resume),
        ("POST", f"{ROLLOUT}/percent", step),
        ("GET", INVOICES, invoices),
        ("GET", INVOICE, invoice),
        ("POST", f"{INVOICE}/hold", hold),
        ("POST", f"{INVOICE}/accept", accept),
        ("POST", f"{INVOICE}/void", void),
        ("POST", f"{INVOICE}/credit", credit),
        ("GET", RECONCILIATION, reconciliation),
        ("GET", FIGURES, figures),
    )
    return [Page(method, path, "operator", handler) for method, path, handler in own]


# ---- whether anybody is charged


async def rollout(visit: Visit) -> web.Response:
    """Show who is charged, what stops that, and what the next step up waits for."""
    return visit.page("rollout.html", now=await visit.ask("GET", "/billing/rollout"), saying_max=SAYING_MAX)


async def stop(visit: Visit) -> web.Response:
    """Charge nobody from now on."""
    body: dict[str, Any] = {"charging": False, "why": visit.form.get("why", "")}
    if message := visit.form.get("message", "").strip():
        body["message"] = message
    return await _change(visit, body, "uncharged")


async def resume(visit: Visit) -> web.Response:
    """Charge again."""
    return await _change(visit, {"charging": True, "why": visit.form.get("why", "")}, "charged")


async def step(visit: Visit) -> web.Response:
    """Charge so many percent of customers."""
    said = visit.form.get("percent", "").strip()
    if not (said.isascii() and said.isdigit()):
        raise Fault(422, "percent is a whole number from 0 to 100")
    body: dict[str, Any] = {"percent": int(said[:9]), "why": visit.form.get("why", "")}
    if force := visit.form.get("force", "").strip():
        body["force"] = force
    return await _change(visit, body, "stepped")


async def _change(visit: Visit, body: dict[str, Any], done: str) -> web.Response:
    await visit.ask("PUT", "/billing/rollout", body=body)
    return visit.go(ROLLOUT, done=done)


# ---- invoices


async def invoices(visit: Visit) -> web.Response:
    """Show invoices of all customers, first those that wait for a person."""
    asked = visit.request.query
    only = {"state": asked.get("state", "held"), "customer": asked.get("customer", "").strip()}
    if only["state"] not in INVOICE_STATES:
        only["state"] = ""
    query = {"limit": str(INVOICES_MAX)} | {name: value for name, value in only.items() if value}
    if cursor := asked.get("cursor"):
        query["cursor"] = cursor
    told = await visit.tell("GET", "/billing/invoices", query=query)
    if told.status == 404 and only["customer"]:  # Who cannot be there has none.
        found: dict[str, Any] = {"invoices": []}
    elif told.is_success:
        found = told.body
    else:
        raise Fault(told.status, str(told.body.get("detail", "")))
    return visit.page("billed.html", invoices=found["invoices"], more=found.get("next"), only=only)


async def invoice(visit: Visit) -> web.Response:
    """Show an invoice with its lines, and what can be done with it."""
    found = await visit.ask("GET", "/billing/invoices/{invoice}", names={"invoice": visit.name("invoice")})
    return visit.page("billed_one.html", found=found)


async def hold(visit: Visit) -> web.Response:
    """Have a draft wait until somebody has looked at it."""
    return await _decide(visit, "hold")


async def accept(visit: Visit) -> web.Response:
    """Have one that is held sent as it is."""
    return await _decide(visit, "accept")


async def void(visit: Visit) -> web.Response:
    """Take one back."""
    return await _decide(visit, "void")


async def credit(visit: Visit) -> web.Response:
    """Take some of one back."""
    return await _decide(visit, "credit", {"amount": cents(visit.form.get("amount", ""))}, keys.once_of(visit))


async def _decide(visit: Visit, what: str, more: dict[str, Any] | None = None, once: str | None = None) -> web.Response:
    names = {"invoice": visit.name("invoice")}
    body = {"why": visit.form.get("why", ""), **(more or {})}
    await visit.ask("POST", f"/billing/invoices/{{invoice}}/{what}", names=names, body=body, once=once)
    return visit.go(to(INVOICE, **names), done=f"invoice-{what}")


def cents(said: str) -> int:
    """Read an amount as number fields send it, 12.34; raises Fault."""
    try:
        amount = Decimal(said.strip()) * 100
        if amount.is_finite() and abs(amount) <= CENTS_MAX and amount == int(amount):
            return int(amount)
    except ArithmeticError:  # Of what is no number, or one that no memory holds.
        pass
    raise Fault(422, "write the amount with at most two places, such as 12.34")


# ---- reconciliation


async def reconciliation(visit: Visit) -> web.Response:
    """Show what was held against what: how each pair of books is now, and what differed."""
    kind = visit.request.query.get("kind", "")
    query = {"limit": str(RECONCILIATIONS_MAX)}
    found = (await visit.ask("GET", "/billing/reconciliation", query=query))["reconciliations"]
    latest: dict[str, Any] = dict.fromkeys(RECONCILED)
    for one in reversed(found):
        latest[one["kind"]] = one
    only = kind if kind in RECONCILED else ""
    shown = [one for one in found if only in ("", one["kind"])]
    return visit.page("reconciliation.html", found=shown[:SHOWN_MAX], latest=latest, only=only)


# ---- how the business goes


async def figures(visit: Visit) -> web.Response:
    """Show revenue, cost and margin by day, the week's largest, and the month."""
    month = visit.request.query.get("month", "").strip()
    told = await visit.tell("GET", "/billing/executive", query={"month": month} if month else {})
    if not told.is_success:
        return visit.figures("figures.html", told)
    days, month = told.body["days"], told.body["month"]["month"]
    most = max((max(day["revenue"], day["cost"]) for day in days), default=0)
    places = monthrange(int(month[:4]), int(month[5:]))[1]
    margins = [day["margin"] or 0.0 for day in days]
    highest = max([told.body["target"], *margins])
    return visit.figures(
        "figures.html",
        told,
        revenue=charts.bars([day["revenue"] for day in days], places, most),
        cost=charts.bars([day["cost"] for day in days], places, most),
        margin=charts.bars(margins, places, highest),
        target=charts.height(told.body["target"], highest),
        before=neighbour(month, -1),
        after=None if not told.body["month"]["is_over"] else neighbour(month, 1),
    )


def neighbour(month: str, step: int) -> str:
    """The month so many after 2027-03."""
    number = int(month[:4]) * 12 + int(month[5:]) - 1 + step
    return f"{number // 12:04}-{number % 12 + 1:02}"
