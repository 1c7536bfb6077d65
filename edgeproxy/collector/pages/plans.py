"""A customer's plan and invoices: what is sold, what a change comes to before it is made, what was charged."""

from typing import Any

from aiohttp import web

from edgeproxy.collector.pages import keys
from edgeproxy.collector.pages.site import Fault, Page, Visit

PLAN, INVOICES = "/account/plan", "/account/invoices"
INVOICES_MAX = 24
INTERVALS = ("month", "year")


def pages() -> list[Page]:
    """List the pages and the forms."""
    own = (
        ("GET", PLAN, shown),
        ("POST", f"{PLAN}/preview", preview),
        ("POST", PLAN, change),
        ("POST", f"{PLAN}/end", end),
        ("POST", f"{PLAN}/keep", keep),
        ("GET", INVOICES, invoices),
        ("GET", f"{INVOICES}/{{invoice}}", invoice),
        ("GET", f"{INVOICES}/{{invoice}}/pdf", pdf),
    )
    return [Page(method, path, "customer", handler) for method, path, handler in own]


async def subscription(visit: Visit) -> dict[str, Any] | None:
    """Return the customer's subscription; None where there is none."""
    told = await visit.tell("GET", "/billing/subscription")
    if told.status == 404:
        return None
    if not told.is_success:
        raise Fault(told.status, str(told.body.get("detail", "")))
    found: dict[str, Any] = told.body
    return found


async def shown(visit: Visit) -> web.Response:
    """Show the plan, and all others beside it."""
    sold = await visit.ask("GET", "/billing/plans")
    charged = await visit.ask("GET", "/billing/status")
    return visit.page("plan.html", sold=sold, charged=charged, held=await subscription(visit), intervals=INTERVALS)


async def preview(visit: Visit) -> web.Response:
    """Show what a change would come to; nothing is changed."""
    held = await subscription(visit)
    body = asked(visit, held)
    told = await visit.ask("POST", "/billing/subscription/preview", body=body)
    return visit.page("preview.html", told=told, body=body, held=held)


async def change(visit: Visit) -> web.Response:
    """Change to another plan, or begin with one."""
    held = await subscription(visit)
    body = asked(visit, held)
    if held is None:
        await visit.ask("POST", "/billing/subscription", body=body, once=keys.once_of(visit))
    else:
        await visit.ask("PUT", "/billing/subscription", body=body)
    return visit.go(PLAN, done="plan")


async def end(visit: Visit) -> web.Response:
    """Have the plan end when what is paid ends."""
    await visit.ask("DELETE", "/billing/subscription", query={"when": "period_end"})
    return visit.go(PLAN, done="ending")


async def keep(visit: Visit) -> web.Response:
    """Have the plan go on that was to end, or to change."""
    held = await visit.ask("GET", "/billing/subscription")
    await visit.ask("PUT", "/billing/subscription", body={"plan": held["plan"]})
    return visit.go(PLAN, done="kept")


def asked(visit: Visit, held: dict[str, Any] | None) -> dict[str, Any]:
    """Return the change that a form asks for."""
    body = {"plan": visit.form.get("plan", "")}
    if held is None and (interval := visit.form.get("interval")):
        body["interval"] = interval
    return body


async def invoices(visit: Visit) -> web.Response:
    """Show invoices, the newest first."""
    query = {"limit": str(INVOICES_MAX)}
    if cursor := visit.request.query.get("cursor"):
        query["cursor"] = cursor
    found = await visit.ask("GET", "/billing/invoices", query=query)
    upcoming = None
    if await subscription(visit) is not None:
        told = await visit.tell("GET", "/billing/invoices/upcoming")
        upcoming = told.body if told.is_success else None
    return visit.page("invoices.html", invoices=found["invoices"], more=found.get("next"), upcoming=upcoming)


async def invoice(visit: Visit) -> web.Response:
    """Show an invoice with its lines."""
    names = {"invoice": visit.name("invoice")}
    return visit.page("invoice.html", found=await visit.ask("GET", "/billing/invoices/{invoice}", names=names))


async def pdf(visit: Visit) -> web.Response:
    """Send the browser to the PDF of an invoice."""
    told = await visit.told("GET", "/billing/invoices/{invoice}/pdf", names={"invoice": visit.name("invoice")})
    return visit.go(told.fields["Location"])
