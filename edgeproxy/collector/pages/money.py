"""The console's pages about billing: its status, invoices, reconciliation, business metrics."""

from calendar import monthrange
from collections.abc import Sequence

from aiohttp import web

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.alerts.words import DISPUTE_STATES, RECONCILED
from edgeproxy.collector.languages.marks import N_
from edgeproxy.collector.pages import keys
from edgeproxy.collector.pages.api import JsonDocument, RequestOptions
from edgeproxy.collector.pages.forms import is_whole_number
from edgeproxy.collector.pages.invoices import read_first_line
from edgeproxy.collector.pages.list_pages import fetch_from, respond_list
from edgeproxy.collector.pages.lists import Column, Filter, Listing, ListView, read_query, sort_by
from edgeproxy.collector.pages.plans import find_held_label
from edgeproxy.collector.pages.site import Page, PageError, Visit, format_path
from edgeproxy.collector.pages.words import INVOICE_STATES
from edgeproxy.collector.problems import page_codes
from edgeproxy.config.collector.currency_units import DECIMALS, USD, get_payable_unit, parse_amount, to_decimal

ROLLOUT, INVOICES, RECONCILIATION = "/console/rollout", "/console/invoices", "/console/reconciliation"
DISPUTES, BUSINESS_METRICS = "/console/disputes", "/console/business-metrics"
INVOICE = f"{INVOICES}/{{invoice}}"
ENDED = frozenset({"paid", "void", "waived", "uncollectible"})
"""Final states of invoices. The API does not sort invoices in these states by amount."""
INVOICE_LIST = Listing(
    "invoices",
    (
        Column("customer", N_("Customer")),
        Column("kind", N_("For")),
        Column("state", N_("State")),
        Column("due_at", N_("Due")),
        Column("total", N_("Total"), is_number=True, is_amount=True),
        Column("amount_due", N_("To pay"), is_number=True, is_amount=True),
        Column("held_why", N_("Why it is held")),
    ),
    sort_by("-created_at", "due_at", "-total", "-amount_due"),
    (Filter("state", N_("State"), INVOICE_STATES), Filter("customer", N_("Customer"))),
    (
        *(
            Column(name, "")
            for name in ("id", "number", "period_start", "period_end", "currency", "issued_at", "paid_at", "created_at")
        ),
        *(
            Column(name, "", is_amount=True)
            for name in ("subtotal", "amount_paid", "amount_credited", "amount_refunded")
        ),
    ),
)
DISPUTE_LIST = Listing(
    "disputes",
    (
        Column("customer", N_("Customer")),
        Column("state", N_("State")),
        Column("reason", N_("Why")),
        Column("answer_by", N_("Answer by")),
        Column("amount", N_("Disputed"), is_number=True, is_amount=True),
        Column("amount_lost", N_("Taken back by the bank"), is_number=True, is_amount=True),
    ),
    sort_by("-created_at"),
    (
        Filter("state", N_("State"), {"open": N_("not decided"), **DISPUTE_STATES}, default="open"),
        Filter("customer", N_("Customer")),
    ),
    tuple(
        Column(name, "") for name in ("id", "stripe_id", "invoice", "purchase", "currency", "created_at", "closed_at")
    ),
)
RECONCILIATIONS_MAX = 100
"""Reconciliations to fetch, for finding the latest of each kind."""
SHOWN_MAX = 30
"""Reconciliations shown."""
ROWS_MAX = 20
"""Rows shown per reconciliation."""
UNITS_SUFFIX = " in units"
"""The API's suffix of a meter with a difference in units instead of amounts."""
CUSTOMERS_MAX, INVOICES_MAX = 20, 24
"""Customers whose invoices are looked up, and invoices per customer."""
MESSAGE_CHARACTERS_MAX = 200
"""Most characters of the notice to customers while charging is stopped."""


def list_pages() -> list[Page]:
    """Return the pages and the forms."""
    own = (
        ("GET", ROLLOUT, show_rollout),
        ("POST", f"{ROLLOUT}/stop", stop_charging),
        ("POST", f"{ROLLOUT}/resume", resume_charging),
        ("POST", f"{ROLLOUT}/percent", change_percent),
        ("GET", INVOICES, show_invoices),
        ("GET", DISPUTES, show_disputes),
        ("GET", INVOICE, show_invoice),
        ("GET", f"{INVOICE}/lines/{{line}}", explain_line),
        ("POST", f"{INVOICE}/hold", hold_invoice),
        ("POST", f"{INVOICE}/accept", accept_invoice),
        ("POST", f"{INVOICE}/void", void_invoice),
        ("POST", f"{INVOICE}/credit", credit_invoice),
        ("POST", f"{INVOICE}/settle", settle_invoice),
        ("POST", f"{INVOICE}/write-off", write_off_invoice),
        ("GET", RECONCILIATION, show_reconciliation),
        ("GET", BUSINESS_METRICS, show_business_report),
    )
    return [Page(method, path, "operator", handler) for method, path, handler in own]


