"""The navigation of pages: groups of links that a role may see. Pure."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from edgeproxy.collector.accounts.contact_roles import BUILDERS, EVERYBODY, OWNERS, PAYERS
from edgeproxy.collector.languages.marks import N_
from edgeproxy.collector.pages.sessions import SignedIn
from edgeproxy.collector.pages.words import NAVIGATION_GROUPS
from edgeproxy.config.collector.settings import CollectorSettings

INVOICE_READERS: Final = frozenset({"support", "billing", "admin"})
"""Roles that see invoices."""
REVENUE_READERS: Final = frozenset({"billing", "admin"})
"""Roles that see revenue."""


class Services(NamedTuple):
    """The configured parts of the collector."""

    bills: bool
    sells_plans: bool
    sells_credits: bool
    has_webhooks: bool
    has_api: bool
    has_reference: bool
    has_status: bool
    has_residencies: bool


def find_services(settings: CollectorSettings, groups: frozenset[str]) -> Services:
    """Return the configured parts at a listener that serves these groups of pages."""
    api = None if settings.pages is None else settings.pages.api
    return Services(
        bills=settings.billing is not None,
        sells_plans=bool(settings.plans),
        sells_credits=settings.billing is not None and settings.billing.credits is not None,
        has_webhooks=settings.webhooks is not None,
        has_api=api is not None,
        has_reference=api is not None and api.openapi is not None,
        has_status="status" in groups,
        has_residencies=bool(settings.residencies),
    )


class NavigationLink(NamedTuple):
    """A link of the navigation."""

    path: str
    label: str
    current: str
    """The value of aria-current (WAI-ARIA 1.2): `page`, `true` for a page below it, or empty."""


Rule = Callable[[Services, frozenset[str]], object]
"""Decides whether a page exists for these services and roles."""


class NavigationItem(NamedTuple):
    """A page of the navigation, before it is known who visits."""

    label: str
    """The name of the page in English."""
    exists: Rule


def _always(_: Services, __: frozenset[str]) -> bool:
    return True


def _for_admins(_: Services, roles: frozenset[str]) -> bool:
    return "admin" in roles


def _for_billing(services: Services, roles: frozenset[str]) -> bool:
    return services.bills and bool(roles & REVENUE_READERS)


def may_see_invoices(services: Services, roles: frozenset[str]) -> bool:
    """Return True if something is sold here and an operator with these roles may see invoices."""
    return services.bills and bool(roles & INVOICE_READERS)


def _for_residencies(services: Services, roles: frozenset[str]) -> bool:
    return services.has_residencies and bool(roles & {"admin", "billing"})


def _with_status(services: Services, _: frozenset[str]) -> bool:
    return services.has_status


def _with_plans(services: Services, _: frozenset[str]) -> bool:
    return services.sells_plans


def _with_credits(services: Services, _: frozenset[str]) -> bool:
    return services.sells_credits


def _with_webhooks(services: Services, _: frozenset[str]) -> bool:
    return services.has_webhooks


def _with_api(services: Services, _: frozenset[str]) -> bool:
    return services.has_api


def _with_reference(services: Services, _: frozenset[str]) -> bool:
    return services.has_reference


CONSOLE: Mapping[str, Mapping[str, NavigationItem]] = {
    "": {"/console": NavigationItem(N_("Overview"), _always)},
    "traffic": {
        "/console/edges": NavigationItem(N_("Edges"), _always),
        "/console/refusals": NavigationItem(N_("Refusals"), _always),
        "/console/incidents": NavigationItem(N_("Incidents"), _always),
        "/console/alerts": NavigationItem(N_("Alerts"), _always),
    },
    "customers": {
        "/console/customers": NavigationItem(N_("Customers"), _always),
        "/console/audit": NavigationItem(N_("Audit log"), _for_admins),
    },
    "money": {
        "/console/invoices": NavigationItem(N_("Invoices"), may_see_invoices),
        "/console/disputes": NavigationItem(N_("Disputes"), may_see_invoices),
        "/console/price-changes": NavigationItem(N_("Prices"), may_see_invoices),
        "/console/rollout": NavigationItem(N_("Charging"), _for_billing),
        "/console/reconciliation": NavigationItem(N_("Reconciliation"), _for_billing),
        "/console/business-metrics": NavigationItem(N_("Business metrics"), _for_billing),
    },
    "system": {
        "/console/quarantine": NavigationItem(N_("Rejected usage"), _for_admins),
        "/console/tokens": NavigationItem(N_("Machine tokens"), _for_admins),
        "/console/jobs": NavigationItem(N_("Jobs"), _always),
        "/console/residencies": NavigationItem(N_("Residencies"), _for_residencies),
        "/status": NavigationItem(N_("Status"), _with_status),
    },
}
"""The pages of operators, by group."""
PORTAL: Mapping[str, Mapping[str, NavigationItem]] = {
    "": {"/account": NavigationItem(N_("Home"), _always)},
    "usage": {
        "/account/month": NavigationItem(N_("Usage and costs"), _always),
        "/account/usage": NavigationItem(N_("Explore usage"), _always),
        "/account/limits": NavigationItem(N_("Limits"), _always),
        "/account/alerts": NavigationItem(N_("Alerts"), _always),
    },
    "build": {
        "/account/get-started": NavigationItem(N_("Get started"), _with_api),
        "/account/keys": NavigationItem(N_("API keys"), _always),
        "/account/docs": NavigationItem(N_("API reference"), _with_reference),
        "/account/webhooks": NavigationItem(N_("Webhooks"), _with_webhooks),
    },
    "billing": {
        "/account/plan": NavigationItem(N_("Plan"), _with_plans),
        "/account/invoices": NavigationItem(N_("Invoices"), _with_plans),
        "/account/credits": NavigationItem(N_("Credits"), _with_credits),
    },
    "account": {
        "/account/team": NavigationItem(N_("Team"), _always),
        "/account/data": NavigationItem(N_("Your data"), _always),
        "/status": NavigationItem(N_("Status"), _with_status),
    },
}
"""The pages of customers, by group."""
LABELS: Final[Mapping[str, str]] = {
    path: item.label for groups in (CONSOLE, PORTAL) for items in groups.values() for path, item in items.items()
}
"""The name of each page, by its path."""
ROLES_OF_PAGES = {
    "/account/get-started": BUILDERS,
    "/account/keys": BUILDERS,
    "/account/webhooks": BUILDERS,
    "/account/limits/region": BUILDERS,
    "/account/plan": PAYERS,
    "/account/invoices": PAYERS,
    "/account/credits": PAYERS,
    "/account/alerts/spend": PAYERS,
    "/account/alerts/address": OWNERS,
    "/account/team/": OWNERS,
    "/account/data": OWNERS,
}
"""The roles of contacts who may see pages, by the beginning of the path.

