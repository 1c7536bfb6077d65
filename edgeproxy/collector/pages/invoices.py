"""The portal's pages about invoices: open amounts, the upcoming invoice, each invoice, and its files."""

import time
from collections.abc import Iterator

from aiohttp import web

from edgeproxy.base.spreadsheet import render_csv
from edgeproxy.collector.pages import billing_details, rendering
from edgeproxy.collector.pages.api import ApiResponse, JsonDocument
from edgeproxy.collector.pages.forms import is_whole_number
from edgeproxy.collector.pages.invoice_status import compute_overdue_days, find_owed, find_pay_url, is_due
from edgeproxy.collector.pages.list_pages import fetch_from, send_list
from edgeproxy.collector.pages.lists import Column, Listing, sort_by
from edgeproxy.collector.pages.plans import find_subscription
from edgeproxy.collector.pages.site import Page, Visit
from edgeproxy.config.collector.billing import STRIPE
from edgeproxy.config.collector.currency_units import to_decimal

INVOICES = "/account/invoices"
INVOICES_MAX = 24
WITH_PDF = ("open", "paid", "uncollectible", "void")
"""States of invoices with a PDF at Stripe."""
COLUMNS = ("number", "state", "issued_at", "due_at", "paid_at", "period_start", "period_end", "currency")
AMOUNTS = ("subtotal", "total", "amount_due", "amount_paid", "amount_credited", "amount_refunded")
FILE = Listing(
    "invoices",
    (*(Column(name, "") for name in COLUMNS), *(Column(name, "", is_amount=True) for name in AMOUNTS)),
    sort_by("-created_at"),
)
"""The file of all invoices."""
LINE_COLUMNS = ("text", "kind", "meter", "value", "start", "end")


def list_pages() -> list[Page]:
    """Return the pages and the forms."""
    one = f"{INVOICES}/{{invoice}}"
    own = (
        ("GET", INVOICES, show_invoices),
        ("POST", f"{INVOICES}/stripe", open_customer_portal),
        *billing_details.list_pages(),
        ("GET", one, show_invoice),
        ("GET", f"{one}/pdf", open_pdf),
        ("GET", f"{one}/csv", send_lines),
    )
    return [Page(method, path, "customer", handler) for method, path, handler in own]


def find_stripe_base(visit: Visit) -> str:
    """Return the URL of Stripe's API."""
    billing = visit.site.settings_now().billing
    return STRIPE if billing is None else billing.stripe.base


async def fetch_open(visit: Visit) -> ApiResponse:
    """Fetch the customer's open invoices that are due first."""
    query = {"limit": str(INVOICES_MAX), "state": "open", "sort": "due_at"}
    return await visit.call("GET", "/billing/invoices", query=query)


async def show_invoices(visit: Visit) -> web.StreamResponse:
    """Show the customer's invoices, newest first, and the upcoming one. With `format=csv` send a file of all."""
    if visit.request.query.get("format") == "csv":
        return await send_list(visit, FILE, fetch_from(visit, FILE, "/billing/invoices"))
    query = {"limit": str(INVOICES_MAX)}
    if cursor := visit.request.query.get("cursor"):
        query["cursor"] = cursor
    body = await visit.fetch("GET", "/billing/invoices", query=query)
    opened = await fetch_open(visit)
    upcoming = None
    if await find_subscription(visit) is not None:
        response = await visit.call("GET", "/billing/invoices/upcoming", query={"projected": "true"})
        upcoming = response.body if response.is_success else None
    now, base = time.time(), find_stripe_base(visit)
    return visit.render(
        "invoices.html",
        details=await billing_details.find_details(visit),
        describe_method=billing_details.describe_method,
        invoices=body["invoices"],
        overdue={invoice["id"]: compute_overdue_days(invoice, now) for invoice in body["invoices"]},
        pay_urls={invoice["id"]: find_pay_url(invoice, base) for invoice in body["invoices"]},
        with_pdf=WITH_PDF,
        owed=find_owed(opened.body["invoices"], now, base) if opened.is_success else [],
        more=body.get("next"),
        upcoming=upcoming,
    )


def read_first_line(visit: Visit) -> int:
    """Return the number of the first line on this page of an invoice."""
    cursor = visit.request.query.get("cursor", "")
    return int(cursor) if is_whole_number(cursor) else 0


async def show_invoice(visit: Visit) -> web.Response:
    """Show an invoice with its lines."""
    invoice, now = await visit.fetch("GET", "/billing/invoices/{invoice}"), time.time()
    return visit.render(
        "invoice.html",
        result=invoice,
        first_line=read_first_line(visit),
        days=compute_overdue_days(invoice, now),
        is_due=is_due(invoice, now),
        pay_url=find_pay_url(invoice, find_stripe_base(visit)),
        with_pdf=WITH_PDF,
    )


async def open_pdf(visit: Visit) -> web.Response:
    """Redirect to the PDF of an invoice."""
    response = await visit.require("GET", "/billing/invoices/{invoice}/pdf")
    return visit.redirect(response.fields["Location"])


async def send_lines(visit: Visit) -> web.Response:
    """Send the lines of an invoice as CSV."""
    invoice = await visit.fetch("GET", "/billing/invoices/{invoice}")
    return rendering.respond_csv(render_csv(to_line_rows(invoice)), f"invoice-{invoice['id']}.csv")


async def open_customer_portal(visit: Visit) -> web.Response:
    """Open a session at Stripe for entering cards. The page links to it."""
    body = {"return_url": f"{visit.site.url}{INVOICES}"}
    session = await visit.fetch("POST", "/billing/portal", body=body)
    opened = await fetch_open(visit)
    owed = find_owed(opened.body["invoices"], time.time(), find_stripe_base(visit)) if opened.is_success else []
    return visit.render("payment_details.html", url=session["url"], owed=owed)


def to_line_rows(invoice: JsonDocument) -> Iterator[tuple[str, ...]]:
    """Yield the header and the lines of an invoice for a file."""
    yield ("invoice", *LINE_COLUMNS, "quantity", "currency", "amount")
    number, currency = str(invoice["number"] or invoice["id"]), invoice["currency"]
    for line in invoice["lines"]:
        texts = [str(line[name] or "") for name in LINE_COLUMNS]
        yield (number, *texts, str(line["quantity"]), currency, str(to_decimal(line["amount"], currency)))
