"""Discounts: redeemed coupons and promotion codes, and the amounts that they take off the lines of an invoice."""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from stripe_sandbox.amounts import round_to_cents, split_proportionally
from stripe_sandbox.objects import coupons, promotion_codes
from stripe_sandbox.objects.periods import shift_by_intervals
from stripe_sandbox.refusal import ApiError, invalid_request, no_such_object
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

ENTRIES_MAX = 20
"""The most discounts of an object."""
LASTING = ("subscription", "subscription_item")
"""Owners whose discounts expire, and have events."""


class Redemption(NamedTuple):
    """The object that gets discounts."""

    owner: Mapping[str, str]
    """The field of the discount that names the object, and its id."""
    customer: str | None
    currency: str | None
    now: int
    clock: str | None = None
    amount: int | None = None
    """The amount of the order; None if promotion codes with a minimum amount cannot be redeemed."""
    attached: Sequence[str] = ()
    """Discounts of the object, or of a parent object, that may be named."""


# ---- redemption


def redeem(tx: Transaction, entries: Sequence[Fields], param: str, redemption: Redemption) -> list[str]:
    """Redeem the coupons and promotion codes of a parameter. Returns the ids of the discounts in order."""
    if len(entries) > ENTRIES_MAX:
        raise invalid_request(f"You can pass up to {ENTRIES_MAX} discounts.", param)
    ids: list[str] = []
    used: set[str] = set()
    for place, entry in enumerate(entries):
        ways = [name for name in ("coupon", "discount", "promotion_code") if entry.get(name)]
        if len(ways) != 1:
            raise invalid_request(
                "You must specify exactly one of coupon, discount or promotion_code.", f"{param}[{place}]"
            )
        where = f"{param}[{place}][{ways[0]}]"
        discount = _redeem_entry(tx, ways[0], entry[ways[0]], where, redemption)
        coupon = discount["source"]["coupon"]
        if coupon in used:
            raise invalid_request(f"The coupon {coupon} can only be applied once.", where)
        used.add(coupon)
        ids.append(discount["id"])
    return ids


def _redeem_entry(tx: Transaction, way: str, id: str, param: str, redemption: Redemption) -> Body:
    if way == "discount":
        if id not in redemption.attached:
            raise no_such_object("discount", id, param)
        return get_discount(tx, id)
    code = None
    if way == "promotion_code":
        code = require_usable_code(tx, id, param, redemption)
        id = code["promotion"]["coupon"]
    coupon = tx.get("coupon", id, param)
    coupons.require_redeemable(tx, coupon, param)
    if coupon.get("amount_off") and redemption.currency not in (None, coupon["currency"]):
        raise invalid_request(
            f"The currency of the coupon is {coupon['currency']}, that of the order {redemption.currency}.", param
        )
    return _create_discount(tx, coupon, code, redemption)


def require_usable_code(tx: Transaction, id: str, param: str, redemption: Redemption) -> Body:
    """Return a promotion code that this order can redeem. Raises ApiError."""
    code = tx.get("promotion_code", id, param)
    if not promotion_codes.is_redeemable(tx, code):
        coupons.require_redeemable(tx, tx.find_any(code["promotion"]["coupon"]) or {}, param)
        raise invalid_request(f"The promotion code {code['code']} is expired or inactive.", param)
    if code["customer"] not in (None, redemption.customer):
        raise invalid_request(
            "This promotion code cannot be redeemed because it is restricted to another customer.", param
        )
    restrictions = code["restrictions"]
    if restrictions["first_time_transaction"] and _has_transactions(tx, redemption):
        raise invalid_request(
            "This promotion code cannot be redeemed because the associated customer has prior transactions.", param
        )
    least = restrictions["minimum_amount"]
    if least is not None and redemption.amount is None:
        raise invalid_request("A promotion code with a minimum amount cannot be applied to this object.", param)
    if least is not None and (
        redemption.currency != restrictions["minimum_amount_currency"] or (redemption.amount or 0) < least
    ):
        raise invalid_request(
            "This promotion code cannot be redeemed because the order does not meet its minimum amount.", param
        )
    return code


def _has_transactions(tx: Transaction, redemption: Redemption) -> bool:
    """Return whether a customer has paid, or tried to, beside this session of Checkout, or had a trial."""
    if redemption.customer is None:
        return False
    own = redemption.owner.get("checkout_session", "-")
    return any(
        intent.get("_session") != own for intent in tx.all("payment_intent", customer=redemption.customer)
    ) or any(subscription.get("trial_end") for subscription in tx.all("subscription", customer=redemption.customer))


def _create_discount(tx: Transaction, coupon: Body, code: Body | None, redemption: Redemption) -> Body:
    end = None
    if coupon["duration"] == "repeating":
        end = shift_by_intervals(redemption.now, "month", coupon["duration_in_months"])
    discount: Body = {
        "id": generate_id("di"),
        "object": "discount",
        "customer": redemption.customer,
        "end": end,
        "promotion_code": None if code is None else code["id"],
        "source": {"coupon": coupon["id"], "type": "coupon"},
        "start": redemption.now,
        "test_clock": redemption.clock,
        **redemption.owner,
    }
    for redeemed in (coupon, code):
        if redeemed is not None:
            redeemed["times_redeemed"] += 1
            tx.save(redeemed)
    tx.insert(discount)
    if is_lasting(discount):
        tx.record_event("customer.discount.created", discount)
        if end is not None:
            tx.set_timer(end, "end_discount", discount["id"], redemption.clock)
    return discount


