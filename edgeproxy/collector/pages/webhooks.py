"""The page of a customer's own webhooks: endpoints, their secrets, and their last messages."""

from aiohttp import web

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.pages.keys import read_idempotency_key
from edgeproxy.collector.pages.site import Page, Visit
from edgeproxy.collector.webhooks.event_types import EventType

ROOT = "/account/webhooks"
ALL = "/v1/customers/{customer}/webhook-endpoints"
ONE = f"{ALL}/{{endpoint}}"
MESSAGES_SHOWN = "10"
CHOICES = tuple(kind for kind in EventType if kind is not EventType.WEBHOOK_TEST)
"""Event types in the form. A test message goes to every endpoint."""


def list_pages() -> list[Page]:
    """Return the page and the forms of webhooks."""
    one = f"{ROOT}/{{endpoint}}"
    return [
        Page("GET", ROOT, "customer", show_webhooks),
        Page("POST", ROOT, "customer", create_endpoint),
        Page("POST", f"{one}/rotate", "customer", rotate_secret),
        Page("POST", f"{one}/test", "customer", send_test),
        Page("POST", f"{one}/enable", "customer", enable_endpoint),
        Page("POST", f"{one}/disable", "customer", disable_endpoint),
        Page("POST", f"{one}/delete", "customer", delete_endpoint),
        Page("POST", f"{one}/redeliver", "customer", redeliver_message),
    ]


async def show_webhooks(visit: Visit) -> web.Response:
    """Show the customer's endpoints, each with its last messages."""
    names = {"customer": visit.customer}
    endpoints = (await visit.fetch("GET", ALL, names=names))["endpoints"]
    for endpoint in endpoints:
        own = {**names, "endpoint": endpoint["id"]}
        listed = await visit.fetch("GET", f"{ONE}/messages", names=own, query={"limit": MESSAGES_SHOWN})
        endpoint["messages"] = listed["messages"]
    return visit.render("webhooks.html", endpoints=endpoints, choices=CHOICES)


async def create_endpoint(visit: Visit) -> web.Response:
    """Create an endpoint and show its secret. No later page shows it."""
    body: JsonObject = {"url": visit.form.get("url", "").strip()}
    if description := visit.form.get("description", "").strip():
        body["description"] = description
    if types := [kind.value for kind in CHOICES if kind in visit.form]:
        body["types"] = types
    names = {"customer": visit.customer}
    endpoint = await visit.fetch("POST", ALL, names=names, body=body, once=read_idempotency_key(visit))
    return visit.render("webhook_secret.html", endpoint=endpoint)


async def rotate_secret(visit: Visit) -> web.Response:
    """Give an endpoint a new secret and show it."""
    once = read_idempotency_key(visit)
    endpoint = await visit.fetch("POST", f"{ONE}/secret", names=_read_names(visit), once=once)
    return visit.render("webhook_secret.html", endpoint=endpoint)


async def send_test(visit: Visit) -> web.Response:
    """Send a test message."""
    await visit.fetch("POST", f"{ONE}/test", names=_read_names(visit))
    return visit.redirect(ROOT, done="webhook-sent")


async def enable_endpoint(visit: Visit) -> web.Response:
    """Resume sending to an endpoint."""
    return await _change(visit, {"state": "enabled"})


async def disable_endpoint(visit: Visit) -> web.Response:
    """Stop sending to an endpoint."""
    return await _change(visit, {"state": "disabled"})


async def delete_endpoint(visit: Visit) -> web.Response:
    """Delete an endpoint."""
    await visit.fetch("DELETE", ONE, names=_read_names(visit))
    return visit.redirect(ROOT, done="changed")


async def redeliver_message(visit: Visit) -> web.Response:
    """Send a message again."""
    names = {**_read_names(visit), "message": visit.form.get("message", "") or "-"}
    await visit.fetch("POST", f"{ONE}/messages/{{message}}/redeliver", names=names)
    return visit.redirect(ROOT, done="webhook-sent")


async def _change(visit: Visit, body: JsonObject) -> web.Response:
    await visit.fetch("PATCH", ONE, names=_read_names(visit), body=body)
    return visit.redirect(ROOT, done="changed")


def _read_names(visit: Visit) -> dict[str, str]:
    return {"customer": visit.customer, "endpoint": visit.path_parameter("endpoint")}
