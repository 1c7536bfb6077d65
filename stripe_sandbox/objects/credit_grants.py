"""Billing credits: grants to customers, which pay for usage when an invoice is finalized, and their transactions."""

from stripe_sandbox.json_values import JsonValue
from stripe_sandbox.lists import Ids, Parameters, list_objects
from stripe_sandbox.objects import invoice_lines
from stripe_sandbox.objects.currencies import parse_currency
from stripe_sandbox.objects.fields import (
    compute_previous_attributes,
    get_customer,
    merge_metadata,
    require_supported,
    set_fields,
)
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

PRIORITY, PRIORITY_MAX = 50, 100
"""Default and last priority of a grant; 0 is the first."""


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Grant credits to a customer."""
    customer = get_customer(tx, params)
    monetary = params["amount"].get("monetary")
    if monetary is None or monetary["value"] < 1:
        raise invalid_request("The amount must be above 0.", "amount[monetary][value]")
    scope = params["applicability_config"]["scope"]
    if ("price_type" in scope) == ("prices" in scope):
        raise invalid_request("You must specify either price_type or prices.", "applicability_config[scope]")
    for place, price in enumerate(scope.get("prices", ())):
        tx.get("price", price["id"], f"applicability_config[scope][prices][{place}][id]")
    priority = params.get("priority", PRIORITY)
    if not 0 <= priority <= PRIORITY_MAX:
        raise invalid_request(f"The priority must be from 0 to {PRIORITY_MAX}.", "priority")
    now = tx.get_time(customer.get("test_clock"))
    grant: Body = {
        "id": generate_id("credgr"),
        "object": "billing.credit_grant",
        "amount": {"type": "monetary", "monetary": {**monetary, "currency": parse_currency(monetary["currency"])}},
        "applicability_config": {"scope": scope},
        "category": params.get("category", "paid"),
        "created": now,
        "customer": customer["id"],
        "effective_at": params.get("effective_at", now),
        "expires_at": params.get("expires_at"),
        "livemode": tx.live,
        "name": params.get("name"),
        "priority": priority,
        "test_clock": customer.get("test_clock"),
        "updated": now,
        "_left": monetary["value"],
    }
    if grant["expires_at"] is not None and grant["expires_at"] <= max(now, grant["effective_at"]):
        raise invalid_request("The expires_at must be after the effective_at.", "expires_at")
    merge_metadata(grant, params)
    tx.insert(grant)
    tx.record_event("billing.credit_grant.created", grant)
    _book(tx, grant, monetary["value"], "credit", "credits_granted")
    _expire_later(tx, grant)
    return grant


def _expire_later(tx: Transaction, grant: Body) -> None:
    tx.cancel_timer("expire_grant", grant["id"])
    if grant["expires_at"] is not None:
        tx.set_timer(grant["expires_at"], "expire_grant", grant["id"], grant["test_clock"])


def _book(tx: Transaction, grant: Body, amount: int, side: str, kind: str, **more: JsonValue) -> Body:
    now = tx.get_time(grant["test_clock"])
    money = {"type": "monetary", "monetary": {"currency": _get_currency(grant), "value": amount}}
    transaction: Body = {
        "id": generate_id("cbtxn"),
        "object": "billing.credit_balance_transaction",
        "created": now,
        "credit_grant": grant["id"],
        "effective_at": grant["effective_at"] if kind == "credits_granted" else now,
        "livemode": tx.live,
        "test_clock": grant["test_clock"],
        "type": side,
        side: {"amount": money, "type": kind, **more},
        "_customer": grant["customer"],
    }
    tx.insert(transaction)
    tx.record_event("billing.credit_balance_transaction.created", transaction, on_record=False)
    tx.record_effect(
        f"billing.credit_balance_transaction.{kind}", transaction["id"], amount=amount, customer=grant["customer"]
    )
    return transaction


def _get_currency(grant: Fields) -> str:
    return str(grant["amount"]["monetary"]["currency"])


def update(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update the expiry of a grant."""
    grant = tx.get("billing.credit_grant", ids["id"])
    before = dict(grant)
    _require_open(grant)
    set_fields(grant, params, "expires_at")
    merge_metadata(grant, params)
    _expire_later(tx, grant)
    return _save_update(tx, grant, before)


def _require_open(grant: Fields) -> None:
    if grant.get("voided_at") is not None:
        raise invalid_request("The credit grant is void.")


def _save_update(tx: Transaction, grant: Body, before: Fields) -> Body:
    grant["updated"] = tx.get_time(grant["test_clock"])
    tx.save(grant)
    tx.record_event("billing.credit_grant.updated", grant, compute_previous_attributes(before, grant))
    return grant


