"""Customers, their balance, tax ids and payment methods."""

from stripe_sandbox.json_values import JsonValue
from stripe_sandbox.lists import Ids, Parameters, format_list, list_objects, slice_list
from stripe_sandbox.objects import payment_methods, subscription_state
from stripe_sandbox.objects.currencies import parse_currency
from stripe_sandbox.objects.fields import (
    compute_previous_attributes,
    merge_metadata,
    require_email,
    require_supported,
    set_fields,
)
from stripe_sandbox.refusal import invalid_request, no_such_object
from stripe_sandbox.transaction import Body, Transaction, generate_id

PLAIN = (
    "address",
    "business_name",
    "description",
    "email",
    "individual_name",
    "invoice_prefix",
    "name",
    "phone",
    "preferred_locales",
    "shipping",
)
CUSTOMERS_PER_CLOCK = 3


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a customer."""
    id = generate_id("cus")
    clock = params.get("test_clock")
    if clock is not None:
        tx.get("test_helpers.test_clock", clock, "test_clock")
        if len(tx.all("customer", test_clock=clock)) >= CUSTOMERS_PER_CLOCK:
            raise invalid_request(f"A test clock can have up to {CUSTOMERS_PER_CLOCK} customers.", "test_clock")
    customer: Body = {
        "id": id,
        "object": "customer",
        "balance": 0,
        "created": tx.get_time(clock),
        "delinquent": False,
        "invoice_prefix": id[-8:].upper(),
        "invoice_settings": {},
        "livemode": tx.live,
        "next_invoice_sequence": 1,
        "preferred_locales": [],
        "tax_exempt": "none",
        "test_clock": clock,
    }
    tx.insert(customer)
    _put(tx, customer, params)
    if params.get("balance"):
        customer["balance"] = 0
        add_to_balance(tx, customer, params["balance"], "usd", "initial")
    for tax_id in params.get("tax_id_data", ()):
        create_tax_id(tx, {"id": id}, tax_id)
    tx.save(customer)
    tx.record_event("customer.created", customer)
    return customer


def retrieve(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Return a customer, or that it was deleted."""
    customer = tx.find("customer", ids["id"])
    if customer is None and tx.find_deleted("customer", ids["id"]):
        return {"id": ids["id"], "object": "customer", "deleted": True}
    return customer or tx.get("customer", ids["id"])


