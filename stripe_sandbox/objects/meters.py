"""Meters."""

from stripe_sandbox.lists import Ids, Parameters
from stripe_sandbox.objects.fields import compute_previous_attributes, set_fields
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Transaction, generate_id


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a meter."""
    if tx.all("billing.meter", event_name=params["event_name"], status="active"):
        raise invalid_request(f"An active meter already exists with event_name {params['event_name']}.", "event_name")
    meter: Body = {
        "id": generate_id("mtr" if tx.live else "mtr_test"),
        "object": "billing.meter",
        "created": tx.now,
        "customer_mapping": params.get(
            "customer_mapping", {"event_payload_key": "stripe_customer_id", "type": "by_id"}
        ),
        "default_aggregation": params["default_aggregation"],
        "display_name": params["display_name"],
        "event_name": params["event_name"],
        "event_time_window": params.get("event_time_window"),
        "livemode": tx.live,
        "status": "active",
        "status_transitions": {},
        "updated": tx.now,
        "value_settings": params.get("value_settings", {"event_payload_key": "value"}),
    }
    tx.insert(meter)
    tx.record_event("billing.meter.created", meter)
    return meter


def update(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Rename a meter."""
    meter = tx.get("billing.meter", ids["id"])
    before = dict(meter)
    set_fields(meter, params, "display_name")
    meter["updated"] = tx.now
    tx.save(meter)
    tx.record_event("billing.meter.updated", meter, compute_previous_attributes(before, meter))
    return meter


def deactivate(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Deactivate a meter."""
    meter = tx.get("billing.meter", ids["id"])
    if meter["status"] != "active":
        raise invalid_request("The meter is not active.")
    if any(price["active"] for price in tx.all("price") if (price["recurring"] or {}).get("meter") == meter["id"]):
        raise invalid_request("You cannot deactivate a meter that active prices use.")
    meter.update(status="inactive", status_transitions={"deactivated_at": tx.now}, updated=tx.now)
    tx.save(meter)
    tx.record_event("billing.meter.deactivated", meter)
    return meter


def reactivate(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Reactivate a meter."""
    meter = tx.get("billing.meter", ids["id"])
    if meter["status"] == "active":
        raise invalid_request("The meter is active.")
    if tx.all("billing.meter", event_name=meter["event_name"], status="active"):
        raise invalid_request(f"An active meter already exists with event_name {meter['event_name']}.")
    meter.update(status="active", status_transitions={}, updated=tx.now)
    tx.save(meter)
    tx.record_event("billing.meter.reactivated", meter)
    return meter
