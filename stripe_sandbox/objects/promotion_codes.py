"""Promotion codes, which customers enter to redeem a coupon."""

import random
import re
import string

from stripe_sandbox.lists import Ids, Parameters, list_objects
from stripe_sandbox.objects import coupons
from stripe_sandbox.objects.currencies import parse_currency
from stripe_sandbox.objects.fields import compute_previous_attributes, merge_metadata, require_supported
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

CODE = re.compile(r"[A-Za-z0-9-]{1,500}")
GENERATED = 8
"""Characters of a generated code."""


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a promotion code of a coupon. Its limits may not exceed the coupon's."""
    require_supported(params, "customer_account")
    if "coupon" not in params["promotion"]:
        raise invalid_request("Missing required param: promotion[coupon].", "promotion[coupon]", "parameter_missing")
    coupon = tx.get("coupon", params["promotion"]["coupon"], "promotion[coupon]")
    coupons.require_redeemable(tx, coupon, "promotion[coupon]")
    customer = None if "customer" not in params else tx.get("customer", params["customer"], "customer")["id"]
    promotion_code: Body = {
        "id": generate_id("promo"),
        "object": "promotion_code",
        "active": params.get("active", True),
        "code": _parse_code(tx, params, customer),
        "created": tx.now,
        "customer": customer,
        "expires_at": params.get("expires_at", coupon.get("redeem_by")),
        "livemode": tx.live,
        "max_redemptions": params.get("max_redemptions"),
        "promotion": {"coupon": coupon["id"], "type": "coupon"},
        "restrictions": _build_restrictions(params.get("restrictions", {})),
        "times_redeemed": 0,
    }
    _check_limits(tx, promotion_code, coupon)
    merge_metadata(promotion_code, params)
    tx.insert(promotion_code)
    tx.record_event("promotion_code.created", promotion_code)
    return promotion_code


def _parse_code(tx: Transaction, params: Parameters, customer: str | None) -> str:
    """Return the code of a call, or a generated one. Raises ApiError if an active code is equal."""
    code: str = params.get("code") or "".join(random.choices(string.ascii_uppercase + string.digits, k=GENERATED))
    if not CODE.fullmatch(code):
        raise invalid_request("Promotion codes may only contain letters, digits and dashes.", "code")
    for other in list_codes(tx, code):
        if customer is None or other["customer"] in (None, customer):
            raise invalid_request(f"An active promotion code with `code: {code}` already exists.", "code")
    return code


def _build_restrictions(restrictions: Fields) -> Body:
    require_supported(restrictions, "currency_options")
    if ("minimum_amount" in restrictions) != ("minimum_amount_currency" in restrictions):
        raise invalid_request(
            "You must pass both minimum_amount and minimum_amount_currency.", "restrictions[minimum_amount]"
        )
    if restrictions.get("minimum_amount", 1) < 1:
        raise invalid_request("Invalid positive integer", "restrictions[minimum_amount]", "parameter_invalid_integer")
    currency = restrictions.get("minimum_amount_currency")
    return {
        "first_time_transaction": restrictions.get("first_time_transaction", False),
        "minimum_amount": restrictions.get("minimum_amount"),
        "minimum_amount_currency": None if currency is None else parse_currency(currency),
    }


def _check_limits(tx: Transaction, promotion_code: Fields, coupon: Fields) -> None:
    many, expires_at = promotion_code["max_redemptions"], promotion_code["expires_at"]
    if many is not None and not 1 <= many <= (coupon.get("max_redemptions") or many):
        raise invalid_request(
            "The max_redemptions of a promotion code must be above 0, and at most that of its coupon.",
            "max_redemptions",
        )
    if expires_at is not None and not tx.now < expires_at <= (coupon.get("redeem_by") or expires_at):
        raise invalid_request(
            "The expires_at of a promotion code must be in the future, and no later than its coupon's redeem_by.",
            "expires_at",
        )


def update(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Activate or deactivate a promotion code, unless it is inactive for ever."""
    require_supported(params.get("restrictions", {}), "currency_options")
    promotion_code = tx.get("promotion_code", ids["id"])
    before = dict(promotion_code)
    if params.get("active") and not is_redeemable(tx, {**promotion_code, "active": True}):
        raise invalid_request(
            "This promotion code cannot be activated: it, or its coupon, has expired or is used up.", "active"
        )
    if "active" in params:
        if params["active"] and not promotion_code["active"]:
            _parse_code(tx, {"code": promotion_code["code"]}, promotion_code["customer"])
        promotion_code["active"] = params["active"]
    merge_metadata(promotion_code, params)
    tx.save(promotion_code)
    tx.record_event("promotion_code.updated", promotion_code, compute_previous_attributes(before, promotion_code))
    return promotion_code


def is_redeemable(tx: Transaction, promotion_code: Fields) -> bool:
    """Return whether a promotion code, and its coupon, can still be redeemed."""
    coupon = tx.find("coupon", promotion_code["promotion"]["coupon"])
    many, expires_at = promotion_code["max_redemptions"], promotion_code["expires_at"]
    return bool(
        promotion_code["active"]
        and coupon is not None
        and coupons.is_valid(tx, coupon)
        and (many is None or promotion_code["times_redeemed"] < many)
        and (expires_at is None or expires_at > tx.now)
    )


def list_codes(tx: Transaction, code: str) -> list[Body]:
    """List the redeemable promotion codes with this code, in any case."""
    codes = tx.all("promotion_code", active=True)
    return [
        promotion_code
        for promotion_code in codes
        if promotion_code["code"].lower() == code.lower() and is_redeemable(tx, promotion_code)
    ]


def list_promotion_codes(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List promotion codes, also by code in any case, and by whether they are active."""
    require_supported(params, "customer_account")
    fields = {name: params[name] for name in ("created", "customer") if name in params}
    if "coupon" in params:
        fields["promotion.coupon"] = params["coupon"]
    where, values = "1", []
    if "code" in params:
        where += " AND lower(json_extract(body, '$.code')) = lower(?)"
        values.append(params["code"])
    if "active" in params:
        active = [
            promotion_code["id"] for promotion_code in tx.all("promotion_code") if is_redeemable(tx, promotion_code)
        ]
        where += f" AND id {'' if params['active'] else 'NOT '}IN ({', '.join('?' * len(active))})"
        values += active
    return list_objects(tx, "promotion_code", params, fields, where, *values)


def view(tx: Transaction, body: Body) -> Body:
    """Return a promotion code with whether it may still be used."""
    return {**body, "active": is_redeemable(tx, body)}
