"""The console's list of customers, and the search in it."""

from aiohttp import web

from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.site import Page, PageError, Visit, format_path

CUSTOMERS_MAX = 50
"""Customers of a page."""
SEARCH = "/console/search"
CUSTOMER = "/console/customers/{customer}"


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
    query = {"limit": str(CUSTOMERS_MAX)}
    if cursor := visit.request.query.get("cursor"):
        query["cursor"] = cursor
    return _render_customers(visit, await visit.fetch("GET", "/v1/customers", query=query))


async def search_customers(visit: Visit) -> web.Response:
    """Show the customers that a text may mean; the only one is opened. The text, maybe a key, is in no URL."""
    search = visit.form.get("q", "").strip()
    if not search:
        return visit.redirect("/console/customers")
    response = await visit.call("GET", "/v1/customers", query={"limit": str(CUSTOMERS_MAX), "search": search})
    if response.status == 400:  # No customer can have such a name.
        return _render_customers(visit, {"customers": []}, search)
    if not response.is_success:
        raise PageError(response.status, str(response.body.get("detail", "")))
    if len(response.body["customers"]) == 1:
        return visit.redirect(format_path(CUSTOMER, customer=response.body["customers"][0]["name"]))
    return _render_customers(visit, response.body, search)


def _render_customers(visit: Visit, body: JsonDocument, search: str = "") -> web.Response:
    return visit.render(
        "customers.html",
        customers=body["customers"],
        more=body.get("next"),
        q=search,
        tiers=sorted(visit.site.tiers),
        admin="admin" in visit.signed_in.who.roles,
    )
