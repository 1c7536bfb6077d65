"""Webhook endpoints, and event destinations of v2."""

from stripe_sandbox.lists import Ids, Parameters
from stripe_sandbox.objects.fields import merge_metadata, require_supported, set_fields
from stripe_sandbox.refusal import invalid_request, unsupported
from stripe_sandbox.transaction import Body, Transaction, format_timestamp, generate_id

ENDPOINTS_MAX = 16


def _require_url(url: str, param: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise invalid_request("Invalid URL: an explicit scheme (such as https) must be provided.", param, "url_invalid")
    return url


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create an endpoint. Its secret is answered once."""
    require_supported(params, "connect")
    if len(tx.all("webhook_endpoint")) >= ENDPOINTS_MAX:
        raise invalid_request(f"You have reached the maximum of {ENDPOINTS_MAX} webhook endpoints.")
    endpoint: Body = {
        "id": generate_id("we"),
        "object": "webhook_endpoint",
        "api_version": params.get("api_version"),
        "created": tx.now,
        "enabled_events": params["enabled_events"],
        "livemode": tx.live,
        "secret": generate_id("whsec"),
        "status": "enabled",
        "url": _require_url(params["url"], "url"),
    }
    if params.get("api_version") not in (None, tx.account.description.version):
        raise unsupported(f"the version {params['api_version']}", "api_version")
    set_fields(endpoint, params, "description")
    merge_metadata(endpoint, params)
    tx.insert(endpoint)
    tx.record_effect("webhook_endpoint.created", endpoint["id"], url=endpoint["url"])
    return {**endpoint, "_reveal": True}


def replace_endpoint(tx: Transaction, url: str, secret: str) -> None:
    """Replace the endpoint of a URL by one that gets all events, signed with this secret."""
    for endpoint in tx.all("webhook_endpoint"):
        if endpoint["url"] == url:
            tx.delete(endpoint)
    created = create(tx, {}, {"url": url, "enabled_events": ["*"]})
    tx.save({**{name: value for name, value in created.items() if name != "_reveal"}, "secret": secret})


def update(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update an endpoint, or enable or disable it."""
    endpoint = tx.get("webhook_endpoint", ids["id"])
    set_fields(endpoint, params, "description", "enabled_events")
    if "url" in params:
        endpoint["url"] = _require_url(params["url"], "url")
    if "disabled" in params:
        endpoint["status"] = "disabled" if params["disabled"] else "enabled"
    merge_metadata(endpoint, params)
    tx.record_effect("webhook_endpoint.updated", endpoint["id"], url=endpoint["url"], status=endpoint["status"])
    return tx.save(endpoint)


def delete(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Delete an endpoint with its pending deliveries."""
    endpoint = tx.get("webhook_endpoint", ids["id"])
    tx.record_effect("webhook_endpoint.deleted", endpoint["id"])
    return tx.delete(endpoint)


def view(tx: Transaction, body: Body) -> Body:
    """Return an endpoint without its secret."""
    return body if body.get("_reveal") else {name: value for name, value in body.items() if name != "secret"}


# ---- v2


def create_destination(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create an event destination."""
    if params["type"] != "webhook_endpoint":
        raise unsupported(f"event destinations of type {params['type']}", "type")
    require_supported(params, "events_from")
    if "webhook_endpoint" not in params:
        raise invalid_request("Missing required param: webhook_endpoint.", "webhook_endpoint", "parameter_missing")
    destination: Body = {
        "id": generate_id("ed" if tx.live else "ed_test"),
        "object": "v2.core.event_destination",
        "created": format_timestamp(tx.now),
        "description": params.get("description", ""),
        "enabled_events": params["enabled_events"],
        "event_payload": params["event_payload"],
        "events_from": ["self"],
        "livemode": tx.live,
        "metadata": params.get("metadata", {}),
        "name": params["name"],
        "status": "enabled",
        "type": params["type"],
        "updated": format_timestamp(tx.now),
        "webhook_endpoint": {
            "url": _require_url(params["webhook_endpoint"]["url"], "webhook_endpoint[url]"),
            "signing_secret": generate_id("whsec"),
        },
    }
    if params["event_payload"] == "snapshot":
        destination["snapshot_api_version"] = params.get("snapshot_api_version", tx.account.description.version)
    tx.insert(destination)
    tx.record_effect("v2.core.event_destination.created", destination["id"], url=destination["webhook_endpoint"]["url"])
    return _add_included(destination, params)


def _add_included(destination: Body, params: Parameters) -> Body:
    """Return a destination with the fields of `include`."""
    return {**destination, "_include": params.get("include", [])}


def view_destination(tx: Transaction, body: Body) -> Body:
    """Return a destination without its URL and its secret."""
    included = body.get("_include", [])
    endpoint = {
        name: value for name, value in body["webhook_endpoint"].items() if f"webhook_endpoint.{name}" in included
    }
    return {**body, "webhook_endpoint": endpoint}


def retrieve_destination(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Return an event destination."""
    return _add_included(tx.get("v2.core.event_destination", ids["id"]), params)


def list_destinations(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List all event destinations: lists of v2 have the URL of the next page."""
    destinations = [_add_included(destination, params) for destination in reversed(tx.all("v2.core.event_destination"))]
    return {"object": "list", "data": destinations, "next_page_url": None, "previous_page_url": None}


def update_destination(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update an event destination."""
    destination = tx.get("v2.core.event_destination", ids["id"])
    set_fields(destination, params, "description", "enabled_events", "name")
    if "webhook_endpoint" in params:
        destination["webhook_endpoint"]["url"] = _require_url(
            params["webhook_endpoint"]["url"], "webhook_endpoint[url]"
        )
    merge_metadata(destination, params)
    return _add_included(_save_update(tx, destination), params)


def _save_update(tx: Transaction, destination: Body) -> Body:
    destination["updated"] = format_timestamp(tx.now)
    tx.record_effect("v2.core.event_destination.updated", destination["id"], status=destination["status"])
    return tx.save(destination)


def disable_destination(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Disable a destination."""
    destination = tx.get("v2.core.event_destination", ids["id"])
    destination.update(status="disabled", status_details={"disabled": {"reason": "user"}})
    return _save_update(tx, destination)


def enable_destination(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Enable a destination."""
    destination = tx.get("v2.core.event_destination", ids["id"])
    destination.update(status="enabled", status_details=None)
    return _save_update(tx, destination)


def delete_destination(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Delete a destination."""
    destination = tx.get("v2.core.event_destination", ids["id"])
    tx.record_effect("v2.core.event_destination.deleted", destination["id"])
    tx.delete(destination)
    return {"id": destination["id"], "object": "v2.core.event_destination", "deleted": True}
