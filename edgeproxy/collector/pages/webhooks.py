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
    endpoints = (await visit.fetch("GET", ALL))["endpoints"]
    for endpoint in endpoints:
        names, query = {"endpoint": endpoint["id"]}, {"limit": MESSAGES_SHOWN}
        listed = await visit.fetch("GET", f"{ONE}/messages", names=names, query=query)
        endpoint["messages"] = listed["messages"]
    return visit.render("webhooks.html", endpoints=endpoints, choices=CHOICES)


async def create_endpoint(visit: Visit) -> web.Response:
    """Create an endpoint and show its secret. No later page shows it."""
    body: JsonObject = {"url": visit.read_field("url").strip()}
    if description := visit.read_field("description").strip():
        body["description"] = description
    if types := [kind.value for kind in CHOICES if kind in visit.form]:
        body["types"] = types
    endpoint = await visit.fetch("POST", ALL, body=body, once=read_idempotency_key(visit))
    return visit.render("webhook_secret.html", endpoint=endpoint)


async def rotate_secret(visit: Visit) -> web.Response:
    """Give an endpoint a new secret and show it."""
    once = read_idempotency_key(visit)
    endpoint = await visit.fetch("POST", f"{ONE}/secret", once=once)
    return visit.render("webhook_secret.html", endpoint=endpoint)


async def send_test(visit: Visit) -> web.Response:
    """Send a test message."""
    await visit.fetch("POST", f"{ONE}/test")
    return visit.redirect(ROOT, done="webhook-sent")


async def enable_endpoint(visit: Visit) -> web.Response:
    """Resume sending to an endpoint."""
    return await _change(visit, {"state": "enabled"})


async def disable_endpoint(visit: Visit) -> web.Response:
    """Stop sending to an endpoint."""
    return await _change(visit, {"state": "disabled"})


async def delete_endpoint(visit: Visit) -> web.Response:
    """Delete an endpoint."""
    await visit.fetch("DELETE", ONE)
    return visit.redirect(ROOT, done="changed")


async def redeliver_message(visit: Visit) -> web.Response:
    """Send a message again."""
    names = {"message": visit.read_field("message") or "-"}
    await visit.fetch("POST", f"{ONE}/messages/{{message}}/redeliver", names=names)
    return visit.redirect(ROOT, done="webhook-sent")


async def _change(visit: Visit, body: JsonObject) -> web.Response:
    await visit.fetch("PATCH", ONE, body=body)
    return visit.redirect(ROOT, done="changed")
