"""Payments of Checkout sessions by an entered card, with authentication by its owner if the bank requires it.

A session has one intent. If a card is declined, or its owner fails to authenticate, the next card uses that intent.
"""

from collections.abc import Callable, Mapping

from stripe_sandbox.objects import (
    cards,
    checkout_amounts,
    collection,
    customers,
    discounts,
    invoice_items,
    invoices,
    payment_methods,
    payments,
    setup_intents,
    subscription_renewal,
    subscriptions,
)
from stripe_sandbox.objects.fields import compute_previous_attributes, merge_metadata, set_fields
from stripe_sandbox.refusal import ApiError, invalid_request
from stripe_sandbox.transaction import Body, Fields, Transaction


def get_open_session(tx: Transaction, id: str) -> Body:
    """Return a session that can be paid; raises ApiError for any other."""
    session = tx.get("checkout.session", id)
    if session["status"] != "open":
        raise invalid_request(f"The session is {session['status']}.")
    return session


def enter_code(tx: Transaction, session: Body, code: str) -> Body:
    """Apply the promotion code that a customer enters; raises ApiError."""
    if session.get("_invoice"):
        raise invalid_request("The promotion code cannot be changed once a payment was tried.", "promotion_code")
    checkout_amounts.enter_code(tx, session, code)
    if session.get("_intent"):  # It was declined, and of another amount.
        payments.cancel_intent(tx, get_intent(tx, session.pop("_intent")), "abandoned")
    return tx.save(session)


def pay(tx: Transaction, id: str, card: str | Fields, promotion_code: str | None = None, email: str = "") -> Body:
    """Pay a session with a card, a test token or number, or the data of a payment method; raises ApiError.

    If the owner of the card must authenticate, on the page of the intent, the session stays open.
    """
    session = get_open_session(tx, id)
    if promotion_code:
        enter_code(tx, session, promotion_code)
    if email:
        session["_email"] = email
    customer = _find_or_create_customer(tx, session)
    session["customer"] = None if customer is None else customer["id"]
    method = _get_method(tx, card, session["customer"])
    intent = _begin(tx, session)
    if intent is None:
        try:
            return complete(tx, session, None, method["id"])
        except ApiError as error:
            error.commits = False  # Without a payment nothing is begun.
            raise
    tx.save(session)
    intent = confirm_intent(tx, {**intent, "payment_method": method["id"], "_return_url": session["url"]})
    return session if intent["status"] == "requires_action" else complete(tx, session, intent, method["id"])


def confirm_intent(tx: Transaction, intent: Body) -> Body:
    """Confirm an intent on the customer's page. Raises a bank's refusal after recording it."""
    if intent["object"] == "setup_intent":
        return setup_intents.confirm_intent(tx, intent)
    try:
        return payments.confirm_intent(tx, intent)
    except ApiError as error:
        if error.commits:
            collection.record_declined_intent(tx, intent)
        raise


def get_intent(tx: Transaction, id: str) -> Body:
    """Return a payment intent or a setup intent."""
    return tx.get("setup_intent" if id.startswith("seti_") else "payment_intent", id)


def _get_method(tx: Transaction, card: str | Fields, customer: str | None) -> Body:
    """Return the payment method of a card; a customer has one for each test token."""
    if not isinstance(card, str):
        return payment_methods.create_from_data(tx, card, "")
    token = cards.find_token(card.replace(" ", "")) or card
    if token not in cards.CARDS:
        raise invalid_request(f"The sandbox knows no card {card}.", "card")
    for attached in tx.all("payment_method", customer=customer, _token=token) if customer else ():
        return attached
    return payment_methods.get_method(tx, token, "card")


def _find_or_create_customer(tx: Transaction, session: Body) -> Body | None:
    """Return the customer of a session, created if its mode needs one; None for a guest's payment."""
    if session["customer"]:
        return tx.get("customer", session["customer"])
    if (
        session["mode"] == "payment"
        and session.get("customer_creation") != "always"
        and "invoice_creation" not in session
    ):
        return None
    email = session.get("customer_email") or session.get("_email")
    return customers.create(tx, {}, {"email": email} if email else {})


# ---- begun


def _begin(tx: Transaction, session: Body) -> Body | None:
    """Return the intent of a session, created for its first card; None if nothing is due."""
    if session.get("_intent"):
        return get_intent(tx, session["_intent"])
    intent = BEGINNINGS[_get_kind(session)](tx, session)
    if intent is not None:
        session["_intent"], intent["_session"] = intent["id"], session["id"]
    return intent


def _get_kind(session: Fields) -> str:
    """Return the mode of a session, or `invoice` for a payment by an invoice."""
    return "invoice" if (session.get("invoice_creation") or {}).get("enabled") else str(session["mode"])


def _begin_payment(tx: Transaction, session: Body) -> Body | None:
    if not session["amount_total"]:
        return None
    intent = payments.create_intent(tx, session["amount_total"], session["currency"], session["customer"])
    data = session["_data"].get("payment_intent_data", {})
    set_fields(intent, data, "description", "receipt_email", "setup_future_usage")
    merge_metadata(intent, data)
    return intent