The API decides (collector/api/contact_rights.py). This table saves requests that it would refuse.
"""


def is_for(path: str, who: SignedIn) -> bool:
    """Return True if a contact's role may use the page or form at this path. Operators may use all."""
    roles = (roles for start, roles in ROLES_OF_PAGES.items() if path.startswith(start))
    return who.customer is None or who.contact_role in next(roles, EVERYBODY)


def list_groups(
    who: SignedIn, services: Services, path: str, say: Callable[[str], str]
) -> Iterator[tuple[str, list[NavigationLink]]]:
    """Yield the heading and links of each non-empty group. `say` translates."""
    groups = CONSOLE if who.customer is None else PORTAL
    for group, pages in groups.items():
        links = [
            NavigationLink(page, say(item.label), find_current(page, path))
            for page, item in pages.items()
            if item.exists(services, who.roles) and is_for(page, who)
        ]
        if links:
            yield say(NAVIGATION_GROUPS[group]) if group else "", links


def find_current(page: str, path: str) -> str:
    """Return the value of aria-current for the link to `page` on the page at `path`."""
    if page == path:
        return "page"
    if path.startswith("/console/search") and page == "/console/customers":
        return "true"
    is_home = page in ("/console", "/account")
    return "true" if path.startswith(f"{page}/") and not is_home else ""
