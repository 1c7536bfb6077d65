"""Commands about customers' own webhooks: `webhooks …`."""

from typing import Annotated
from urllib.parse import quote

import typer

from edgeproxy.cli.api import Api, Authorities, CustomerRef, Json, Url, show, table

EndpointRef = Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint's id, as `webhooks ls` lists it.")]
COLUMNS = ("id", "state", "url", "types", "failing_since", "disabled_why")
MESSAGE_COLUMNS = ("id", "at", "type", "state", "attempts", "error", "next_at")


def webhooks_ls(customer: CustomerRef, as_json: Json = False, collector: Url = None, ca: Authorities = None) -> None:
    """List the endpoints of a customer."""
    api = Api(collector, ca)
    table(api.fetch_list(_path(api, customer), "endpoints"), COLUMNS, as_json)


def webhooks_add(
    customer: CustomerRef,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where messages are posted to: https://HOST/PATH.")],
    types: Annotated[
        list[str] | None, typer.Option("--type", help="A type of events, such as invoice.paid; repeatable. Else all.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="A text for people.")] = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Create an endpoint; its secret is shown once."""
    body = {"url": url, "description": description, "types": list(types) if types else None}
    api = Api(collector, ca)
    show(api.call("POST", _path(api, customer), body, create=True), as_json)


def webhooks_show(
    customer: CustomerRef, endpoint: EndpointRef, as_json: Json = False, collector: Url = None, ca: Authorities = None
) -> None:
    """Show an endpoint, without its secret."""
    api = Api(collector, ca)
    show(api.call("GET", _path(api, customer, endpoint)), as_json)


def webhooks_delete(
    customer: CustomerRef, endpoint: EndpointRef, as_json: Json = False, collector: Url = None, ca: Authorities = None
) -> None:
    """Delete an endpoint, and what is on its way to it."""
    api = Api(collector, ca)
    show(api.call("DELETE", _path(api, customer, endpoint)), as_json)


def webhooks_disable(
    customer: CustomerRef, endpoint: EndpointRef, as_json: Json = False, collector: Url = None, ca: Authorities = None
) -> None:
    """Send nothing to an endpoint."""
    api = Api(collector, ca)
    show(api.call("PATCH", _path(api, customer, endpoint), {"state": "disabled"}), as_json)


def webhooks_enable(
    customer: CustomerRef, endpoint: EndpointRef, as_json: Json = False, collector: Url = None, ca: Authorities = None
) -> None:
    """Send to an endpoint again what happens from now on."""
    api = Api(collector, ca)
    show(api.call("PATCH", _path(api, customer, endpoint), {"state": "enabled"}), as_json)


def webhooks_rotate(
    customer: CustomerRef, endpoint: EndpointRef, as_json: Json = False, collector: Url = None, ca: Authorities = None
) -> None:
    """Give an endpoint a new secret, which is shown once; the old one signs too for 24 hours."""
    api = Api(collector, ca)
    show(api.call("POST", f"{_path(api, customer, endpoint)}/secret", create=True), as_json)


def webhooks_test(
    customer: CustomerRef, endpoint: EndpointRef, as_json: Json = False, collector: Url = None, ca: Authorities = None
) -> None:
    """Send a test message."""
    api = Api(collector, ca)
    show(api.call("POST", f"{_path(api, customer, endpoint)}/test"), as_json)


def webhooks_messages(
    customer: CustomerRef,
    endpoint: EndpointRef,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many at most.")] = 20,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """List the messages to an endpoint, the latest first."""
    api = Api(collector, ca)
    rows = api.fetch_list(f"{_path(api, customer, endpoint)}/messages", "messages", limit=str(limit))
    table(rows, MESSAGE_COLUMNS, as_json)


def webhooks_redeliver(
    customer: CustomerRef,
    endpoint: EndpointRef,
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="The message's id, of `webhooks messages`.")],
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Send a message again, also one that was taken."""
    api = Api(collector, ca)
    path = f"{_path(api, customer, endpoint)}/messages/{quote(message, safe='')}/redeliver"
    show(api.call("POST", path), as_json)


def _path(api: Api, customer: str, endpoint: str | None = None) -> str:
    every = api.customer_path(customer, "webhook-endpoints")
    return every if endpoint is None else f"{every}/{quote(endpoint, safe='')}"
