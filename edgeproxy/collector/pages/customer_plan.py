"""The console's page of a customer's plan: give one, change it after a preview, discount it, end it."""

from functools import partial

from aiohttp import web

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.pages import keys
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.plans import find_plan_label, parse_change
from edgeproxy.collector.pages.site import ApiRefusedError, Page, Visit, format_path
from edgeproxy.config.collector.catalog import get_plan_name

PLAN = "/console/customers/{customer}/plan"
WHENS = ("now", "period_end")


def list_pages() -> list[Page]:
    """Return the page and its forms."""
    own = (
        ("GET", PLAN, show_plan),
        ("POST", f"{PLAN}/preview", preview_change),
        ("POST", PLAN, change_plan),
        ("POST", f"{PLAN}/coupon", put_coupon),
        ("POST", f"{PLAN}/coupon/remove", remove_coupon),
        ("POST", f"{PLAN}/end/preview", preview_end),
        ("POST", f"{PLAN}/end", end_plan),
        ("POST", f"{PLAN}/keep", keep_plan),
    )
    return [Page(method, path, "operator", handler) for method, path, handler in own]


async def show_plan(visit: Visit) -> web.Response:
    """Show a customer's plan and the forms that change it."""
    return await _render(visit)


async def preview_change(visit: Visit) -> web.Response:
    """Show the cost of a change without making it."""
    held = await _find_subscription(visit)
    body = _parse_change(visit, held)
    preview = await visit.fetch("POST", "/billing/subscription/preview", query=_get_query(visit), body=body)
    return await _render(visit, preview=preview, body=body)


async def change_plan(visit: Visit) -> web.Response:
    """Change the plan, or give the first one."""
    held = await _find_subscription(visit)
    body, query, once = _parse_change(visit, held), _get_query(visit), keys.read_idempotency_key(visit)
    method = "POST" if held is None else "PUT"
    changed = await visit.fetch(method, "/billing/subscription", query=query, body=body, once=once)
    return _redirect(visit, "plan-later" if changed["next_plan"] else "plan")


async def put_coupon(visit: Visit) -> web.Response:
    """Give the subscription a coupon from the current period on."""
    body: JsonObject = {"coupon": visit.read_field("coupon").strip()}
    await visit.fetch("PUT", "/billing/subscription/coupon", query=_get_query(visit), body=body)
    return _redirect(visit, "changed")


async def remove_coupon(visit: Visit) -> web.Response:
    """End the subscription's coupon with the current period."""
    await visit.fetch("DELETE", "/billing/subscription/coupon", query=_get_query(visit))
    return _redirect(visit, "changed")


async def preview_end(visit: Visit) -> web.Response:
    """Show the last invoice of a plan that would end now. An end with the paid period needs no preview."""
    if visit.form.get("when") != "now":
        return await end_plan(visit)
    query = _get_query(visit) | {"ended": "true"}
    return await _render(visit, ending=await visit.fetch("GET", "/billing/invoices/upcoming", query=query))


async def end_plan(visit: Visit) -> web.Response:
    """End the plan, now or at the end of the paid period."""
    when = visit.form.get("when", "period_end")
    await visit.fetch("DELETE", "/billing/subscription", query=_get_query(visit) | {"when": when})
    return _redirect(visit, "ended" if when == "now" else "ending")


async def keep_plan(visit: Visit) -> web.Response:
    """Keep the plan despite a scheduled end or change."""
    held = await visit.fetch("GET", "/billing/subscription", query=_get_query(visit))
    await visit.fetch("PUT", "/billing/subscription", query=_get_query(visit), body={"plan": held["plan"]})
    return _redirect(visit, "kept")


async def _render(visit: Visit, **values: object) -> web.Response:
    customer, query = visit.path_parameter("customer"), _get_query(visit)
    sold = await visit.fetch("GET", "/billing/plans")
    held = await _find_subscription(visit)
    coupon = await visit.call("GET", "/billing/subscription/coupon", query=query)
    return visit.render(
        "customer_plan.html",
        customer=customer,
        sold=sold,
        held=held,
        held_plan=None if held is None else get_plan_name(held["plan"]),
        quantity_max=max((plan["max_quantity"] or 0 for plan in sold["plans"]), default=0),
        coupon=coupon.body if coupon.is_success else None,
        plan_label=partial(find_plan_label, sold),
        may_change=bool(visit.signed_in.who.roles & {"billing", "admin"}),
        **{"preview": None, "ending": None, "body": None, **values},
    )


async def _find_subscription(visit: Visit) -> JsonDocument | None:
    """Return the customer's subscription, or None. Raises PageError."""
    response = await visit.call("GET", "/billing/subscription", query=_get_query(visit))
    if not response.is_success and response.status != 404:
        raise ApiRefusedError(response)
    return response.body if response.is_success else None


def _parse_change(visit: Visit, held: JsonDocument | None) -> JsonObject:
    """Return the API body for a form's change. Raises PageError."""
    body = parse_change(visit, held)
    if held is not None and (when := visit.form.get("when")) in WHENS:
        body["when"] = when
    return body


def _get_query(visit: Visit) -> dict[str, str]:
    return {"customer": visit.path_parameter("customer")}


def _redirect(visit: Visit, done: str) -> web.Response:
    return visit.redirect(format_path(PLAN, **_get_query(visit)), done=done)
