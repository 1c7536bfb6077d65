"""Checkout sessions and the customer portal: links for customers. Payments are at `/_sandbox/checkout/ID`."""

from collections.abc import Sequence

from edgeproxy.stripe_sandbox.amounts import get_unit_cents, round_to_cents
from edgeproxy.stripe_sandbox.lists import Ids, Parameters, format_list, list_objects, slice_list
from edgeproxy.stripe_sandbox.objects import (
    catalog,
    collection,
    customers,
    invoice_items,
    invoices,
    payment_methods,
    payments,
    subscriptions,
)
from edgeproxy.stripe_sandbox.objects.fields import (
    compute_previous_attributes,
    merge_metadata,
    require_supported,
    set_fields,
)
from edgeproxy.stripe_sandbox.refusal import ApiError, invalid_request, unsupported
from edgeproxy.stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

DAY, SOONEST_SECONDS = 86400, 1800
REFUSED = ("customer_account", "discounts", "setup_intent_data", "shipping_options", "payment_method_configuration")
KEPT = (
    "allow_promotion_codes",
    "billing_address_collection",
    "cancel_url",
    "client_reference_id",
    "customer_creation",
    "customer_email",
    "locale",
    "payment_method_collection",
    "return_url",
    "submit_type",
    "success_url",
)


