"""The types of events for customers' webhooks: one literal table. Pure.

A type is named by its subject and an event, for example `invoice.paid`. docs/usage/webhooks.md lists all types.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class EventType(StrEnum):
    """The type of an event."""

    USAGE_THRESHOLD_REACHED = "usage.threshold_reached"
    USAGE_ANOMALY_DETECTED = "usage.anomaly_detected"
    USAGE_DIMENSION_LIMIT_EXCEEDED = "usage.dimension_limit_exceeded"
    LIMIT_EXCEEDED = "limit.exceeded"
    REQUEST_CAP_EXCEEDED = "request.cap_exceeded"
    SPEND_THRESHOLD_REACHED = "spend.threshold_reached"
    SPEND_SPIKE_DETECTED = "spend.spike_detected"
    CUSTOMER_PAUSED = "customer.paused"
    INVOICE_CREATED = "invoice.created"
    INVOICE_PAID = "invoice.paid"
    INVOICE_VOIDED = "invoice.voided"
    INVOICE_UNCOLLECTIBLE = "invoice.uncollectible"
    INVOICE_OVERDUE = "invoice.overdue"
    PAYMENT_FAILED = "payment.failed"
    CREDIT_NOTE_CREATED = "credit_note.created"
    CREDIT_NOTE_VOIDED = "credit_note.voided"
    REFUND_PAID = "refund.paid"
    REFUND_FAILED = "refund.failed"
    CREDITS_PURCHASED = "credits.purchased"
    CREDITS_GRANTED = "credits.granted"
    CREDITS_WITHDRAWN = "credits.withdrawn"
    CREDITS_RETURNED = "credits.returned"
    CREDITS_EXPIRED = "credits.expired"
    CREDITS_RESTORED = "credits.restored"
    DISPUTE_OPENED = "dispute.opened"
    DISPUTE_CLOSED = "dispute.closed"
    PLAN_PRICE_CHANGE = "plan.price_change"
    TRIAL_WILL_END = "subscription.trial_will_end"
    KEY_CREATED = "key.created"
    KEY_UPDATED = "key.updated"
    KEY_DELIVERED = "key.delivered"
    KEY_ROTATED = "key.rotated"
    KEY_ENDS_SOON = "key.ends_soon"
    KEY_REVOKED = "key.revoked"
    KEY_RESTORED = "key.restored"
    KEY_ROTATION_DUE = "key.rotation_due"
    KEY_ROTATION_OVERDUE = "key.rotation_overdue"
    KEY_BUDGET_REACHED = "key.budget_reached"
    WEBHOOK_DISABLED = "webhook.disabled"
    WEBHOOK_TEST = "webhook.test"


SUMMARIES: Final[Mapping[EventType, str]] = {
    EventType.USAGE_THRESHOLD_REACHED: "a quota is used up to a percentage",
    EventType.USAGE_ANOMALY_DETECTED: "usage is out of the ordinary",
    EventType.USAGE_DIMENSION_LIMIT_EXCEEDED: "a dimension has more values than its meter allows",
    EventType.LIMIT_EXCEEDED: "a limit has refused requests, once an hour of each limit",
    EventType.REQUEST_CAP_EXCEEDED: "an answer has cost more than a request may",
    EventType.SPEND_THRESHOLD_REACHED: "a period has cost an amount that the customer chose",
    EventType.SPEND_SPIKE_DETECTED: "the customer spends many times what is usual",
    EventType.CUSTOMER_PAUSED: "the customer is paused because of its usage",
    EventType.INVOICE_CREATED: "an invoice is final, and can be paid",
    EventType.INVOICE_PAID: "an invoice is paid",
    EventType.INVOICE_VOIDED: "an invoice is void",
    EventType.INVOICE_UNCOLLECTIBLE: "an invoice is written off",
    EventType.INVOICE_OVERDUE: "the customer is paused because an invoice is not paid",
    EventType.PAYMENT_FAILED: "the payment of an invoice is declined",
    EventType.CREDIT_NOTE_CREATED: "a part of an invoice is taken back, or paid back",
    EventType.CREDIT_NOTE_VOIDED: "a credit note is void",
    EventType.REFUND_PAID: "money of an invoice or of a purchase of credits is paid back",
    EventType.REFUND_FAILED: "money that was to be paid back has not arrived",
    EventType.CREDITS_PURCHASED: "credits are bought and paid",
    EventType.CREDITS_GRANTED: "credits are given",
    EventType.CREDITS_WITHDRAWN: "credits that were given are withdrawn",
    EventType.CREDITS_RETURNED: "credits for usage are given back",
    EventType.CREDITS_EXPIRED: "credits expire",
    EventType.CREDITS_RESTORED: "credits that expired pay for usage of before",
    EventType.DISPUTE_OPENED: "a bank takes a payment back, or asks about it",
    EventType.DISPUTE_CLOSED: "a dispute of a payment is won or lost, or ends",
    EventType.PLAN_PRICE_CHANGE: "the price of the customer's plan is to change, or is not after all",
    EventType.TRIAL_WILL_END: "a trial ends within three days, and the plan goes on",
    EventType.KEY_CREATED: "a key is created",
    EventType.KEY_UPDATED: "the name, scopes, limits, budget or end of a key have changed",
    EventType.KEY_DELIVERED: "a key is to replace one that is due; only endpoints that name this type get it",
    EventType.KEY_ENDS_SOON: "a key ends soon",
    EventType.KEY_ROTATED: "a key has a replacement, and ends after the overlap",
    EventType.KEY_REVOKED: "a key is revoked",
    EventType.KEY_RESTORED: "the revocation of a key is taken back",
    EventType.KEY_ROTATION_DUE: "a key is due for rotation",
    EventType.KEY_ROTATION_OVERDUE: "nobody has rotated a key that is due",
    EventType.KEY_BUDGET_REACHED: "the budget of a key is used up to a percentage",
    EventType.WEBHOOK_DISABLED: "another endpoint of the customer is disabled, as it does not answer",
    EventType.WEBHOOK_TEST: "somebody asked for a test message; each endpoint gets it, whatever its types",
}
"""The condition of each type."""
