"""The forms on the console's page of a customer that raise its limits temporarily and end a raise."""

from collections.abc import Mapping

from aiohttp import web

from edgeproxy.collector.accounts.limit_raises import FACTORS
from edgeproxy.collector.pages.keys import read_idempotency_key
from edgeproxy.collector.pages.site import Page, Visit, format_path

CUSTOMER = "/console/customers/{customer}"
RAISE = "/v1/customers/{customer}/limits/raise"
SPANS = ("1h", "8h", "24h")
"""Selectable durations of a raise."""


def list_forms() -> list[Page]:
    """Return the forms."""
    return [
        Page("POST", f"{CUSTOMER}/limits/raise", "operator", raise_limits),
        Page("POST", f"{CUSTOMER}/limits/revert", "operator", revert_limits),
    ]


async def fetch_raise(visit: Visit, names: Mapping[str, str]) -> dict[str, object]:
    """Return the raise of a customer's limits with the values for the form's template."""
    body = await visit.fetch("GET", RAISE, names=names)
    return {"raised": body["raised"], "raise_factors": FACTORS, "raise_spans": SPANS}


async def raise_limits(visit: Visit) -> web.Response:
    """Raise a customer's limits temporarily."""
    names, form = {"customer": visit.path_parameter("customer")}, visit.form
    factors = {str(factor): factor for factor in FACTORS}
    body = {
        "factor": factors.get(form.get("factor", "")),
        "for": form.get("for", ""),
        "why": form.get("why", "").strip(),
    }
    await visit.fetch("POST", RAISE, body=body, once=read_idempotency_key(visit))
    return visit.redirect(format_path(CUSTOMER, **names), done="raised")


async def revert_limits(visit: Visit) -> web.Response:
    """End the raise of a customer's limits."""
    names = {"customer": visit.path_parameter("customer")}
    await visit.fetch("DELETE", RAISE)
    return visit.redirect(format_path(CUSTOMER, **names), done="reverted")
