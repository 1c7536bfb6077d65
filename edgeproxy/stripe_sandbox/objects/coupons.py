"""Coupons. They are stored; no call of the sandbox gives a discount yet."""

from edgeproxy.stripe_sandbox.lists import Ids, Parameters
from edgeproxy.stripe_sandbox.objects.fields import (
    compute_previous_attributes,
    merge_metadata,
    parse_currency,
    require_supported,
    set_fields,
)
from edgeproxy.stripe_sandbox.refusal import invalid_request
from edgeproxy.stripe_sandbox.transaction import Body, Transaction, generate_id


def create(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Create a coupon."""
    require_supported(p, "currency_options")
    if ("amount_off" in p) == ("percent_off" in p):
        raise invalid_request("You must specify either percent_off or amount_off.", "percent_off")
    if "amount_off" in p and "currency" not in p:
        raise invalid_request("Missing required param: currency.", "currency", "parameter_missing")
    if not 0 < p.get("percent_off", 100) <= 100:
        raise invalid_request("percent_off must be above 0 and at most 100.", "percent_off")
    if (p.get("duration", "once") == "repeating") != ("duration_in_months" in p):
        raise invalid_request("duration_in_months goes with the duration repeating.", "duration_in_months")
    if "id" in p and tx.find("coupon", p["id"]) is not None:
        raise invalid_request(f"Coupon already exists: {p['id']}", "id", "resource_already_exists")
    made: Body = {
        "id": p.get("id") or generate_id("co")[3:11],
        "object": "coupon",
        "created": tx.now,
        "currency": parse_currency(p["currency"]) if "amount_off" in p else None,
        "duration": p.get("duration", "once"),
        "livemode": tx.live,
        "times_redeemed": 0,
        "valid": True,
    }
    set_fields(
        made, p, "amount_off", "applies_to", "duration_in_months", "max_redemptions", "name", "percent_off", "redeem_by"
    )
    merge_metadata(made, p)
    tx.insert(made)
    tx.record_event("coupon.created", made)
    return made


def update(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Rename a coupon."""
    require_supported(p, "currency_options")
    made = tx.get("coupon", ids["id"])
    before = dict(made)
    set_fields(made, p, "name")
    merge_metadata(made, p)
    tx.save(made)
    tx.record_event("coupon.updated", made, compute_previous_attributes(before, made))
    return made


def delete(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Delete a coupon."""
    made = tx.get("coupon", ids["id"])
    tx.record_event("coupon.deleted", made)
    return tx.delete(made)


def view(tx: Transaction, body: Body) -> Body:
    """Return a coupon with whether it may still be used."""
    return {**body, "valid": body.get("redeem_by") is None or body["redeem_by"] > tx.now}