def expire(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Expire a grant; its remainder is lost."""
    grant = tx.get("billing.credit_grant", ids["id"])
    _require_open(grant)
    before = dict(grant)
    grant["expires_at"] = tx.get_time(grant["test_clock"])
    return _save_update(tx, _empty_grant(tx, grant, "credits_expired"), before)


def void(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Void a grant."""
    grant = tx.get("billing.credit_grant", ids["id"])
    _require_open(grant)
    before = dict(grant)
    grant["voided_at"] = tx.get_time(grant["test_clock"])
    return _save_update(tx, _empty_grant(tx, grant, "credits_voided"), before)


def _empty_grant(tx: Transaction, grant: Body, kind: str) -> Body:
    if grant["_left"]:
        _book(tx, grant, grant["_left"], "debit", kind)
    grant["_left"] = 0
    tx.cancel_timer("expire_grant", grant["id"])
    return grant


def due_to_expire(tx: Transaction, id: str) -> None:
    """Expire a grant whose time is over."""
    grant = tx.find("billing.credit_grant", id)
    if grant is not None:
        tx.save(_empty_grant(tx, grant, "credits_expired"))


# ---- use


def list_usable(tx: Transaction, customer: str, currency: str) -> list[Body]:
    """List the usable grants in the order of their use: by priority, soonest expiry, gifts first, the oldest."""
    grants = [
        grant
        for grant in tx.all("billing.credit_grant", customer=customer)
        if grant["_left"]
        and _get_currency(grant) == currency
        and grant["effective_at"] <= tx.get_time(grant["test_clock"])
    ]
    return sorted(
        grants,
        key=lambda candidate: (
            candidate["priority"],
            candidate["expires_at"] or 2**62,
            candidate["category"] != "promotional",
            candidate["created"],
        ),
    )


def apply(tx: Transaction, invoice: Body) -> None:
    """Apply credits to the usage on an invoice that is being finalized."""
    grants = list_usable(tx, invoice["customer"], invoice["currency"])
    for line in invoice_lines.list_lines(tx, invoice) if grants else ():
        left = line["amount"] - sum(off["amount"] for off in line["discount_amounts"]) if "_place" in line else 0
        for grant in grants:
            taken = min(left, grant["_left"])
            if taken <= 0 or not _can_pay(grant, line):
                continue
            left -= taken
            grant["_left"] -= taken
            tx.save(grant)
            of_line = {"invoice": invoice["id"], "invoice_line_item": line["id"]}
            booked = _book(tx, grant, taken, "debit", "credits_applied", credits_applied=of_line)
            credit = {"amount": taken, "credit_balance_transaction": booked["id"], "type": "credit_balance_transaction"}
            line["pretax_credit_amounts"].append(credit)
        tx.save(line)


def _can_pay(grant: Fields, line: Fields) -> bool:
    prices = grant["applicability_config"]["scope"].get("prices")
    return prices is None or line["pricing"]["price_details"]["price"] in [price["id"] for price in prices]


def restore_credits(tx: Transaction, invoice: Fields) -> None:
    """Restore the credits of a voided invoice."""
    for credit in invoice["total_pretax_credit_amounts"]:
        if credit["type"] == "discount":
            continue
        booked = tx.get("billing.credit_balance_transaction", credit["credit_balance_transaction"])
        grant = tx.get("billing.credit_grant", booked["credit_grant"])
        if grant.get("voided_at") is None:
            grant["_left"] += credit["amount"]
            tx.save(grant)
        of_line = booked["debit"]["credits_applied"]
        kind = "credits_application_invoice_voided"
        _book(tx, grant, credit["amount"], "credit", kind, credits_application_invoice_voided=of_line)


# ---- reading


def summarize(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Return the balance of a grant, or of all grants that pay for something."""
    customer = get_customer(tx, params)
    grant_filter = params["filter"]
    if grant_filter["type"] == "credit_grant":
        grants = [tx.get("billing.credit_grant", grant_filter.get("credit_grant", ""), "filter[credit_grant]")]
    else:
        require_supported(grant_filter.get("applicability_scope", {}), "prices")
        grants = tx.all("billing.credit_grant", customer=customer["id"])
    now = tx.get_time(customer.get("test_clock"))
    sums: dict[str, list[int]] = {}
    for grant in grants:
        both = sums.setdefault(_get_currency(grant), [0, 0])
        both[0] += grant["_left"] if grant["effective_at"] <= now else 0
        both[1] += grant["_left"]
    return {
        "object": "billing.credit_balance_summary",
        "balances": [
            {"available_balance": _money(currency, available), "ledger_balance": _money(currency, ledger)}
            for currency, (available, ledger) in sums.items()
        ],
        "customer": customer["id"],
        "livemode": tx.live,
    }


def _money(currency: str, value: int) -> Body:
    return {"type": "monetary", "monetary": {"currency": currency, "value": value}}


def list_transactions(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List the transactions of a customer's credits."""
    fields = {"_customer": get_customer(tx, params)["id"]}
    if "credit_grant" in params:
        fields["credit_grant"] = params["credit_grant"]
    return list_objects(tx, "billing.credit_balance_transaction", params, fields)
