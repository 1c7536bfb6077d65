"""Webhook endpoints, and event destinations of v2."""

from edgeproxy.stripe_sandbox.lists import Ids, Parameters
from edgeproxy.stripe_sandbox.objects.fields import merge_metadata, require_supported, set_fields
from edgeproxy.stripe_sandbox.refusal import invalid_request, unsupported
from edgeproxy.stripe_sandbox.transaction import Body, Transaction, format_timestamp, generate_id

ENDPOINTS_MAX = 16


def _require_url(url: str, param: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise invalid_request("Invalid URL: an explicit scheme (such as https) must be provided.", param, "url_invalid")
    return url


def create(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Create an endpoint. Its secret is answered once."""
    require_supported(p, "connect")
    if len(tx.all("webhook_endpoint")) >= ENDPOINTS_MAX:
        raise invalid_request(f"You have reached the maximum of {ENDPOINTS_MAX} webhook endpoints.")
    made: Body = {
        "id": generate_id("we"),
        "object": "webhook_endpoint",
        "api_version": p.get("api_version"),
        "created": tx.now,
        "enabled_events": p["enabled_events"],
        "livemode": tx.live,
        "secret": generate_id("whsec"),
        "status": "enabled",
        "url": _require_url(p["url"], "url"),
    }
    if p.get("api_version") not in (None, tx.account.description.version):
        raise unsupported(f"the version {p['api_version']}", "api_version")
    set_fields(made, p, "description")
    merge_metadata(made, p)
    tx.insert(made)
    tx.record_effect("webhook_endpoint.created", made["id"], url=made["url"])
    return {**made, "_reveal": True}


def update(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Update an endpoint, or enable or disable it."""
    made = tx.get("webhook_endpoint", ids["id"])
    set_fields(made, p, "description", "enabled_events")
    if "url" in p:
        made["url"] = _require_url(p["url"], "url")
    if "disabled" in p:
        made["status"] = "disabled" if p["disabled"] else "enabled"
    merge_metadata(made, p)
    tx.record_effect("webhook_endpoint.updated", made["id"], url=made["url"], status=made["status"])
    return tx.save(made)


def delete(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Delete an endpoint with its pending deliveries."""
    made = tx.get("webhook_endpoint", ids["id"])
    tx.record_effect("webhook_endpoint.deleted", made["id"])
    return tx.delete(made)


def view(tx: Transaction, body: Body) -> Body:
    """Return an endpoint without its secret."""
    return body if body.get("_reveal") else {name: value for name, value in body.items() if name != "secret"}


# ---- v2


def create_destination(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Create an event destination."""
    if p["type"] != "webhook_endpoint":
        raise unsupported(f"event destinations of type {p['type']}", "type")
    require_supported(p, "events_from")
    if "webhook_endpoint" not in p:
        raise invalid_request("Missing required param: webhook_endpoint.", "webhook_endpoint", "parameter_missing")
    made: Body = {
        "id": generate_id("ed" if tx.live else "ed_test"),
        "object": "v2.core.event_destination",
        "created": format_timestamp(tx.now),
        "description": p.get("description", ""),
        "enabled_events": p["enabled_events"],
        "event_payload": p["event_payload"],
        "events_from": ["self"],
        "livemode": tx.live,
        "metadata": p.get("metadata", {}),
        "name": p["name"],
        "status": "enabled",
        "type": p["type"],
        "updated": format_timestamp(tx.now),
        "webhook_endpoint": {
            "url": _require_url(p["webhook_endpoint"]["url"], "webhook_endpoint[url]"),
            "signing_secret": generate_id("whsec"),
        },
    }
    if p["event_payload"] == "snapshot":
        made["snapshot_api_version"] = p.get("snapshot_api_version", tx.account.description.version)
    tx.insert(made)
    tx.record_effect("v2.core.event_destination.created", made["id"], url=made["webhook_endpoint"]["url"])
    return _add_included(made, p)


def _add_included(made: Body, p: Parameters) -> Body:
    """Return a destination with the fields of `include`."""
    return {**made, "_include": p.get("include", [])}


def view_destination(tx: Transaction, body: Body) -> Body:
    """Return a destination without its URL and its secret."""
    included = body.get("_include", [])
    endpoint = {
        name: value for name, value in body["webhook_endpoint"].items() if f"webhook_endpoint.{name}" in included
    }
    return {**body, "webhook_endpoint": endpoint}


def retrieve_destination(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Return an event destination."""
    return _add_included(tx.get("v2.core.event_destination", ids["id"]), p)


def list_destinations(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """List all event destinations: lists of v2 have the URL of the next page."""
    destinations = [_add_included(one, p) for one in reversed(tx.all("v2.core.event_destination"))]
    return {"object": "list", "data": destinations, "next_page_url": None, "previous_page_url": None}


def update_destination(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Update an event destination."""
    made = tx.get("v2.core.event_destination", ids["id"])
    set_fields(made, p, "description", "enabled_events", "name")
    if "webhook_endpoint" in p:
        made["webhook_endpoint"]["url"] = _require_url(p["webhook_endpoint"]["url"], "webhook_endpoint[url]")
    merge_metadata(made, p)
    return _add_included(_save_update(tx, made), p)


def _save_update(tx: Transaction, made: Body) -> Body:
    made["updated"] = format_timestamp(tx.now)
    tx.record_effect("v2.core.event_destination.updated", made["id"], status=made["status"])
    return tx.save(made)


def disable_destination(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Disable a destination."""
    made = tx.get("v2.core.event_destination", ids["id"])
    made.update(status="disabled", status_details={"disabled": {"reason": "user"}})
    return _save_update(tx, made)


def enable_destination(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Enable a destination."""
    made = tx.get("v2.core.event_destination", ids["id"])
    made.update(status="enabled", status_details=None)
    return _save_update(tx, made)


def delete_destination(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Delete a destination."""
    made = tx.get("v2.core.event_destination", ids["id"])
    tx.record_effect("v2.core.event_destination.deleted", made["id"])
    tx.delete(made)
    return {"id": made["id"], "object": "v2.core.event_destination", "deleted": True}
