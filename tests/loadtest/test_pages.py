"""The measurement of pages asks for every page of console and portal."""

import re

from edgeproxy.collector.pages_service import list_signed_in_pages
from loadtest import pages

FILES = {
    *(f"/{place}/keys/csv" for place in ("account", "console/customers/{customer}")),
    *("/account/invoices/{invoice}/csv", "/account/invoices/{invoice}/pdf"),
    *("/account/credits/purchases/{purchase}/receipt", "/account/credits/statements/{month}"),
}
"""Files and redirects to them have no budget."""
NOTHING_SHOWN = {
    *("/account/webhooks", "/account/get-started", "/account/docs", "/account/docs/{operation}"),
    *("/console/price-changes/{change}", "/console/invoices/{invoice}/lines/{line}", "/console/residencies"),
}
"""The measured service has no webhooks, description of an API, price change, explained line and residency."""
BY_FORM = {"/console/search"}
"""It is measured by its form (`pages.searches`)."""


def test_each_page_is_measured() -> None:
    measured = [path.partition("?")[0] for _, path, _ in pages.paths(1_000_000)]
    templates = {page.path for page in list_signed_in_pages(sells=True) if page.method == "GET"}
    unmeasured = {
        path
        for path in templates
        if not any(re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), measured_path) for measured_path in measured)
    }
    assert unmeasured == FILES | NOTHING_SHOWN | BY_FORM
