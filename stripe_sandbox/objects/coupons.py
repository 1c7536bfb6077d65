"""Coupons. What they take off is in `discounts`."""

from stripe_sandbox.json_values import JsonValue
from stripe_sandbox.lists import Ids, Parameters
from stripe_sandbox.objects.currencies import parse_currency
from stripe_sandbox.objects.fields import (
    compute_previous_attributes,
    merge_metadata,
    require_supported,
    set_fields,
)
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

MONTHS_MAX = 1200
"""Most months of a coupon that repeats, so that its end is a date."""


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a coupon."""
    require_supported(params, "currency_options")
    _check_parameters(tx, params)
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


def _check_parameters(tx: Transaction, params: Parameters) -> None:
    if ("amount_off" in params) == ("percent_off" in params):
        raise invalid_request("You must specify either percent_off or amount_off.", "percent_off")
    if "amount_off" in params and "currency" not in params:
        raise invalid_request("Missing required param: currency.", "currency", "parameter_missing")
    if not 0 < params.get("percent_off", 100) <= 100:
        raise invalid_request("percent_off must be above 0 and at most 100.", "percent_off")
    if (params.get("duration", "once") == "repeating") != ("duration_in_months" in params):
        raise invalid_request("duration_in_months goes with the duration repeating.", "duration_in_months")
    for name in ("amount_off", "duration_in_months", "max_redemptions"):
        if params.get(name, 1) < 1:
            raise invalid_request("Invalid positive integer", name, "parameter_invalid_integer")
    if params.get("duration_in_months", 1) > MONTHS_MAX:
        raise invalid_request(f"duration_in_months must be at most {MONTHS_MAX}.", "duration_in_months")
    if params.get("redeem_by", tx.now + 1) <= tx.now:
        raise invalid_request("Invalid timestamp: must be in the future.", "redeem_by")
    for place, product in enumerate(params.get("applies_to", {}).get("products", ())):
        tx.get("product", product, f"applies_to[products][{place}]")


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
    """Delete a coupon; the discounts that it has given stay."""
    coupon = tx.get("coupon", ids["id"])
    tx.record_event("coupon.deleted", coupon)
    gone = tx.delete(coupon)
    tx.save({**coupon, "_deleted": True})  # Discounts can be expanded to it for ever.
    return gone


def is_valid(tx: Transaction, coupon: Fields) -> bool:
    """Return whether a coupon may still be redeemed."""
    many, redeem_by = coupon.get("max_redemptions"), coupon.get("redeem_by")
    return (
        not coupon.get("_deleted")
        and (many is None or coupon["times_redeemed"] < many)
        and (redeem_by is None or redeem_by > tx.now)
    )


def require_redeemable(tx: Transaction, coupon: Fields, param: str) -> None:
    """Raise the refusal of a coupon that has expired or is used up."""
    if is_valid(tx, coupon):
        return
    expired = coupon.get("redeem_by") is not None and coupon["redeem_by"] <= tx.now
    message = (
        f"Coupon expired: {coupon['id']}" if expired else f"Coupon {coupon['id']} is used up and cannot be applied."
    )
    raise invalid_request(message, param, "coupon_expired")


def view(tx: Transaction, body: Body) -> Body:
    """Return a coupon with whether it may still be used; its products are answered only when expanded."""
    return {**{name: value for name, value in body.items() if name != "applies_to"}, "valid": is_valid(tx, body)}


def get_products(tx: Transaction, coupon: Body) -> JsonValue:
    """Return the products that a coupon applies to, expanded."""
    stored = tx.find_any(coupon["id"])
    return None if stored is None else stored.get("applies_to")