def replace(tx: Transaction, owner: Body, params: Fields, param: str, redemption: Redemption) -> None:
    """Set an object's `discounts` from a parameter. Discounts that are not named are removed."""
    if "discounts" not in params:
        return
    redemption = redemption._replace(attached=[*redemption.attached, *owner["discounts"]])
    ids = redeem(tx, params["discounts"] or (), param, redemption)
    for id in owner["discounts"]:
        discount = get_discount(tx, id)
        # An invoice also has its subscription's discounts.
        if id not in ids and all(discount.get(name) == value for name, value in redemption.owner.items()):
            remove(tx, discount)
    owner["discounts"] = ids


# ---- the end of a discount


def get_discount(tx: Transaction, id: str) -> Body:
    """Return a discount, even a removed one: invoices still name it."""
    discount = tx.find_any(id)
    if discount is None:
        raise no_such_object("discount", id)
    return discount


def is_lasting(discount: Fields) -> bool:
    """Return whether a discount belongs to a subscription or one of its items."""
    return any(discount.get(owner) for owner in LASTING)


def remove(tx: Transaction, discount: Body) -> Body:
    """Remove a discount; returns the response."""
    tx.delete(discount)
    tx.save(discount)
    tx.cancel_timer("end_discount", discount["id"])
    if is_lasting(discount):
        tx.record_event("customer.discount.deleted", discount)
    answer = tx.render(discount)
    del answer["end"]
    return {**answer, "deleted": True}


def due_to_end(tx: Transaction, id: str) -> None:
    """Remove a discount from its owner, because its months are over."""
    discount = tx.find("discount", id)
    if discount is None:
        return
    for kind in LASTING:
        owner = tx.find(kind, discount[kind]) if discount.get(kind) else None
        if owner is not None:
            tx.save({**owner, "discounts": [other for other in owner["discounts"] if other != id]})
    remove(tx, discount)


def end_once(tx: Transaction, owner: Body, invoice: Fields) -> None:
    """Remove the object's discounts that apply once, if an invoice had them."""
    applied = {entry["discount"] for entry in invoice["total_discount_amounts"] if entry["amount"]}
    for id in owner["discounts"]:
        discount = get_discount(tx, id)
        if id in applied and _get_coupon(tx, discount)["duration"] == "once":
            owner["discounts"] = [other for other in owner["discounts"] if other != id]
            remove(tx, discount)
    tx.save(owner)


def delete_of_customer(tx: Transaction, ids: Mapping[str, str], params: Fields) -> Body:
    """Refuse to delete the discount of a customer: since 2025-09-30 no call gives customers one."""
    customer = tx.get("customer", ids["id"])
    raise ApiError(404, f"No active discount for customer: {customer['id']}", code="resource_missing")


# ---- amounts


def _get_coupon(tx: Transaction, discount: Fields) -> Body:
    coupon = tx.find_any(discount["source"]["coupon"])
    assert coupon is not None
    return coupon


def compute_off(coupon: Fields, amount: int, currency: str) -> int:
    """Compute a coupon's discount on an amount."""
    if coupon.get("percent_off") is not None:
        return round_to_cents(amount * Fraction(str(coupon["percent_off"])) / 100)
    return min(amount, coupon["amount_off"]) if coupon["currency"] == currency else 0


def apply_discounts(tx: Transaction, invoice: Fields, lines: Sequence[Body]) -> list[Body]:
    """Set `discount_amounts` of the lines; returns the sums by discount.

    Discounts of items come first, then those of the invoice. Each applies to the remainder after the one before.
    """
    left = {line["id"]: max(line["amount"], 0) if line["discountable"] else 0 for line in lines}
    for line in lines:
        line["discount_amounts"] = []
    sums: dict[str, int] = {}
    of_items = dict.fromkeys(id for line in lines for id in line["discounts"])
    for id in [*of_items, *invoice["discounts"]]:
        coupon = _get_coupon(tx, get_discount(tx, id))
        eligible = [
            line
            for line in lines
            if left[line["id"]] and (id in invoice["discounts"] or id in line["discounts"]) and applies_to(coupon, line)
        ]
        whole = sum(left[line["id"]] for line in eligible)
        off = compute_off(coupon, whole, invoice["currency"])
        for line, part in zip(
            eligible, split_proportionally(off, [left[line["id"]] for line in eligible]), strict=True
        ):
            left[line["id"]] -= part
            line["discount_amounts"].append({"amount": part, "discount": id})
        sums[id] = sums.get(id, 0) + off
    return [{"amount": amount, "discount": id} for id, amount in sums.items()]


def applies_to(coupon: Fields, line: Fields) -> bool:
    """Return whether a coupon applies to the product of a line."""
    products = (coupon.get("applies_to") or {}).get("products")
    return not products or ((line.get("pricing") or {}).get("price_details") or {}).get("product") in products


def compute_amounts(tx: Transaction, ids: Iterable[str], line: Fields, currency: str) -> list[Body]:
    """Compute the discounts on one amount, in order. `line` has `amount` and `pricing`."""
    left, amounts = max(line["amount"], 0), []
    for id in ids:
        coupon = _get_coupon(tx, get_discount(tx, id))
        off = compute_off(coupon, left, currency) if applies_to(coupon, line) else 0
        left -= off
        amounts.append({"amount": off, "discount": id})
    return amounts
