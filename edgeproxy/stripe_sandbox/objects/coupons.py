"""Coupons. They are stored; no call of the sandbox gives a discount yet."""

from edgeproxy.stripe_sandbox.lists import Ids, Parameters
from edgeproxy.stripe_sandbox.objects.currencies import parse_currency
from edgeproxy.stripe_sandbox.objects.fields import (
    compute_previous_attributes,
    merge_metadata,
    require_supported,
    set_fields,
)
from edgeproxy.stripe_sandbox.refusal import invalid_request
from edgeproxy.stripe_sandbox.transaction import Body, Transaction, generate_id


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a coupon."""
    require_supported(params, "currency_options")
    if ("amount_off" in params) == ("percent_off" in params):
        raise invalid_request("You must specify either percent_off or amount_off.", "percent_off")
    if "amount_off" in params and "currency" not in params:
        raise invalid_request("Missing required param: currency.", "currency", "parameter_missing")
    if not 0 < params.get("percent_off", 100) <= 100:
        raise invalid_request("percent_off must be above 0 and at most 100.", "percent_off")
    if (params.get("duration", "once") == "repeating") != ("duration_in_months" in params):
        raise invalid_request("duration_in_months goes with the duration repeating.", "duration_in_months")
    if "id" in params and tx.find("coupon", params["id"]) is not None:
        raise invalid_request(f"Coupon already exists: {params['id']}", "id", "resource_already_exists")
    coupon: Body = {
        "id": params.get("id") or generate_id("co")[3:11],
        "object": "coupon",
        "created": tx.now,
        "currency": parse_currency(params["currency"]) if "amount_off" in params else None,
        "duration": params.get("duration", "once"),
        "livemode": tx.live,
        "times_redeemed": 0,
        "valid": True,
    }
    set_fields(
        coupon,
        params,
        "amount_off",
        "applies_to",
        "duration_in_months",
        "max_redemptions",
        "name",
        "percent_off",
        "redeem_by",
    )
    merge_metadata(coupon, params)
    tx.insert(coupon)
    tx.record_event("coupon.created", coupon)
    return coupon


def update(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Rename a coupon."""
    require_supported(params, "currency_options")
    coupon = tx.get("coupon", ids["id"])
    before = dict(coupon)
    set_fields(coupon, params, "name")
    merge_metadata(coupon, params)
    tx.save(coupon)
    tx.record_event("coupon.updated", coupon, compute_previous_attributes(before, coupon))
    return coupon


def delete(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Delete a coupon."""
    coupon = tx.get("coupon", ids["id"])
    tx.record_event("coupon.deleted", coupon)
    return tx.delete(coupon)


def view(tx: Transaction, body: Body) -> Body:
    """Return a coupon with whether it may still be used."""
    return {**body, "valid": body.get("redeem_by") is None or body["redeem_by"] > tx.now}
