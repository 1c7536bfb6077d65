"""Billing alerts: an event, once, when a customer's usage of a meter reaches a threshold."""

from edgeproxy.stripe_sandbox.lists import Ids, Parameters, list_objects
from edgeproxy.stripe_sandbox.objects import usage
from edgeproxy.stripe_sandbox.refusal import invalid_request
from edgeproxy.stripe_sandbox.transaction import Body, Transaction, generate_id


def create(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Create an alert; usage counts from now on."""
    threshold = p.get("usage_threshold")
    if threshold is None:
        raise invalid_request("Missing required param: usage_threshold.", "usage_threshold", "parameter_missing")
    tx.get("billing.meter", threshold["meter"], "usage_threshold[meter]")
    if threshold["gte"] < 1:
        raise invalid_request("The threshold must be above 0.", "usage_threshold[gte]")
    for place, one in enumerate(threshold.get("filters", ())):
        tx.get("customer", one.get("customer", ""), f"usage_threshold[filters][{place}][customer]")
    made: Body = {
        "id": generate_id("alrt"),
        "object": "billing.alert",
        "alert_type": p["alert_type"],
        "livemode": tx.live,
        "status": "active",
        "title": p["title"],
        "usage_threshold": {"filters": None, **threshold},
        "_since": tx.now,
        "_told": [],
    }
    tx.record_effect("billing.alert.created", made["id"])
    return tx.insert(made)


def list_alerts(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """List alerts."""
    fields = {"usage_threshold.meter": p["meter"]} if "meter" in p else {}
    return list_objects(tx, "billing.alert", p, fields)


def activate(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Activate an alert again."""
    return _set_status(tx, ids["id"], "active")


def deactivate(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Deactivate an alert for now."""
    return _set_status(tx, ids["id"], "inactive")


def archive(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Archive an alert for ever."""
    return _set_status(tx, ids["id"], "archived")


def _set_status(tx: Transaction, id: str, status: str) -> Body:
    made = tx.get("billing.alert", id)
    if made["status"] in ("archived", status):
        raise invalid_request(f"The alert is {made['status']}.")
    made["status"] = status
    tx.record_effect(f"billing.alert.{status}", id)
    return tx.save(made)


def evaluate_alerts(tx: Transaction, counted: set[tuple[str, str]]) -> None:
    """Emit events of thresholds that the counts of these meters and customers have reached."""
    for alert in tx.all("billing.alert", status="active") if counted else ():
        threshold = alert["usage_threshold"]
        only = [one.get("customer") for one in threshold["filters"] or ()]
        for meter, customer in sorted(counted):
            if meter != threshold["meter"] or customer in alert["_told"] or (only and customer not in only):
                continue
            value = usage.compute_total(tx, meter, customer, alert["_since"], tx.now + usage.FUTURE_SECONDS)
            if value >= threshold["gte"]:
                alert["_told"].append(customer)
                tx.save(alert)
                triggered = {"id": alert["id"], "object": "billing.alert_triggered", "alert": alert, "created": tx.now}
                tx.record_event(
                    "billing.alert.triggered", {**triggered, "customer": customer, "livemode": tx.live, "value": value}
                )