def update(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update a customer."""
    customer = tx.get("customer", ids["id"])
    before = dict(customer)
    _put(tx, customer, params)
    if "balance" in params and params["balance"] != before["balance"]:
        customer["balance"] = before["balance"]
        add_to_balance(
            tx, customer, params["balance"] - before["balance"], customer.get("currency") or "usd", "adjustment"
        )
    tx.save(customer)
    tx.record_event("customer.updated", customer, compute_previous_attributes(before, customer))
    return customer


def delete(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Delete a customer; subscriptions end at once."""
    customer = tx.get("customer", ids["id"])
    for subscription in tx.all("subscription", customer=customer["id"]):
        if subscription["status"] not in subscription_state.ENDED:
            subscription_state.end_subscription(tx, subscription, "cancellation_requested")
    gone = tx.delete(customer)
    tx.record_event("customer.deleted", customer)
    return gone


def _put(tx: Transaction, customer: Body, params: Parameters) -> None:
    require_supported(params, "validate")
    require_email(params, "email")
    set_fields(customer, params, *PLAIN, "next_invoice_sequence", "tax_exempt")
    merge_metadata(customer, params)
    if customer["tax_exempt"] is None:
        customer["tax_exempt"] = "none"
    settings = dict(customer["invoice_settings"])
    settings_change = params.get("invoice_settings", {})
    set_fields(settings, settings_change, "footer", "rendering_options")
    if "payment_method" in params:
        payment_methods.attach_method(tx, params["payment_method"], customer["id"], "payment_method")
    if settings_change.get("default_payment_method") == "":
        settings["default_payment_method"] = None
    elif "default_payment_method" in settings_change:
        method = payment_methods.attach_method(
            tx, settings_change["default_payment_method"], customer["id"], "invoice_settings[default_payment_method]"
        )
        settings["default_payment_method"] = method["id"]
    customer["invoice_settings"] = settings


# ---- balance


def add_to_balance(tx: Transaction, customer: Body, amount: int, currency: str, kind: str, **more: JsonValue) -> Body:
    """Add to a customer's debt (below zero: credit), with its transaction; saves the customer."""
    customer["balance"] += amount
    if customer.get("currency") is None:
        customer["currency"] = currency
    tx.save(customer)
    transaction: Body = {
        "id": generate_id("cbtxn"),
        "object": "customer_balance_transaction",
        "amount": amount,
        "created": tx.get_time(customer.get("test_clock")),
        "currency": currency,
        "customer": customer["id"],
        "ending_balance": customer["balance"],
        "livemode": tx.live,
        "metadata": {},
        "type": kind,
        **more,
    }
    tx.insert(transaction)
    tx.record_effect(
        "customer_balance_transaction.created", transaction["id"], amount=amount, customer=customer["id"], type=kind
    )
    return transaction


def create_balance_transaction(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Adjust a customer's balance."""
    customer = tx.get("customer", ids["id"])
    transaction = add_to_balance(tx, customer, params["amount"], parse_currency(params["currency"]), "adjustment")
    set_fields(transaction, params, "description")
    merge_metadata(transaction, params)
    tx.record_event("customer.updated", customer, {"balance": customer["balance"] - params["amount"]})
    return tx.save(transaction)


def list_balance_transactions(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List the transactions of a customer's balance."""
    tx.get("customer", ids["id"])
    fields = {name: params[name] for name in ("created", "invoice") if name in params}
    return list_objects(tx, "customer_balance_transaction", params, {"customer": ids["id"], **fields})


# ---- tax ids, ways to pay


def create_tax_id(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a tax id of a customer."""
    customer = tx.get("customer", ids["id"])
    tax_id: Body = {
        "id": generate_id("txi"),
        "object": "tax_id",
        "country": None
        if params["type"] == "eu_vat" and len(params["value"]) < 2
        else find_country(params["type"], params["value"]),
        "created": tx.get_time(customer.get("test_clock")),
        "customer": customer["id"],
        "livemode": tx.live,
        "owner": {"type": "customer", "customer": customer["id"]},
        "type": params["type"],
        "value": params["value"],
        "verification": {"status": "pending"},
    }
    tx.insert(tax_id)
    tx.record_event("customer.tax_id.created", tax_id)
    return tax_id


def find_country(kind: str, value: str) -> str:
    """Return the country of a tax id: of its type, or of its value in the European Union."""
    return (value if kind.startswith("eu_") else kind)[:2].upper()


def create_own_tax_id(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a tax id of an `owner`."""
    owner = params.get("owner", {"type": "self"})
    if owner["type"] != "customer" or "customer" not in owner:
        raise invalid_request("The sandbox has tax ids of customers alone.", "owner")
    if tx.find("customer", owner["customer"]) is None:
        raise no_such_object("customer", owner["customer"], "owner[customer]")
    return create_tax_id(tx, {"id": owner["customer"]}, params)


def list_tax_ids(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List a customer's tax ids."""
    tx.get("customer", ids["id"])
    return list_objects(tx, "tax_id", params, {"customer": ids["id"]})


def list_all_tax_ids(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List tax ids of an owner, or all."""
    owner = params.get("owner", {})
    return list_objects(tx, "tax_id", params, {"customer": owner["customer"]} if "customer" in owner else {})


def delete_tax_id(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Delete a tax id."""
    tax_id = tx.get("tax_id", ids["id"])
    if ids.get("customer_id", tax_id["customer"]) != tax_id["customer"]:
        raise no_such_object("tax id", ids["id"])
    gone = tx.delete(tax_id)
    tx.record_event("customer.tax_id.deleted", tax_id)
    return gone


def list_payment_methods(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List a customer's payment methods."""
    tx.get("customer", ids["id"])
    fields = {name: params[name] for name in ("type", "allow_redisplay") if name in params}
    methods = list_objects(tx, "payment_method", {**params, "limit": 100}, {"customer": ids["id"], **fields})
    return slice_list(tx, methods["data"], params)


def expand_tax_ids(tx: Transaction, customer: Body) -> Body:
    """Return a customer's tax ids, expanded."""
    bodies = [tx.render(tax_id) for tax_id in tx.all("tax_id", customer=customer["id"])]
    return format_list(tx, bodies, False, f"/v1/customers/{customer['id']}/tax_ids")
