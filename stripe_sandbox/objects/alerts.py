"""Billing alerts: an event, once, when a customer's usage of a meter reaches a threshold."""

from stripe_sandbox.lists import Ids, Parameters, list_objects
from stripe_sandbox.objects import usage
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Transaction, generate_id


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create an alert; usage counts from now on."""
    threshold = params.get("usage_threshold")
    if threshold is None:
        raise invalid_request("Missing required param: usage_threshold.", "usage_threshold", "parameter_missing")
    tx.get("billing.meter", threshold["meter"], "usage_threshold[meter]")
    if threshold["gte"] < 1:
        raise invalid_request("The threshold must be above 0.", "usage_threshold[gte]")
    for place, limit in enumerate(threshold.get("filters", ())):
        tx.get("customer", limit.get("customer", ""), f"usage_threshold[filters][{place}][customer]")
    alert: Body = {
        "id": generate_id("alrt"),
        "object": "billing.alert",
        "alert_type": params["alert_type"],
        "livemode": tx.live,
        "status": "active",
        "title": params["title"],
        "usage_threshold": {"filters": None, **threshold},
        "_since": tx.now,
        "_told": [],
    }
    tx.record_effect("billing.alert.created", alert["id"])
    return tx.insert(alert)


def list_alerts(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List alerts."""
    fields = {"usage_threshold.meter": params["meter"]} if "meter" in params else {}
    return list_objects(tx, "billing.alert", params, fields)


def activate(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Activate an alert again."""
    return _set_status(tx, ids["id"], "active")


def deactivate(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Deactivate an alert for now."""
    return _set_status(tx, ids["id"], "inactive")


def archive(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Archive an alert for ever."""
    return _set_status(tx, ids["id"], "archived")


def _set_status(tx: Transaction, id: str, status: str) -> Body:
    alert = tx.get("billing.alert", id)
    if alert["status"] in ("archived", status):
        raise invalid_request(f"The alert is {alert['status']}.")
    alert["status"] = status
    tx.record_effect(f"billing.alert.{status}", id)
    return tx.save(alert)


def evaluate_alerts(tx: Transaction, counted: set[tuple[str, str]]) -> None:
    """Emit events of thresholds that the counts of these meters and customers have reached."""
    for alert in tx.all("billing.alert", status="active") if counted else ():
        threshold = alert["usage_threshold"]
        only = [limit.get("customer") for limit in threshold["filters"] or ()]
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