# ---- billing status


async def show_rollout(visit: Visit) -> web.Response:
    """Show the share of customers who are charged, and the gates of the next step."""
    return visit.render(
        "rollout.html", rollout=await visit.fetch("GET", "/billing/rollout"), saying_max=MESSAGE_CHARACTERS_MAX
    )


async def stop_charging(visit: Visit) -> web.Response:
    """Stop charging all customers."""
    body: JsonObject = {"charging": False, "why": visit.read_field("why")}
    if message := visit.read_field("message").strip():
        body["message"] = message
    return await _change_rollout(visit, body, "uncharged")


async def resume_charging(visit: Visit) -> web.Response:
    """Resume charging."""
    return await _change_rollout(visit, {"charging": True, "why": visit.read_field("why")}, "charged")


async def change_percent(visit: Visit) -> web.Response:
    """Set the share of customers who are charged, in percent."""
    percent = visit.read_field("percent").strip()
    if not is_whole_number(percent):
        raise PageError(page_codes.PERCENT_INVALID, "percent is a whole number from 0 to 100")
    body: JsonObject = {"percent": int(percent), "why": visit.read_field("why")}
    if force := visit.read_field("force").strip():
        body["force"] = force
    return await _change_rollout(visit, body, "stepped")


async def _change_rollout(visit: Visit, body: JsonObject, done: str) -> web.Response:
    await visit.fetch("PUT", "/billing/rollout", body=body)
    return visit.redirect(ROLLOUT, done=done)


# ---- invoices


async def show_invoices(visit: Visit) -> web.Response:
    """Show the invoices of all customers, by default held ones."""
    listing, (_, values) = INVOICE_LIST, read_query(INVOICE_LIST, visit.request.query)
    if not values["customer"] and values["state"] in ("", *ENDED):  # The API sorts only lists of bounded length.
        listing = listing._replace(sorts=sort_by("-created_at"))

    async def show(view: ListView) -> web.Response:
        return visit.render("customer_invoices.html", view=view)

    return await respond_list(visit, listing, fetch_from(visit, listing, "/billing/invoices"), show)


async def show_disputes(visit: Visit) -> web.Response:
    """Show the disputed payments of all customers, by default undecided ones."""

    async def show(view: ListView) -> web.Response:
        return visit.render("disputes.html", view=view)

    return await respond_list(visit, DISPUTE_LIST, fetch_from(visit, DISPUTE_LIST, "/billing/disputes"), show)


async def show_invoice(visit: Visit) -> web.Response:
    """Show an invoice with its lines and the actions of operators."""
    shown_invoice = await visit.fetch("GET", "/billing/invoices/{invoice}")
    currency = shown_invoice["currency"]
    return visit.render(
        "customer_invoice.html",
        result=shown_invoice,
        first_line=read_first_line(visit),
        least=to_decimal(get_payable_unit(currency), currency),
        due=to_decimal(shown_invoice["amount_due"], currency),
    )


async def explain_line(visit: Visit) -> web.Response:
    """Show why a line of an invoice has its amount."""
    names = {"invoice": visit.path_parameter("invoice"), "line": visit.path_parameter("line")}
    why = await visit.fetch("GET", "/billing/invoices/{invoice}/lines/{line}")
    invoice = await visit.fetch("GET", "/billing/invoices/{invoice}", names={"invoice": names["invoice"]})
    label = find_held_label(visit.site.settings_now().plans, why["plan"])
    return visit.render("invoice_line.html", result=why, plan_label=label, currency=invoice["currency"])


async def hold_invoice(visit: Visit) -> web.Response:
    """Hold a draft for a person to decide on."""
    return await _apply_decision(visit, "hold", {})


async def accept_invoice(visit: Visit) -> web.Response:
    """Accept a held invoice. It is sent unchanged."""
    return await _apply_decision(visit, "accept", {})


async def void_invoice(visit: Visit) -> web.Response:
    """Void an invoice."""
    return await _apply_decision(visit, "void", {})


async def write_off_invoice(visit: Visit) -> web.Response:
    """Write off the unpaid amount of an invoice."""
    return await _apply_decision(visit, "write-off", {})


async def settle_invoice(visit: Visit) -> web.Response:
    """Mark an invoice as paid by a transfer."""
    return await _apply_decision(visit, "settle", {"amount": _read_invoice_amount(visit)})


async def credit_invoice(visit: Visit) -> web.Response:
    """Credit a part of an invoice."""
    return await _apply_decision(visit, "credit", {"amount": _read_invoice_amount(visit)})


def _read_invoice_amount(visit: Visit) -> int:
    """Return the amount in a form about an invoice, in smallest units of the form's currency. Raises PageError."""
    currency = visit.form.get("currency", USD)
    if currency not in DECIMALS:
        raise PageError(page_codes.FORM_INCOMPLETE, "the form has a currency that no invoice has")
    return read_amount(visit.read_field("amount"), currency)