def create(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Create a session: its lines, and the pages of the customer afterwards."""
    mode, expires = p.get("mode", "payment"), p.get("expires_at", tx.now + DAY)
    _check_session(p, mode, expires - tx.now)
    customer = None if "customer" not in p else tx.get("customer", p["customer"], "customer")
    id = generate_id("cs_live" if tx.live else "cs_test")
    made: Body = {
        "id": id,
        "object": "checkout.session",
        "automatic_tax": {"enabled": p.get("automatic_tax", {}).get("enabled", False)},
        "created": tx.now,
        "custom_fields": [],
        "custom_text": {},
        "customer": None if customer is None else customer["id"],
        "expires_at": expires,
        "livemode": tx.live,
        "mode": mode,
        "payment_method_types": ["card"],
        "payment_status": "unpaid" if mode != "setup" else "no_payment_required",
        "shipping_options": [],
        "status": "open",
        "ui_mode": "hosted_page",
        "url": f"{tx.account.base}/_sandbox/checkout/{id}",
        "_data": {
            name: p[name] for name in ("payment_intent_data", "subscription_data", "invoice_creation") if name in p
        },
    }
    if "tax_id_collection" in p:
        made["tax_id_collection"] = {"required": "never", **p["tax_id_collection"]}
    if p.get("invoice_creation"):
        made["invoice_creation"] = {"enabled": p["invoice_creation"]["enabled"], "invoice_data": {}}
    set_fields(made, p, *KEPT)
    merge_metadata(made, p)
    _add_lines(tx, made, p.get("line_items", ()))
    tx.insert(made)
    tx.set_timer(expires, "expire_session", id)
    tx.record_effect("checkout.session.created", id, amount=made.get("amount_total"), customer=made["customer"])
    return made


def _add_lines(tx: Transaction, session: Body, items: Sequence[Fields]) -> None:
    """Store the lines of a session, and set its amounts."""
    lines = [_build_line(tx, session, item, n) for n, item in enumerate(items)]
    if lines:
        session["currency"] = lines[0]["currency"]
        session["amount_subtotal"] = session["amount_total"] = sum(line["amount_total"] for line in lines)
        session["total_details"] = {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0}


def _check_session(p: Parameters, mode: str, lifetime_seconds: int) -> None:
    """Raise the refusal of parameters that no session can have."""
    require_supported(p, *REFUSED)
    if p.get("ui_mode", "hosted_page") != "hosted_page":
        raise unsupported("pages that are not hosted", "ui_mode")
    if "success_url" not in p:
        raise invalid_request("Missing required param: success_url.", "success_url", "parameter_missing")
    if mode != "setup" and not p.get("line_items"):
        raise invalid_request("Missing required param: line_items.", "line_items", "parameter_missing")
    if not SOONEST_SECONDS <= lifetime_seconds <= DAY:
        raise invalid_request("The `expires_at` timestamp must be from 30 minutes to 24 hours ahead.", "expires_at")


def _build_line(tx: Transaction, session: Body, item: Fields, place: int) -> Body:
    require_supported(item, "adjustable_quantity", "tax_rates")
    param = f"line_items[{place}]"
    if "price_data" in item:
        price = catalog.create_price(tx, {}, item["price_data"])
    elif "price" in item:
        price = tx.get("price", item["price"], f"{param}[price]")
    else:
        raise invalid_request(f"Missing required param: {param}[price].", f"{param}[price]", "parameter_missing")
    if session["mode"] == "payment" and price["type"] != "one_time":
        raise invalid_request("You specified `payment` mode but passed a recurring price.", "mode")
    metered = (price["recurring"] or {}).get("usage_type") == "metered"
    if metered == ("quantity" in item):
        raise invalid_request("Quantity is required, but for metered prices, which have none.", f"{param}[quantity]")
    amount = 0 if metered else round_to_cents(get_unit_cents(price) * item["quantity"])
    return tx.insert(
        {
            "id": generate_id("li"),
            "object": "item",
            "amount_discount": 0,
            "amount_subtotal": amount,
            "amount_tax": 0,
            "amount_total": amount,
            "currency": price["currency"],
            "description": tx.get("product", price["product"])["name"],
            "metadata": item.get("metadata"),
            "price": price["id"],
            "quantity": item.get("quantity"),
            "_session": session["id"],
        }
    )


def update(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Update a session's metadata."""
    require_supported(p, "line_items", "payment_intent_data", "shipping_options")
    made = tx.get("checkout.session", ids["id"])
    merge_metadata(made, p)
    return tx.save(made)


def list_sessions(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """List sessions."""
    require_supported(p, "customer_account", "payment_link")
    names = ("created", "customer", "payment_intent", "status", "subscription")
    fields = {name: p[name] for name in names if name in p}
    if "customer_details" in p:
        fields["customer_details.email"] = p["customer_details"]["email"]
    return list_objects(tx, "checkout.session", p, fields)


def list_lines(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """List the lines of a session."""
    return slice_list(tx, _lines(tx, tx.get("checkout.session", ids["id"])["id"]), p)


def _lines(tx: Transaction, session: str) -> list[Body]:
    return tx.all("item", _session=session)


def line_items(tx: Transaction, session: Body) -> Body:
    """Return the lines of a session, expanded."""
    lines = [tx.render(line) for line in _lines(tx, session["id"])]
    return format_list(tx, lines[:10], len(lines) > 10, f"/v1/checkout/sessions/{session['id']}/line_items")


def view_line(tx: Transaction, body: Body) -> Body:
    """Return a line with its price."""
    return {**body, "price": tx.render(tx.get("price", body["price"]))}


def expire(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Expire a session without a payment."""
    made = tx.get("checkout.session", ids["id"])
    if made["status"] != "open":
        raise invalid_request(f"Only sessions that are open can be expired; this one is {made['status']}.")
    due_to_expire(tx, made["id"])
    return tx.get("checkout.session", made["id"])


def due_to_expire(tx: Transaction, id: str) -> None:
    """Expire a session whose time is over."""
    made = tx.find("checkout.session", id)
    if made is not None and made["status"] == "open":
        made.update(status="expired", url=None)
        tx.save(made)
        tx.record_event("checkout.session.expired", made)


# ---- the customer pays


def pay(tx: Transaction, id: str, card: str) -> Body:
    """Pay a session by a card, one of Stripe's test tokens."""
    made = tx.get("checkout.session", id)
    if made["status"] != "open":
        raise invalid_request(f"The session is {made['status']}.")
    if card not in payment_methods.CARDS:
        raise invalid_request(f"The sandbox knows no card {card}.", "card")
    customer = _customer(tx, made)
    if customer is not None:
        made["customer"] = customer["id"]
        method = payment_methods.attach_method(tx, card, customer["id"], "card")
    else:
        method = payment_methods.get_method(tx, card, "card")
    before = dict(made)
    PAID[made["mode"]](tx, made, customer, method)
    email = made.get("customer_email") or (customer or {}).get("email")
    made.update(
        status="complete",
        url=None,
        customer_details={"email": email, "name": (customer or {}).get("name"), "tax_exempt": "none", "tax_ids": []},
    )
    tx.save(made)
    tx.record_event("checkout.session.completed", made, compute_previous_attributes(before, made))
    return made


def _customer(tx: Transaction, made: Body) -> Body | None:
    if made["customer"]:
        return tx.get("customer", made["customer"])
    if made["mode"] == "payment" and made.get("customer_creation") != "always" and "invoice_creation" not in made:
        return None
    return customers.create(tx, {}, {"email": made["customer_email"]} if made.get("customer_email") else {})


def _paid_once(tx: Transaction, made: Body, customer: Body | None, method: Body) -> None:
    data = made["_data"].get("payment_intent_data", {})
    if made.get("invoice_creation", {}).get("enabled"):
        assert customer is not None
        invoice = invoices.create(tx, {}, {"customer": customer["id"], "currency": made["currency"]})
        for line in _lines(tx, made["id"]):
            item = {"pricing": {"price": line["price"]}, "quantity": line["quantity"]}
            invoice_items.create(tx, {}, {"customer": customer["id"], "invoice": invoice["id"], **item})
        invoice = collection.collect_payment(
            tx, collection.finalize_draft(tx, tx.get("invoice", invoice["id"])), method["id"]
        )
        made.update(invoice=invoice["id"], payment_intent=invoice["_intent"], payment_status="paid")
        return
    intent = payments.create_intent(
        tx, made["amount_total"], made["currency"], None if customer is None else customer["id"]
    )
    intent["payment_method"] = method["id"]
    set_fields(intent, data, "description", "receipt_email", "setup_future_usage")
    merge_metadata(intent, data)
    intent = payments.confirm_intent(tx, intent)
    if intent["status"] != "succeeded":
        raise ApiError(402, "The payment wants to be confirmed by its owner.", kind="card_error", code="card_declined")
    made.update(payment_intent=intent["id"], payment_status="paid")


def _subscribed(tx: Transaction, made: Body, customer: Body | None, method: Body) -> None:
    assert customer is not None
    items = [
        {name: line[name] for name in ("price", "quantity") if line[name] is not None}
        for line in _lines(tx, made["id"])
    ]
    subscription = subscriptions.create(
        tx,
        {},
        {
            "customer": customer["id"],
            "items": items,
            "default_payment_method": method["id"],
            "payment_behavior": "error_if_incomplete",
            **made["_data"].get("subscription_data", {}),
        },
    )
    made.update(subscription=subscription["id"], invoice=subscription.get("latest_invoice"), payment_status="paid")


def _set_up(tx: Transaction, made: Body, customer: Body | None, method: Body) -> None:
    """Store the card for later."""


PAID = {"payment": _paid_once, "subscription": _subscribed, "setup": _set_up}
"""The effect of a payment, by the mode of a session."""


# ---- portal


def create_portal(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Create a link to a page with a customer's invoices."""
    require_supported(p, "customer_account")
    if "customer" not in p:
        raise invalid_request("Missing required param: customer.", "customer", "parameter_missing")
    customer = tx.get("customer", p["customer"], "customer")
    id = generate_id("bps")
    made: Body = {
        "id": id,
        "object": "billing_portal.session",
        "configuration": p.get("configuration", "bpc_sandbox"),
        "created": tx.now,
        "customer": customer["id"],
        "livemode": tx.live,
        "locale": p.get("locale"),
        "return_url": p.get("return_url"),
        "url": f"{tx.account.base}/_sandbox/portal/{id}",
    }
    tx.insert(made)
    tx.record_event("billing_portal.session.created", made)
    return made
