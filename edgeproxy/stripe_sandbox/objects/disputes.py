"""Disputes of charges: the money goes at once, and comes back where the bank decides for us."""

from edgeproxy.stripe_sandbox.lists import Ids, Parameters
from edgeproxy.stripe_sandbox.objects import balance
from edgeproxy.stripe_sandbox.objects.fields import merge_metadata
from edgeproxy.stripe_sandbox.refusal import invalid_request
from edgeproxy.stripe_sandbox.transaction import Body, Transaction, generate_id

FEE_CENTS = 1500
"""Stripe's fee of a dispute; it stays with Stripe."""
RESPONSE_SECONDS = 7 * 86400
RESULTS = {"winning_evidence": "won", "losing_evidence": "lost"}
"""The decision of the bank, by the text of the evidence, as in Stripe's test mode."""


def open_dispute(tx: Transaction, charge: Body) -> Body:
    """Open a dispute of a charge over all of it, and withdraw the money."""
    details = {**charge["payment_method_details"]["card"], "case_type": "chargeback", "network_reason_code": "10.4"}
    made: Body = {
        "id": generate_id("du"),
        "object": "dispute",
        "amount": charge["amount_captured"],
        "charge": charge["id"],
        "created": tx.now,
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {"enhanced_evidence": {}},
        "evidence_details": {
            "due_by": tx.now + RESPONSE_SECONDS,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        "is_charge_refundable": False,
        "livemode": tx.live,
        "metadata": {},
        "network_reason_code": "10.4",
        "payment_intent": charge["payment_intent"],
        "payment_method_details": {"type": "card", "card": details},
        "reason": "fraudulent",
        "status": "needs_response",
    }
    moved = balance.record_transaction(tx, made, "adjustment", -made["amount"], FEE_CENTS, "dispute")
    made["_moved"] = [moved["id"]]
    tx.insert(made)
    tx.save({**charge, "disputed": True})
    tx.record_event("charge.dispute.created", made)
    tx.record_event("charge.dispute.funds_withdrawn", made)
    return made


def update(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Add evidence to a dispute; the bank decides at once where its text says how."""
    made = _get_open(tx, ids["id"])
    merge_metadata(made, p)
    if "evidence" in p:
        made["evidence"] = {**made["evidence"], **p["evidence"]}
        made["evidence_details"] = {**made["evidence_details"], "has_evidence": True}
    if made["evidence_details"]["has_evidence"] and p.get("submit", "evidence" in p):
        count = made["evidence_details"]["submission_count"] + 1
        made["evidence_details"] = {**made["evidence_details"], "submission_count": count}
        made["status"] = RESULTS.get(made["evidence"].get("uncategorized_text", ""), "under_review")
    tx.save(made)
    tx.record_event("charge.dispute.updated", made)
    return _settle(tx, made)


def close(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Accept a dispute as lost."""
    made = _get_open(tx, ids["id"])
    made["status"] = "lost"
    return _settle(tx, tx.save(made))


def _get_open(tx: Transaction, id: str) -> Body:
    made = tx.get("dispute", id)
    if made["status"] in RESULTS.values():
        raise invalid_request("This dispute is already closed")
    return made


def _settle(tx: Transaction, made: Body) -> Body:
    """Give the money of a won dispute back, and tell of a closed one."""
    if made["status"] == "won":
        moved = balance.record_transaction(tx, made, "adjustment", made["amount"], 0, "dispute_reversal")
        made["_moved"] = [*made["_moved"], moved["id"]]
        tx.save(made)
        tx.record_event("charge.dispute.funds_reinstated", made)
    if made["status"] in RESULTS.values():
        tx.record_event("charge.dispute.closed", made)
    return made


def view(tx: Transaction, body: Body) -> Body:
    """Return a dispute with the movements of its money."""
    moved = [tx.render(tx.get("balance_transaction", id)) for id in body["_moved"]]
    return {**body, "balance_transactions": moved}
