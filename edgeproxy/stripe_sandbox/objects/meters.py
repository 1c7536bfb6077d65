"""Meters."""

from edgeproxy.stripe_sandbox.lists import Ids, Parameters
from edgeproxy.stripe_sandbox.objects.fields import compute_previous_attributes, set_fields
from edgeproxy.stripe_sandbox.refusal import invalid_request
from edgeproxy.stripe_sandbox.transaction import Body, Transaction, generate_id


def create(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Create a meter."""
    if tx.all("billing.meter", event_name=p["event_name"], status="active"):
        raise invalid_request(f"An active meter already exists with event_name {p['event_name']}.", "event_name")
    made: Body = {
        "id": generate_id("mtr" if tx.live else "mtr_test"),
        "object": "billing.meter",
        "created": tx.now,
        "customer_mapping": p.get("customer_mapping", {"event_payload_key": "stripe_customer_id", "type": "by_id"}),
        "default_aggregation": p["default_aggregation"],
        "display_name": p["display_name"],
        "event_name": p["event_name"],
        "event_time_window": p.get("event_time_window"),
        "livemode": tx.live,
        "status": "active",
        "status_transitions": {},
        "updated": tx.now,
        "value_settings": p.get("value_settings", {"event_payload_key": "value"}),
    }
    tx.insert(made)
    tx.record_event("billing.meter.created", made)
    return made


def update(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Rename a meter."""
    made = tx.get("billing.meter", ids["id"])
    before = dict(made)
    set_fields(made, p, "display_name")
    made["updated"] = tx.now
    tx.save(made)
    tx.record_event("billing.meter.updated", made, compute_previous_attributes(before, made))
    return made


def deactivate(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Deactivate a meter."""
    made = tx.get("billing.meter", ids["id"])
    if made["status"] != "active":
        raise invalid_request("The meter is not active.")
    if any(price["active"] for price in tx.all("price") if (price["recurring"] or {}).get("meter") == made["id"]):
        raise invalid_request("You cannot deactivate a meter that active prices use.")
    made.update(status="inactive", status_transitions={"deactivated_at": tx.now}, updated=tx.now)
    tx.save(made)
    tx.record_event("billing.meter.deactivated", made)
    return made


def reactivate(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Reactivate a meter."""
    made = tx.get("billing.meter", ids["id"])
    if made["status"] == "active":
        raise invalid_request("The meter is active.")
    if tx.all("billing.meter", event_name=made["event_name"], status="active"):
        raise invalid_request(f"An active meter already exists with event_name {made['event_name']}.")
    made.update(status="active", status_transitions={}, updated=tx.now)
    tx.save(made)
    tx.record_event("billing.meter.reactivated", made)
    return made
