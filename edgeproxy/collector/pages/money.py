"""The console's pages about money: whether anybody is charged, invoices, reconciliation, how the business goes."""

from calendar import monthrange
from decimal import Decimal
from typing import Any

from aiohttp import web

from edgeproxy.collector.pages import charts, keys
from edgeproxy.collector.pages.site import Page, PageError, Visit, format_path
from edgeproxy.collector.pages.words import INVOICE_STATES, RECONCILED

ROLLOUT, INVOICES, RECONCILIATION = "/console/rollout", "/console/invoices", "/console/reconciliation"
BUSINESS_METRICS = "/console/business-metrics"
INVOICE = f"{INVOICES}/{{invoice}}"
INVOICES_MAX = 50
RECONCILIATIONS_MAX = 100
"""Reconciliations that are looked at for the last of each kind."""
SHOWN_MAX = 30
CENTS_MAX = 10**15
"""Above what any invoice comes to, and no number that takes long to read."""
MESSAGE_CHARACTERS_MAX = 200
"""Characters of what customers are told while nobody is charged."""


def list_pages() -> list[Page]:
    """List the pages and the forms."""
    own = (
        ("GET", ROLLOUT, show_rollout),
        ("POST", f"{ROLLOUT}/stop", stop_charging),
        ("POST", f"{ROLLOUT}/resume", resume_charging),
        ("POST", f"{ROLLOUT}/percent", change_percent),
        ("GET", INVOICES, show_invoices),
        ("GET", INVOICE, show_invoice),
        ("POST", f"{INVOICE}/hold", hold_invoice),
        ("POST", f"{INVOICE}/accept", accept_invoice),
        ("POST", f"{INVOICE}/void", void_invoice),
        ("POST", f"{INVOICE}/credit", credit_invoice),
        ("GET", RECONCILIATION, show_reconciliation),
        ("GET", BUSINESS_METRICS, show_business_report),
    )
    return [Page(method, path, "operator", handler) for method, path, handler in own]


# ---- whether anybody is charged


async def show_rollout(visit: Visit) -> web.Response:
    """Show who is charged, what stops that, and what the next step up waits for."""
    return visit.render(
        "rollout.html", now=await visit.fetch("GET", "/billing/rollout"), saying_max=MESSAGE_CHARACTERS_MAX
    )


async def stop_charging(visit: Visit) -> web.Response:
    """Charge nobody from now on."""
    body: dict[str, Any] = {"charging": False, "why": visit.form.get("why", "")}
    if message := visit.form.get("message", "").strip():
        body["message"] = message
    return await _change_rollout(visit, body, "uncharged")


async def resume_charging(visit: Visit) -> web.Response:
    """Charge again."""
    return await _change_rollout(visit, {"charging": True, "why": visit.form.get("why", "")}, "charged")


async def change_percent(visit: Visit) -> web.Response:
    """Charge so many percent of customers."""
    percent = visit.form.get("percent", "").strip()
    if not (percent.isascii() and percent.isdigit()):
        raise PageError(422, "percent is a whole number from 0 to 100")
    body: dict[str, Any] = {"percent": int(percent[:9]), "why": visit.form.get("why", "")}
    if force := visit.form.get("force", "").strip():
        body["force"] = force
    return await _change_rollout(visit, body, "stepped")


async def _change_rollout(visit: Visit, body: dict[str, Any], done: str) -> web.Response:
    await visit.fetch("PUT", "/billing/rollout", body=body)
    return visit.redirect(ROLLOUT, done=done)


# ---- invoices


async def show_invoices(visit: Visit) -> web.Response:
    """Show invoices of all customers, first those that wait for a person."""
    query_fields = visit.request.query
    only = {"state": query_fields.get("state", "held"), "customer": query_fields.get("customer", "").strip()}
    if only["state"] not in INVOICE_STATES:
        only["state"] = ""
    query = {"limit": str(INVOICES_MAX)} | {name: value for name, value in only.items() if value}
    if cursor := query_fields.get("cursor"):
        query["cursor"] = cursor
    response = await visit.call("GET", "/billing/invoices", query=query)
    if response.status == 404 and only["customer"]:  # Who cannot be there has none.
        body: dict[str, Any] = {"invoices": []}
    elif response.is_success:
        body = response.body
    else:
        raise PageError(response.status, str(response.body.get("detail", "")))
    return visit.render("customer_invoices.html", invoices=body["invoices"], more=body.get("next"), only=only)


