"""Disputes of charges: the money leaves the balance at once, and comes back if the dispute is won."""

from stripe_sandbox.lists import Ids, Parameters
from stripe_sandbox.objects import balance
from stripe_sandbox.objects.fields import merge_metadata
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Transaction, generate_id

FEE_CENTS = 1500
"""Stripe's fee of a dispute; it stays with Stripe."""
RESPONSE_SECONDS = 7 * 86400
RESULTS = {"winning_evidence": "won", "losing_evidence": "lost"}
"""The decision of the bank, by the text of the evidence, as in Stripe's test mode."""


def open_dispute(tx: Transaction, charge: Body, reason: str) -> Body:
    """Open a dispute of a charge over all of it, for this reason, and withdraw the money."""
    details = {**charge["payment_method_details"]["card"], "case_type": "chargeback", "network_reason_code": "10.4"}
    dispute: Body = {
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
        "reason": reason,
        "status": "needs_response",
    }
    moved = balance.record_transaction(tx, dispute, "adjustment", -dispute["amount"], FEE_CENTS, "dispute")
    dispute["_moved"] = [moved["id"]]
    tx.insert(dispute)
    tx.save({**charge, "disputed": True})
    tx.record_event("charge.dispute.created", dispute)
    tx.record_event("charge.dispute.funds_withdrawn", dispute)
    return dispute


def update(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Add evidence to a dispute; the bank decides at once where its text says how."""
    dispute = _get_open(tx, ids["id"])
    merge_metadata(dispute, params)
    if "evidence" in params:
        dispute["evidence"] = {**dispute["evidence"], **params["evidence"]}
        dispute["evidence_details"] = {**dispute["evidence_details"], "has_evidence": True}
    if dispute["evidence_details"]["has_evidence"] and params.get("submit", "evidence" in params):
        count = dispute["evidence_details"]["submission_count"] + 1
        dispute["evidence_details"] = {**dispute["evidence_details"], "submission_count": count}
        dispute["status"] = RESULTS.get(dispute["evidence"].get("uncategorized_text", ""), "under_review")
    tx.save(dispute)
    tx.record_event("charge.dispute.updated", dispute)
    return _settle(tx, dispute)


def close(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Accept a dispute as lost."""
    dispute = _get_open(tx, ids["id"])
    dispute["status"] = "lost"
    return _settle(tx, tx.save(dispute))


def _get_open(tx: Transaction, id: str) -> Body:
    dispute = tx.get("dispute", id)
    if dispute["status"] in RESULTS.values():
        raise invalid_request("This dispute is already closed")
    return dispute


def _settle(tx: Transaction, dispute: Body) -> Body:
    """Give the money of a won dispute back, and tell of a closed one."""
    if dispute["status"] == "won":
        moved = balance.record_transaction(tx, dispute, "adjustment", dispute["amount"], 0, "dispute_reversal")
        dispute["_moved"] = [*dispute["_moved"], moved["id"]]
        tx.save(dispute)
        tx.record_event("charge.dispute.funds_reinstated", dispute)
    if dispute["status"] in RESULTS.values():
        tx.record_event("charge.dispute.closed", dispute)
    return dispute


def view(tx: Transaction, body: Body) -> Body:
    """Return a dispute with the movements of its money."""
    moved = [tx.render(tx.get("balance_transaction", id)) for id in body["_moved"]]
    return {**body, "balance_transactions": moved}
