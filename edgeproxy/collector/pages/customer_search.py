"""The console's list of customers, and the search for a customer or an invoice."""

import re

from aiohttp import web

from edgeproxy.collector.languages.marks import N_
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.customer_money import may_see_money
from edgeproxy.collector.pages.list_pages import build_view, fetch_from, respond_list
from edgeproxy.collector.pages.lists import Column, Filter, Listing, ListView, sort_by
from edgeproxy.collector.pages.new_customer import NAMELESS, build_id
from edgeproxy.collector.pages.site import ApiRefusedError, Page, Visit, format_path
from edgeproxy.config.collector.catalog import get_default_currency, get_plan_name
from edgeproxy.config.collector.currency_units import DECIMALS

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
        Column("state", N_("State")),
        Column("last_call_on", N_("Last call")),
        Column("created_at", N_("Since")),
    ),
    sort_by("created_at", "name", "tier", "-last_call_on"),
    (Filter("tier", N_("Tier")), Filter("not_called_days", N_("No call for"))),
    (Column("id", ""), Column("external_id", ""), Column("currency", ""), Column("metadata", "")),
)
MONEY_COLUMNS = (
    Column("plan", N_("Plan")),
    Column("spent", N_("Spent"), is_number=True, is_amount=True),
    Column("overdue", N_("Overdue"), is_number=True, is_amount=True),
    Column("cap_percent", N_("Of the cap"), is_number=True),
)
"""The columns that only readers of invoices have."""
MONEY_FILTERS = (
    Filter("plan", N_("Plan")),
    Filter("min_spent", N_("Spent")),
    Filter("min_overdue", N_("Overdue"), {"1": N_("overdue")}),
    Filter("min_cap_percent", N_("Of the cap")),
)
QUIET_DAYS = (1, 7, 30, 90)
"""The days without a call that can be chosen."""
CAP_PERCENTS = (50, 80, 100)
"""The shares of the spending cap that can be chosen."""
SPENT_UNITS = (1, 100, 1000, 10_000)
"""The amounts that can be chosen, in whole units of the currency that plans have first."""


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
    listing = build_listing(visit)

    async def show(view: ListView) -> web.Response:
        return _render_customers(visit, view)

    return await respond_list(visit, listing, fetch_from(visit, listing, "/v1/customers"), show)


def build_listing(visit: Visit) -> Listing:
    """Return the list with the choices of its filters, and with money for operators who may see it."""
    tiers, reader, settings = sorted(visit.site.tiers), visit.reader, visit.site.settings_now()
    choices: dict[str, dict[str, str]] = {
        "tier": {name: name for name in tiers},
        "not_called_days": {str(days): reader.days(days) for days in QUIET_DAYS},
        "min_cap_percent": {str(percent): f"≥ {reader.share(percent / 100, 0)}" for percent in CAP_PERCENTS},
    }
    listing = LISTING
    if may_see_money(visit):
        currency = get_default_currency(settings.plans)
        amounts = [amount * 10 ** DECIMALS[currency] for amount in SPENT_UNITS]
        choices["min_spent"] = {str(amount): f"≥ {reader.whole_money(amount, currency)}" for amount in amounts}
        choices["plan"] = {name: name for name in sorted({get_plan_name(version) for version in settings.plans})}
        *first, state, last_call, since = LISTING.columns
        listing = LISTING._replace(
            columns=(*first, *MONEY_COLUMNS, state, last_call, since),
            sorts={**LISTING.sorts, **sort_by("plan", "-spent", "-overdue", "-cap_percent")},
            filters=(*LISTING.filters, *MONEY_FILTERS),
            more=(*LISTING.more, Column("spent_at", "")),
        )
    filters = (filter_._replace(choices=choices.get(filter_.name) or filter_.choices) for filter_ in listing.filters)
    return listing._replace(filters=tuple(filters))


async def search_customers(visit: Visit) -> web.Response:
    """Show the customers that match a text. A single match is opened. The text may be a key, so it is in no URL.

    The number of an invoice opens the invoice if the visitor may see invoices.
    """
    search = visit.read_field("q").strip()
    if not search:
        return visit.redirect("/console/customers")
    if (invoice := await _find_invoice(visit, search)) is not None:
        return visit.redirect(format_path(INVOICE, invoice=invoice))
    customers = await _fetch_matches(visit, search)
    # The form of a new customer derives its id from the name that is shown, so that name finds it too.
    if not customers and (derived := build_id(search)) not in (search, NAMELESS):
        customers = await _fetch_matches(visit, derived)
    if len(customers) == 1:
        return visit.redirect(format_path(CUSTOMER, customer=customers[0]["name"]))
    return _render_customers(visit, build_view(visit, build_listing(visit), customers), search)


async def _fetch_matches(visit: Visit, search: str) -> list[JsonDocument]:
    response = await visit.call("GET", "/v1/customers", query={"limit": str(CUSTOMERS_MAX), "search": search})
    if response.status == 400:  # No customer can have such a name.
        return []
    if not response.is_success:
        raise ApiRefusedError(response)
    customers: list[JsonDocument] = response.body["customers"]
    return customers


async def _find_invoice(visit: Visit, number: str) -> str | None:
    """Return the id of the invoice with this number, or None if there is none or the visitor may not see it."""
    if not INVOICE_NUMBER.fullmatch(number) or not may_see_money(visit):
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
        shows_money=may_see_money(visit),
        currency=get_default_currency(visit.site.settings_now().plans),
        customers_max=CUSTOMERS_MAX,
        mark_match=mark_match,
        tiers=sorted(visit.site.tiers),
        admin="admin" in visit.signed_in.who.roles,
        may_support=bool(visit.signed_in.who.roles & {"admin", "support"}),
    )