async def show_invoice(visit: Visit) -> web.Response:
    """Show an invoice with its lines, and what can be done with it."""
    shown_invoice = await visit.fetch(
        "GET", "/billing/invoices/{invoice}", names={"invoice": visit.path_parameter("invoice")}
    )
    return visit.render("customer_invoice.html", result=shown_invoice)


async def hold_invoice(visit: Visit) -> web.Response:
    """Have a draft wait until somebody has looked at it."""
    return await _apply_decision(visit, "hold")


async def accept_invoice(visit: Visit) -> web.Response:
    """Have one that is held sent as it is."""
    return await _apply_decision(visit, "accept")


async def void_invoice(visit: Visit) -> web.Response:
    """Take one back."""
    return await _apply_decision(visit, "void")


async def credit_invoice(visit: Visit) -> web.Response:
    """Take some of one back."""
    return await _apply_decision(
        visit, "credit", {"amount": parse_cents(visit.form.get("amount", ""))}, keys.read_idempotency_key(visit)
    )


async def _apply_decision(
    visit: Visit, what: str, more: dict[str, Any] | None = None, once: str | None = None
) -> web.Response:
    names = {"invoice": visit.path_parameter("invoice")}
    body = {"why": visit.form.get("why", ""), **(more or {})}
    await visit.fetch("POST", f"/billing/invoices/{{invoice}}/{what}", names=names, body=body, once=once)
    return visit.redirect(format_path(INVOICE, **names), done=f"invoice-{what}")


def parse_cents(written: str) -> int:
    """Read an amount as number fields send it, 12.34; raises Fault."""
    try:
        amount = Decimal(written.strip()) * 100
        if amount.is_finite() and abs(amount) <= CENTS_MAX and amount == int(amount):
            return int(amount)
    except ArithmeticError:  # Of what is no number, or one that no memory holds.
        pass
    raise PageError(422, "write the amount with at most two places, such as 12.34")


# ---- reconciliation


async def show_reconciliation(visit: Visit) -> web.Response:
    """Show what was held against what: how each pair of books is now, and what differed."""
    kind = visit.request.query.get("kind", "")
    query = {"limit": str(RECONCILIATIONS_MAX)}
    reconciliations = (await visit.fetch("GET", "/billing/reconciliation", query=query))["reconciliations"]
    latest: dict[str, Any] = dict.fromkeys(RECONCILED)
    for one in reversed(reconciliations):
        latest[one["kind"]] = one
    only = kind if kind in RECONCILED else ""
    selected = [one for one in reconciliations if only in ("", one["kind"])]
    return visit.render("reconciliation.html", result=selected[:SHOWN_MAX], latest=latest, only=only)


# ---- how the business goes


async def show_business_report(visit: Visit) -> web.Response:
    """Show revenue, cost and margin by day, the week's largest, and the month."""
    month = visit.request.query.get("month", "").strip()
    response = await visit.call("GET", "/billing/executive", query={"month": month} if month else {})
    if not response.is_success:
        return visit.render_report("business_report.html", response)
    days, month = response.body["days"], response.body["month"]["month"]
    most = max((max(day["revenue"], day["cost"]) for day in days), default=0)
    places = monthrange(int(month[:4]), int(month[5:]))[1]
    margins = [day["margin"] or 0.0 for day in days]
    highest = max([response.body["target"], *margins])
    return visit.render_report(
        "business_report.html",
        response,
        revenue=charts.draw_bars([day["revenue"] for day in days], places, most),
        cost=charts.draw_bars([day["cost"] for day in days], places, most),
        margin=charts.draw_bars(margins, places, highest),
        target=charts.compute_height(response.body["target"], highest),
        before=shift_month(month, -1),
        after=None if not response.body["month"]["is_over"] else shift_month(month, 1),
    )


def shift_month(month: str, step: int) -> str:
    """The month so many after 2027-03."""
    number = int(month[:4]) * 12 + int(month[5:]) - 1 + step
    return f"{number // 12:04}-{number % 12 + 1:02}"