def _begin_invoice(tx: Transaction, session: Body) -> Body | None:
    """Finalize an invoice of the session's lines."""
    customer = session["customer"]
    invoice = invoices.create(tx, {}, {"customer": customer, "currency": session["currency"]})
    for line in checkout_amounts.fetch_lines(tx, session["id"]):
        item = {"pricing": {"price": line["price"]}, "quantity": line["quantity"]}
        invoice_items.create(tx, {}, {"customer": customer, "invoice": invoice["id"], **item})
    invoice = invoices.update(tx, {"id": invoice["id"]}, {"discounts": checkout_amounts.list_entries(session)})
    return _begin_open_invoice(tx, session, collection.finalize_draft(tx, invoice))


def _begin_subscription(tx: Transaction, session: Body) -> Body | None:
    """Create the subscription, which is incomplete until its first invoice is paid."""
    items = [
        {name: line[name] for name in ("price", "quantity") if line[name] is not None}
        for line in checkout_amounts.fetch_lines(tx, session["id"])
    ]
    subscription = subscriptions.create(
        tx,
        {},
        {
            "customer": session["customer"],
            "items": items,
            "payment_behavior": "default_incomplete",
            "discounts": checkout_amounts.list_entries(session),
            **session["_data"].get("subscription_data", {}),
        },
    )
    session["_subscription"] = subscription["id"]
    invoice = subscription.get("latest_invoice")
    return None if invoice is None else _begin_open_invoice(tx, session, tx.get("invoice", invoice))


def _begin_open_invoice(tx: Transaction, session: Body, invoice: Fields) -> Body | None:
    session["_invoice"] = invoice["id"]
    return tx.get("payment_intent", invoice["_intent"]) if invoice["status"] == "open" else None


def _begin_setup(tx: Transaction, session: Body) -> Body:
    return setup_intents.create_intent(tx, session["customer"], "off_session")


BEGINNINGS: Mapping[str, Callable[[Transaction, Body], Body | None]] = {
    "invoice": _begin_invoice,
    "payment": _begin_payment,
    "setup": _begin_setup,
    "subscription": _begin_subscription,
}
"""The first step of a payment, by the kind of its session."""


# ---- completion and expiry


def complete(tx: Transaction, session: Body, intent: Body | None, method_id: str) -> Body:
    """Complete a session that is paid: by this intent, with this payment method, or with nothing to pay."""
    before = dict(session)
    if session["customer"] is not None:
        method = {**tx.get("payment_method", method_id), "_consumed": False}
        payment_methods.save_to_customer(tx, method, session["customer"], checked=intent is not None)
    COMPLETIONS[_get_kind(session)](tx, session, intent, method_id)
    customer: Fields = tx.get("customer", session["customer"]) if session["customer"] else {}
    email = session.get("customer_email") or session.get("_email") or customer.get("email")
    session.update(
        status="complete",
        url=None,
        customer_details={
            **{name: customer.get(name) for name in ("address", "name", "phone")},
            "email": email,
            "tax_exempt": "none",
            "tax_ids": [],
        },
    )
    tx.save(session)
    tx.record_event("checkout.session.completed", session, compute_previous_attributes(before, session))
    return session


def _complete_payment(tx: Transaction, session: Body, intent: Body | None, method_id: str) -> None:
    """Redeem the discount of a payment, which no other object has redeemed."""
    redemption = checkout_amounts.build_redemption(tx, session)
    discounts.redeem(tx, checkout_amounts.list_entries(session), "discounts", redemption)
    session["payment_status"] = "no_payment_required" if intent is None else "paid"
    session["payment_intent"] = None if intent is None else intent["id"]


def _complete_invoice(tx: Transaction, session: Body, intent: Body | None, method_id: str) -> None:
    if intent is not None:
        collection.record_paid_intent(tx, intent)
        session["payment_intent"] = intent["id"]
    session.update(invoice=session["_invoice"], payment_status="paid")


def _complete_subscription(tx: Transaction, session: Body, intent: Body | None, method_id: str) -> None:
    subscription = tx.get("subscription", session["_subscription"])
    tx.save({**subscription, "default_payment_method": method_id})
    if intent is not None:
        collection.record_paid_intent(tx, intent)
    session.update(
        subscription=subscription["id"],
        invoice=session.get("_invoice"),
        payment_status="no_payment_required" if subscription["status"] == "trialing" else "paid",
    )


def _complete_setup(tx: Transaction, session: Body, intent: Body | None, method_id: str) -> None:
    assert intent is not None
    session["setup_intent"] = intent["id"]


COMPLETIONS: Mapping[str, Callable[[Transaction, Body, Body | None, str], None]] = {
    "invoice": _complete_invoice,
    "payment": _complete_payment,
    "setup": _complete_setup,
    "subscription": _complete_subscription,
}
"""The effect of a completed session, by its kind."""


def abandon(tx: Transaction, session: Fields) -> None:
    """Cancel the started payment of a session that expires."""
    if session.get("_subscription"):
        subscription_renewal.due_to_expire(tx, session["_subscription"])
    elif session.get("_invoice"):
        collection.void_invoice(tx, tx.get("invoice", session["_invoice"]))
    elif session.get("_intent"):
        intent = get_intent(tx, session["_intent"])
        if intent["object"] == "setup_intent":
            setup_intents.cancel(tx, {"id": intent["id"]}, {"cancellation_reason": "abandoned"})
        elif intent["status"] in payments.UNFINISHED:
            payments.cancel_intent(tx, intent, "abandoned")
