"""Amounts of Checkout sessions: lines, less a discount; nothing is due today for what begins with a trial."""

from collections.abc import Sequence

from stripe_sandbox.amounts import split_proportionally
from stripe_sandbox.objects import coupons, discounts, promotion_codes
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Fields, Transaction


def fetch_lines(tx: Transaction, session_id: str) -> list[Body]:
    """Return the lines of a session, in their order."""
    return tx.all("item", _session=session_id)


def has_trial(session: Fields) -> bool:
    """Return whether the subscription of a session begins with a trial."""
    data = session["_data"].get("subscription_data", {})
    return bool(data.get("trial_period_days") or data.get("trial_end"))


def set_discount(tx: Transaction, session: Body, entries: Sequence[Fields]) -> None:
    """Set the discount of an open session, which may have one; its coupon is redeemed when the session is complete."""
    if len(entries) > 1:
        raise invalid_request("You can only specify one discount.", "discounts")
    for entry in entries:
        if ("coupon" in entry) == ("promotion_code" in entry):
            raise invalid_request("You must specify either coupon or promotion_code.", "discounts[0]")
        id = entry.get("coupon")
        if id is None:
            param = "discounts[0][promotion_code]"
            code = discounts.require_usable_code(tx, entry["promotion_code"], param, build_redemption(tx, session))
            id = code["promotion"]["coupon"]
        coupons.require_redeemable(tx, tx.get("coupon", id, "discounts[0][coupon]"), "discounts[0][coupon]")
        session["discounts"] = [{"coupon": entry.get("coupon"), "promotion_code": entry.get("promotion_code")}]
    compute_amounts(tx, session)


def enter_code(tx: Transaction, session: Body, code: str) -> None:
    """Apply the promotion code that a customer enters; raises ApiError."""
    if not session.get("allow_promotion_codes"):
        raise invalid_request("The session does not allow promotion codes.", "promotion_code")
    usable = [
        promotion_code
        for promotion_code in promotion_codes.list_codes(tx, code)
        if promotion_code["customer"] in (None, session["customer"])
    ]
    if not usable:
        raise invalid_request("This code is invalid.", "promotion_code")
    set_discount(tx, session, [{"promotion_code": usable[0]["id"]}])


def build_redemption(tx: Transaction, session: Fields) -> discounts.Redemption:
    """Build the redemption of a session's discount."""
    amount = sum(line["amount_subtotal"] for line in fetch_lines(tx, session["id"]))
    owner = {"checkout_session": session["id"]}
    return discounts.Redemption(owner, session["customer"], session.get("currency"), tx.now, amount=amount)


def list_entries(session: Fields) -> list[Body]:
    """Return the discount of a session as a parameter of other calls."""
    return [{name: id for name, id in entry.items() if id is not None} for entry in session.get("discounts") or ()]


def compute_amounts(tx: Transaction, session: Body) -> None:
    """Compute the amounts of a session and its lines."""
    lines = fetch_lines(tx, session["id"])
    if not lines:
        return
    off = _compute_off(tx, session, lines)
    for line, part in zip(lines, off, strict=True):
        tx.save({**line, "amount_discount": part, "amount_total": line["amount_subtotal"] - part})
    subtotal = sum(line["amount_subtotal"] for line in lines)
    session.update(
        currency=lines[0]["currency"],
        amount_subtotal=subtotal,
        amount_total=subtotal - sum(off),
        total_details={"amount_discount": sum(off), "amount_shipping": 0, "amount_tax": 0},
    )


def _compute_off(tx: Transaction, session: Fields, lines: Sequence[Body]) -> list[int]:
    """Return the amount that the discount of a session takes off each line."""
    entries = list_entries(session)
    if not entries:
        return [0] * len(lines)
    id = entries[0].get("coupon")
    if id is None:
        id = tx.get("promotion_code", entries[0]["promotion_code"])["promotion"]["coupon"]
    coupon = tx.get("coupon", id)
    weights = [
        line["amount_subtotal"]
        if discounts.applies_to(coupon, {"pricing": {"price_details": tx.get("price", line["price"])}})
        else 0
        for line in lines
    ]
    if not sum(weights):
        return weights
    return split_proportionally(discounts.compute_off(coupon, sum(weights), lines[0]["currency"]), weights)
