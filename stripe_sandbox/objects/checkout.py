"""Checkout sessions: pages for payments by customers, at `/_sandbox/checkout/ID`."""

from stripe_sandbox.amounts import get_unit_cents, round_to_cents
from stripe_sandbox.lists import Ids, Parameters, format_list, list_objects, slice_list
from stripe_sandbox.objects import catalog, checkout_amounts, checkout_payments
from stripe_sandbox.objects.currencies import format_units, get_minimum
from stripe_sandbox.objects.fields import merge_metadata, require_supported, set_fields
from stripe_sandbox.refusal import invalid_request, unsupported
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

LIFETIME_SECONDS_MIN, LIFETIME_SECONDS_MAX = 1800, 86400
UNSUPPORTED = ("customer_account", "setup_intent_data", "shipping_options", "payment_method_configuration")
COPIED = (
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
"""Parameters that a session shows unchanged."""


def create(tx: Transaction, ids: Ids, parameters: Parameters) -> Body:
    """Create an open session with its lines; it expires at `expires_at`, by default a day from now."""
    mode, expires_at = parameters.get("mode", "payment"), parameters.get("expires_at", tx.now + LIFETIME_SECONDS_MAX)
    _check_session(parameters, mode, expires_at - tx.now)
    customer = None if "customer" not in parameters else tx.get("customer", parameters["customer"], "customer")
    id = generate_id("cs_live" if tx.live else "cs_test")
    session: Body = {
        "id": id,
        "object": "checkout.session",
        "automatic_tax": {"enabled": parameters.get("automatic_tax", {}).get("enabled", False)},
        "created": tx.now,
        "custom_text": {},
        "customer": None if customer is None else customer["id"],
        "expires_at": expires_at,
        "livemode": tx.live,
        "mode": mode,
        "payment_method_types": ["card"],
        "phone_number_collection": {"enabled": False},
        "payment_status": "unpaid" if mode != "setup" else "no_payment_required",
        **{name: [] for name in ("custom_fields", "shipping_options")},
        "status": "open",
        "ui_mode": "hosted_page",
        "url": f"{tx.account.base}/_sandbox/checkout/{id}",
        "_data": {
            name: parameters[name]
            for name in ("payment_intent_data", "subscription_data", "invoice_creation")
            if name in parameters
        },
    }
    if "tax_id_collection" in parameters:
        session["tax_id_collection"] = {"required": "never", **parameters["tax_id_collection"]}
    if parameters.get("invoice_creation"):
        session["invoice_creation"] = {"enabled": parameters["invoice_creation"]["enabled"], "invoice_data": {}}
    set_fields(session, parameters, *COPIED)
    merge_metadata(session, parameters)
    _add_lines(tx, session, parameters)
    tx.insert(session)
    tx.set_timer(expires_at, "expire_session", id)
    tx.record_effect("checkout.session.created", id, amount=session.get("amount_total"), customer=session["customer"])
    return session


def _add_lines(tx: Transaction, session: Body, parameters: Parameters) -> None:
    """Store the lines of a session, and set its discount and amounts."""
    for place, item in enumerate(parameters.get("line_items", ())):
        _build_line(tx, session, item, place)
    checkout_amounts.compute_amounts(tx, session)  # Least amounts of promotion codes are by it.
    checkout_amounts.set_discount(tx, session, parameters.get("discounts", ()))
    if session["mode"] == "payment" and session.get("amount_total"):
        _require_minimum(session["amount_total"], session["currency"])


def _require_minimum(total: int, currency: str) -> None:
    """Raise the refusal of a total below the least charge."""
    least = get_minimum(currency)
    if total < least:
        message = f"The Checkout Session's total amount due must add up to at least {format_units(least, currency)}"
        raise invalid_request(f"{message} {currency}", "line_items", "amount_too_small")


def _check_session(parameters: Parameters, mode: str, lifetime_seconds: int) -> None:
    """Raise ApiError for parameters that no session can have."""
    require_supported(parameters, *UNSUPPORTED)
    if parameters.get("ui_mode", "hosted_page") != "hosted_page":
        raise unsupported("pages that are not hosted", "ui_mode")
    if "success_url" not in parameters:
        raise invalid_request("Missing required param: success_url.", "success_url", "parameter_missing")
    if mode != "setup" and not parameters.get("line_items"):
        raise invalid_request("Missing required param: line_items.", "line_items", "parameter_missing")
    if "discounts" in parameters and "allow_promotion_codes" in parameters:
        raise invalid_request(
            "You may only specify one of these parameters: allow_promotion_codes, discounts.", "allow_promotion_codes"
        )
    if not LIFETIME_SECONDS_MIN <= lifetime_seconds <= LIFETIME_SECONDS_MAX:
        raise invalid_request("The `expires_at` timestamp must be from 30 minutes to 24 hours ahead.", "expires_at")


def _build_line(tx: Transaction, session: Body, item: Fields, place: int) -> Body:
    """Store the line of one of `line_items`; `place` is its index there, for errors."""
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
    free = metered or (price["type"] == "recurring" and checkout_amounts.has_trial(session))
    amount = 0 if free else round_to_cents(get_unit_cents(price) * item["quantity"])
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


def update(tx: Transaction, ids: Ids, parameters: Parameters) -> Body:
    """Update a session's metadata."""
    require_supported(parameters, "line_items", "payment_intent_data", "shipping_options")
    session = tx.get("checkout.session", ids["id"])
    merge_metadata(session, parameters)
    return tx.save(session)


def list_sessions(tx: Transaction, ids: Ids, parameters: Parameters) -> Body:
    """List sessions."""
    require_supported(parameters, "customer_account", "payment_link")
    names = ("created", "customer", "payment_intent", "status", "subscription")
    fields = {name: parameters[name] for name in names if name in parameters}
    if "customer_details" in parameters:
        fields["customer_details.email"] = parameters["customer_details"]["email"]
    return list_objects(tx, "checkout.session", parameters, fields)


def list_lines(tx: Transaction, ids: Ids, parameters: Parameters) -> Body:
    """List the lines of a session."""
    return slice_list(tx, checkout_amounts.fetch_lines(tx, tx.get("checkout.session", ids["id"])["id"]), parameters)


def render_line_items(tx: Transaction, session: Body) -> Body:
    """Return the first ten lines of a session as the list that `expand` puts into it."""
    lines = [tx.render(line) for line in checkout_amounts.fetch_lines(tx, session["id"])]
    return format_list(tx, lines[:10], len(lines) > 10, f"/v1/checkout/sessions/{session['id']}/line_items")


def view_line(tx: Transaction, body: Body) -> Body:
    """Return a line with its price."""
    return {**body, "price": tx.render(tx.get("price", body["price"]))}


def expire(tx: Transaction, ids: Ids, parameters: Parameters) -> Body:
    """Expire an open session; raises ApiError for any other."""
    session = tx.get("checkout.session", ids["id"])
    if session["status"] != "open":
        raise invalid_request(f"Only sessions that are open can be expired; this one is {session['status']}.")
    expire_if_open(tx, session["id"])
    return tx.get("checkout.session", session["id"])


def expire_if_open(tx: Transaction, id: str) -> None:
    """Expire a session unless it was paid or expired before; the timer of each session calls this."""
    session = tx.find("checkout.session", id)
    if session is not None and session["status"] == "open":
        checkout_payments.abandon(tx, session)
        session.update(status="expired", url=None)
        tx.save(session)
        tx.record_event("checkout.session.expired", session)