async def _apply_decision(visit: Visit, what: str, more: JsonObject) -> web.Response:
    names = {"invoice": visit.path_parameter("invoice")}
    options: RequestOptions = {"names": names, "body": {"why": visit.read_field("why"), **more}}
    options["once"] = keys.read_idempotency_key(visit)
    await visit.fetch("POST", f"/billing/invoices/{{invoice}}/{what}", **options)
    return visit.redirect(format_path(INVOICE, **names), done=f"invoice-{what}")


def read_amount(written: str, currency: str) -> int:
    """Return an amount from a number field, for example 12.34, in smallest units. Raises PageError."""
    try:
        return parse_amount(written, currency)
    except ValueError as error:
        example = str(to_decimal(1234, currency))
        raise PageError(page_codes.AMOUNT_INVALID, f"what was written {error}", params={"example": example}) from None


# ---- reconciliation


async def show_reconciliation(visit: Visit) -> web.Response:
    """Show the latest comparison of each pair of books, and the differences."""
    kind = visit.request.query.get("kind", "")
    query = {"limit": str(RECONCILIATIONS_MAX)}
    reconciliations = (await visit.fetch("GET", "/billing/reconciliation", query=query))["reconciliations"]
    latest: dict[str, JsonDocument] = dict.fromkeys(RECONCILED)
    for reconciliation in reversed(reconciliations):
        latest[reconciliation["kind"]] = reconciliation
    only = kind if kind in RECONCILED else ""
    selected = [reconciliation for reconciliation in reconciliations if only in ("", reconciliation["kind"])][
        :SHOWN_MAX
    ]
    differing = [reconciliation for reconciliation in selected if reconciliation["rows"]]
    return visit.render(
        "reconciliation.html",
        differing=differing,
        agreeing=[
            reconciliation
            for reconciliation in selected
            if not reconciliation["rows"] and (only or reconciliation == latest[reconciliation["kind"]])
        ],
        latest=latest,
        only=only,
        invoices=await _fetch_differing_invoices(visit, differing),
        currency=_find_only_currency(visit),
        rows_max=ROWS_MAX,
        units_suffix=UNITS_SUFFIX,
    )


def _find_only_currency(visit: Visit) -> str:
    """Return the only currency of all prices, or "" if there are several."""
    settings = visit.site.settings_now()
    sold = {currency for plan in settings.plans.values() for currency in (plan.currency, *plan.others)}
    if settings.billing is not None and settings.billing.credits is not None:
        sold |= settings.billing.credits.meters.keys()
    return next(iter(sold), USD) if len(sold) < 2 else ""


async def _fetch_differing_invoices(
    visit: Visit, reconciliations: Sequence[JsonDocument]
) -> dict[tuple[str, str], JsonDocument]:
    """Return the invoices with shown differences, by customer and beginning of the period."""
    differing = [
        (str(row["customer"]), str(reconciliation["since"]), str(reconciliation["until"]))
        for reconciliation in reconciliations
        if reconciliation["kind"] == "C"
        for row in reconciliation["rows"][:ROWS_MAX]
    ]
    invoices: dict[tuple[str, str], JsonDocument] = {}
    for customer in list(dict.fromkeys(customer for customer, *_ in differing))[:CUSTOMERS_MAX]:
        query = {"customer": customer, "limit": str(INVOICES_MAX)}
        response = await visit.call("GET", "/billing/invoices", query=query)
        for invoice in reversed(response.body["invoices"] if response.is_success else ()):
            if (customer, invoice["period_start"], invoice["period_end"]) in differing:
                invoices[customer, invoice["period_start"]] = invoice
    return invoices


# ---- business metrics


async def show_business_report(visit: Visit) -> web.Response:
    """Show revenue, cost and margin by day, the week's largest customers and models, and the month, in a currency."""
    query = {name: visit.request.query.get(name, "").strip() for name in ("month", "currency")}
    query = {name: value for name, value in query.items() if value}
    response = await visit.call("GET", "/billing/executive", query=query)
    if not response.is_success:
        return visit.render_report("business_report.html", response)
    month = response.body["month"]["month"]
    return visit.render_report(
        "business_report.html",
        response,
        places=monthrange(int(month[:4]), int(month[5:]))[1],
        and_currency=f"&currency={response.body['currency']}" if "currency" in query else "",
        before=shift_month(month, -1),
        after=None if not response.body["month"]["is_over"] else shift_month(month, 1),
    )


def shift_month(month: str, step: int) -> str:
    """Return the month `step` months later, in the form 2027-03."""
    number = int(month[:4]) * 12 + int(month[5:]) - 1 + step
    return f"{number // 12:04}-{number % 12 + 1:02}"
