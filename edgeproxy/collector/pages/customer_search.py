"""The console's list of customers, and the search for a customer or an invoice."""

import re

from aiohttp import web

from edgeproxy.collector.languages.marks import N_
from edgeproxy.collector.pages.list_pages import build_view, fetch_from, respond_list
from edgeproxy.collector.pages.lists import Column, Filter, Listing, ListView, sort_by
from edgeproxy.collector.pages.navigation import INVOICE_READERS
from edgeproxy.collector.pages.site import ApiRefusedError, Page, Visit, format_path

INVOICE_NUMBER = re.compile(r"[A-Za-z0-9]{1,20}-[0-9]{1,10}")
"""The form of the numbers that Stripe prints. A name may have it too."""
CUSTOMERS_MAX = 50
"""Most customers in a search result."""
SEARCH = "/console/search"
CUSTOMER = "/console/customers/{customer}"
INVOICE = "/console/invoices/{invoice}"
LISTING = Listing(
    "customers",
    (
        Column("name", N_("Name")),
        Column("tier", N_("Tier")),
        Column("external_id", N_("External id")),
        Column("state", N_("State")),
        Column("created_at", N_("Since")),
    ),
    sort_by("created_at", "name", "tier"),
    (Filter("tier", N_("Tier")),),
    (Column("id", ""), Column("currency", ""), Column("metadata", "")),
)


def list_pages() -> list[Page]:
    """Return the pages and the form."""
    own = (
        ("GET", "/console/customers", show_customers),
        ("GET", SEARCH, show_customers),
        ("POST", SEARCH, search_customers),
    )
    return [Page(method, path, "operator", handler) for method, path, handler in own]


async def show_customers(visit: Visit) -> web.Response:
    """Show a page of customers."""
    tiers = sorted(visit.site.tiers)
    only = LISTING.filters[0]._replace(choices={name: name for name in tiers} if tiers else None)
    listing = LISTING._replace(filters=(only,))

    async def show(view: ListView) -> web.Response:
        return _render_customers(visit, view)

    return await respond_list(visit, listing, fetch_from(visit, listing, "/v1/customers"), show)


async def search_customers(visit: Visit) -> web.Response:
    """Show the customers that match a text. A single match is opened. The text may be a key, so it is in no URL.

    The number of an invoice opens the invoice if the visitor may see invoices.
    """
    search = visit.form.get("q", "").strip()
    if not search:
        return visit.redirect("/console/customers")
    if (invoice := await _find_invoice(visit, search)) is not None:
        return visit.redirect(format_path(INVOICE, invoice=invoice))
    response = await visit.call("GET", "/v1/customers", query={"limit": str(CUSTOMERS_MAX), "search": search})
    if response.status == 400:  # No customer can have such a name.
        return _render_customers(visit, build_view(visit, LISTING, []), search)
    if not response.is_success:
        raise ApiRefusedError(response)
    if len(response.body["customers"]) == 1:
        return visit.redirect(format_path(CUSTOMER, customer=response.body["customers"][0]["name"]))
    return _render_customers(visit, build_view(visit, LISTING, response.body["customers"]), search)


async def _find_invoice(visit: Visit, number: str) -> str | None:
    """Return the id of the invoice with this number, or None if there is none or the visitor may not see it."""
    if not INVOICE_NUMBER.fullmatch(number) or not visit.signed_in.who.roles & INVOICE_READERS:
        return None
    response = await visit.call("GET", "/billing/invoices", query={"number": number.upper(), "limit": "2"})
    invoices = response.body["invoices"] if response.is_success else []
    return str(invoices[0]["id"]) if len(invoices) == 1 else None


def mark_match(text: str, search: str) -> tuple[str, str, str]:
    """Split a text into the parts before, at and after the searched text."""
    begin = text.lower().find(search.lower())
    if begin < 0:
        return text, "", ""
    end = begin + len(search)
    return text[:begin], text[begin:end], text[end:]


def _render_customers(visit: Visit, view: ListView, search: str = "") -> web.Response:
    return visit.render(
        "customers.html",
        view=view,
        q=search,
        customers_max=CUSTOMERS_MAX,
        mark_match=mark_match,
        tiers=sorted(visit.site.tiers),
        admin="admin" in visit.signed_in.who.roles,
        may_support=bool(visit.signed_in.who.roles & {"admin", "support"}),
    )
