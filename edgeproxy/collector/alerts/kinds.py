"""The kinds of alerts: one literal table with their severity, readers and the action to take. Pure.

A kind is named by its subject and an event, in snake_case. docs/operations/alerting.md lists all kinds.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from edgeproxy.collector.languages.marks import N_
from edgeproxy.collector.webhooks.event_types import EventType

Severity = Literal["page", "warn", "info"]
SEVERITIES: tuple[Severity, ...] = ("page", "warn", "info")
"""The severities, from waking a person to waiting."""


class AlertKind(StrEnum):
    """The name of a kind of alerts, as in the API, metrics and webhooks."""

    QUOTA_REACHED = "quota_reached"
    SPEND_REACHED = "spend_reached"
    TRIAL_WILL_END = "trial_will_end"
    REQUEST_CAP_EXCEEDED = "request_cap_exceeded"
    DIMENSION_LIMIT_EXCEEDED = "dimension_limit_exceeded"
    USAGE_ANOMALY = "usage_anomaly"
    ESTIMATES_HIGH = "estimates_high"
    CUSTOMER_PAUSED = "customer_paused"
    CUSTOMER_PAUSE_FAILED = "customer_pause_failed"
    KEY_ROTATION_DUE = "key_rotation_due"
    KEY_ROTATION_OVERDUE = "key_rotation_overdue"
    KEY_ENDS_SOON = "key_ends_soon"
    KEY_BUDGET_REACHED = "key_budget_reached"
    SPEND_SPIKE = "spend_spike"
    PAYMENT_FAILED = "payment_failed"
    INVOICE_UNPAID = "invoice_unpaid"
    PRICE_CHANGE = "price_change"
    PRICE_CHANGE_DECIDED = "price_change_decided"
    WEBHOOK_DISABLED = "webhook_disabled"
    INVOICE_ISSUED = "invoice_issued"
    PAYMENT_RECEIVED = "payment_received"
    CREDITS_LOW = "credits_low"
    CREDITS_SPENT = "credits_spent"
    KEY_CREATED = "key_created"
    KEY_ROTATED = "key_rotated"
    KEY_REVOKED = "key_revoked"
    CONTACT_ADDED = "contact_added"
    DELETION_REQUESTED = "deletion_requested"
    BATCHES_LOST = "batches_lost"
    BATCHES_QUARANTINED = "batches_quarantined"
    TOKEN_EDGE_LIMIT_REACHED = "token_edge_limit_reached"
    EVENTS_REJECTED = "events_rejected"
    CUSTOMERS_UNKNOWN = "customers_unknown"
    REQUESTS_DENIED = "requests_denied"
    CERTIFICATE_EXPIRING = "certificate_expiring"
    PRIVACY_REQUEST_DUE = "privacy_request_due"
    ROW_UNREADABLE = "row_unreadable"
    SUBSCRIPTION_PERIOD_FAILED = "subscription_period_failed"
    IMPORTED_SUBSCRIPTION_FAILED = "imported_subscription_failed"
    INVOICE_HELD = "invoice_held"
    INVOICE_REPLACED = "invoice_replaced"
    INVOICE_FAILED = "invoice_failed"
    INVOICE_PAID_TWICE = "invoice_paid_twice"
    INVOICE_DRAFT_MISSING = "invoice_draft_missing"
    CREDIT_NOTE_FAILED = "credit_note_failed"
    PLAN_STOPPED = "plan_stopped"
    DECISION_FAILED = "decision_failed"
    REFUND_FAILED = "refund_failed"
    PAYMENT_DISPUTED = "payment_disputed"
    DISPUTE_CLOSED = "dispute_closed"
    CHARGING_STOPPED = "charging_stopped"
    USAGE_EXPORT_FAILED = "usage_export_failed"
    USAGE_EXPORT_STOPPED = "usage_export_stopped"
    METER_EVENTS_REJECTED = "meter_events_rejected"
    WEBHOOK_EVENT_FAILED = "webhook_event_failed"
    WEBHOOK_MODE_MISMATCH = "webhook_mode_mismatch"
    CATALOG_PRICE_MISSING = "catalog_price_missing"
    RECONCILIATION_MISMATCH = "reconciliation_mismatch"


class AlertPolicy(NamedTuple):
    """The row of a kind."""

    severities: tuple[Severity, ...]
    """Possible severities of an alert of this kind."""
    to_customer: bool
    """True if the customer concerned reads it too. Operators always do."""
    summary: str
    """The condition that raises an alert of this kind."""
    action: str
    """An operator's action."""
    runbook: str
    """The page and section of its documentation."""
    contacts: frozenset[str] = frozenset()
    """The contact roles that get it by mail, instead of the address for alerts.

    Such an alert is a notice of an action. It is not sent to operators, and their lists show it only on request.
    """
    default_contacts: frozenset[str] = frozenset()
    """The contact roles that get it by mail while the customer has chosen no address for alerts."""


# fmt: off
ALERT_POLICIES: Final[Mapping[AlertKind, AlertPolicy]] = {
    AlertKind.QUOTA_REACHED: AlertPolicy(("info", "warn", "page"), True,
        N_("a quota is used up to a threshold"),
        N_("Raise the quota or the tier if the customer is to go on."),
        "docs/limits/quotas.md#how-customers-stand"),
    AlertKind.SPEND_REACHED: AlertPolicy(("info",), True,
        N_("a period has cost an amount that the customer chose"),
        N_("Nothing: the customer asked to be told."),
        "docs/billing/billing.md#spend-alerts"),
    AlertKind.TRIAL_WILL_END: AlertPolicy(("info",), True,
        N_("a trial ends within three days, and the plan goes on"),
        N_("Nothing, or ask a customer without a payment method."),
        "docs/billing/billing.md#trials"),
    AlertKind.REQUEST_CAP_EXCEEDED: AlertPolicy(("warn",), True,
        N_("an answer has cost more than a request may"),
        N_("Raise what an answer may cost, or find out why the upstream reports so much."),
        "docs/limits/quotas.md#caps"),
    AlertKind.DIMENSION_LIMIT_EXCEEDED: AlertPolicy(("warn",), True,
        N_("a dimension has more values than its meter allows"),
        N_("Raise the number of values, or have the service report fewer."),
        "docs/usage/events.md#dimensions"),
    AlertKind.USAGE_ANOMALY: AlertPolicy(("info", "warn", "page"), True,
        N_("usage is out of the ordinary"),
        N_("Ask the customer whether it is meant; revoke a key that is used by somebody else."),
        "docs/usage/anomalies.md#what-is-looked-at"),
    AlertKind.ESTIMATES_HIGH: AlertPolicy(("warn",), False,
        N_("much of a customer's usage is estimated, as answers do not state it"),
        N_("Ask for the usage of streams, or find out which answers state none (edge_usage_missing_total)."),
        "docs/edge/ai.md#what-is-not-stated"),
    AlertKind.CUSTOMER_PAUSED: AlertPolicy(("page",), True,
        N_("a pause because of usage"),
        N_("Find out what sent the requests, then resume the customer."),
        "docs/usage/anomalies.md#pausing-by-itself"),
    AlertKind.CUSTOMER_PAUSE_FAILED: AlertPolicy(("page",), False,
        N_("a customer is to be paused because of its usage, and cannot be"),
        N_("Remove the cause that the alert names, or pause the customer in the file that it is in."),
        "docs/usage/anomalies.md#pausing-by-itself"),
    AlertKind.KEY_ROTATION_DUE: AlertPolicy(("warn",), True,
        N_("a key is due for rotation"),
        N_("Rotate the key, or have the customer do it."),
        "docs/customers/accounts.md#keys-that-are-due"),
    AlertKind.KEY_ROTATION_OVERDUE: AlertPolicy(("warn",), True,
        N_("nobody has rotated a key that is due"),
        N_("Call the customer; the key works on until somebody rotates or revokes it."),
        "docs/customers/accounts.md#keys-that-are-due"),
    AlertKind.KEY_ENDS_SOON: AlertPolicy(("info",), True,
        N_("a key ends soon"),
        N_("Nothing: the customer is told. Ask whether it uses another key."),
        "docs/customers/accounts.md#keys-that-are-due", default_contacts=frozenset({"owner", "developer"})),
    AlertKind.KEY_BUDGET_REACHED: AlertPolicy(("info", "warn"), True,
        N_("the budget of a key is used up to a threshold"),
        N_("Nothing, or raise the budget of the key if it is to go on."),
        "docs/customers/accounts.md#budgets-of-keys"),
    AlertKind.SPEND_SPIKE: AlertPolicy(("page",), True,
        N_("spending is many times what is usual"),
        N_("Ask the customer whether it is meant; pause it if it cannot be asked, and revoke a key that leaked."),
        "docs/usage/anomalies.md#the-breaker-by-money"),
    AlertKind.PAYMENT_FAILED: AlertPolicy(("info", "warn"), True,
        N_("the payment of an invoice is declined"),
        N_("Nothing, or ask the customer: it is tried again by the schedule, and with another payment method at once."),
        "docs/billing/runbook.md#a-customer-has-not-paid", default_contacts=frozenset({"owner", "billing"})),
    AlertKind.INVOICE_UNPAID: AlertPolicy(("warn",), True,
        N_("a pause because an invoice is not paid"),
        N_("Nothing, or ask the customer: the payment releases it."),
        "docs/billing/runbook.md#a-customer-has-not-paid", default_contacts=frozenset({"owner", "billing"})),
    AlertKind.PRICE_CHANGE: AlertPolicy(("info",), True,
        N_("the price of a plan is to change, or is not after all"),
        N_("Nothing: the customer is told in time."),
        "docs/billing/price-changes.md#what-customers-are-told"),
    AlertKind.PRICE_CHANGE_DECIDED: AlertPolicy(("info",), False,
        N_("a change of prices is scheduled, withdrawn or done"),
        N_("Nothing, or withdraw it while that is possible."),
        "docs/billing/price-changes.md"),
    AlertKind.WEBHOOK_DISABLED: AlertPolicy(("warn",), True,
        N_("a webhook takes nothing any more"),
        N_("Nothing, or tell the customer: it enables the endpoint again."),
        "docs/usage/webhooks.md#endpoints-that-do-not-answer"),
    AlertKind.INVOICE_ISSUED: AlertPolicy(("info",), True,
        N_("an invoice is final"),
        N_("Nothing: the customer is told."),
        "docs/operations/alerting.md#notices", frozenset({"owner", "billing"})),
    AlertKind.PAYMENT_RECEIVED: AlertPolicy(("info",), True,
        N_("an invoice or credits are paid"),
        N_("Nothing: the customer is told."),
        "docs/operations/alerting.md#notices", frozenset({"owner", "billing"})),
    AlertKind.CREDITS_LOW: AlertPolicy(("info",), True,
        N_("a small part of the last credits is left"),
        N_("Nothing: the customer is told."),
        "docs/billing/credits.md#mails", frozenset({"owner", "billing"})),
    AlertKind.CREDITS_SPENT: AlertPolicy(("warn",), True,
        N_("the credits are used up"),
        N_("Nothing: the customer is told."),
        "docs/billing/credits.md#mails", frozenset({"owner", "billing", "developer"})),
    AlertKind.KEY_CREATED: AlertPolicy(("info",), True,
        N_("a key was created"),
        N_("Nothing: the customer's owners are told."),
        "docs/operations/alerting.md#notices", frozenset({"owner"})),
    AlertKind.KEY_ROTATED: AlertPolicy(("info",), True,
        N_("a key was rotated"),
        N_("Nothing: the customer's owners are told."),
        "docs/operations/alerting.md#notices", frozenset({"owner"})),
    AlertKind.KEY_REVOKED: AlertPolicy(("info",), True,
        N_("a key was revoked"),
        N_("Nothing: the customer's owners are told."),
        "docs/operations/alerting.md#notices", frozenset({"owner"})),
    AlertKind.CONTACT_ADDED: AlertPolicy(("info",), True,
        N_("a contact of a customer was added, and by none of its owners"),
        N_("Nothing: the customer's owners are told."),
        "docs/operations/alerting.md#notices", frozenset({"owner"})),
    AlertKind.DELETION_REQUESTED: AlertPolicy(("info",), True,
        N_("the deletion of a customer has begun"),
        N_("Nothing: the customer's owners are told. Restore the customer if they ask for it in time."),
        "docs/operations/alerting.md#notices", frozenset({"owner"})),
    AlertKind.BATCHES_LOST: AlertPolicy(("page",), False,
        N_("edges report batches that are gone"),
        N_("Compare the edge's own totals with the ledger, and correct what is to be billed."),
        "docs/operations/alerts.md#collectorgap"),
    AlertKind.BATCHES_QUARANTINED: AlertPolicy(("warn",), False,
        N_("batches cannot be read"),
        N_("Upgrade the collector, then count them from quarantine."),
        "docs/operations/collector.md#quarantine"),
    AlertKind.TOKEN_EDGE_LIMIT_REACHED: AlertPolicy(("warn",), False,
        N_("a token has as many edges as it may, and another one ships with it"),
        N_("Retire edges that are gone, or allow more edges of one token."),
        "docs/operations/collector.md#edges-that-are-gone-for-good"),
    AlertKind.EVENTS_REJECTED: AlertPolicy(("warn",), False,
        N_("reported events are rejected"),
        N_("Correct and replay the dead letters, or discard them."),
        "docs/usage/events.md#dead-letters"),
    AlertKind.CUSTOMERS_UNKNOWN: AlertPolicy(("warn",), False,
        N_("usage is counted for customers that nobody knows"),
        N_("Create the customers, or take the usage back and report it under the right names."),
        "docs/usage/events.md#corrections"),
    AlertKind.REQUESTS_DENIED: AlertPolicy(("warn",), False,
        N_("many requests are denied within a minute"),
        N_("Look at who is denied most: an edge after a change of tokens, or an attacker."),
        "docs/operations/alerts.md#collectordenied"),
    AlertKind.CERTIFICATE_EXPIRING: AlertPolicy(("info", "warn", "page"), False,
        N_("the collector's certificate expires soon"),
        N_("Put the new files in the place of the old ones."),
        "docs/operations/alerts.md#collectorcertificateexpires"),
    AlertKind.PRIVACY_REQUEST_DUE: AlertPolicy(("warn", "page"), False,
        N_("a request of a person is due in five days, or was due"),
        N_("Do what is asked and answer, or refuse it with a reason; then record the step."),
        "docs/privacy/sop.md#what-is-asked-and-how-it-is-done"),
    AlertKind.ROW_UNREADABLE: AlertPolicy(("page",), False,
        N_("a row of the database cannot be read, and is left out"),
        N_("Repair the row from a backup, or take it out; find out who has changed it."),
        "docs/operations/collector.md#rows-that-cannot-be-read"),
    AlertKind.SUBSCRIPTION_PERIOD_FAILED: AlertPolicy(("page",), False,
        N_("the period of a subscription cannot end"),
        N_("Remove the cause that the alert names; it is tried again."),
        "docs/billing/billing.md#invoices"),
    AlertKind.IMPORTED_SUBSCRIPTION_FAILED: AlertPolicy(("page",), False,
        N_("a subscription of the imported Stripe account does not begin here"),
        N_("Remove the cause that the alert names; import again what goes on at Stripe."),
        "docs/billing/import.md#when-the-period-ends"),
    AlertKind.INVOICE_HELD: AlertPolicy(("page",), False,
        N_("an invoice is held"),
        N_("Void the invoice, or accept it with a reason."),
        "docs/billing/billing.md#invoices"),
    AlertKind.INVOICE_REPLACED: AlertPolicy(("warn",), False,
        N_("a draft was deleted, voided or finalized at Stripe by hand before it was closed"),
        N_("Nothing: a new one is made. If the customer is not to pay, hold the invoice here and void it."),
        "docs/billing/billing.md#invoices"),
    AlertKind.INVOICE_FAILED: AlertPolicy(("page",), False,
        N_("an invoice cannot be brought to Stripe, for an unexpected reason"),
        N_("Report the fault from the log; the invoice is tried again."),
        "docs/billing/billing.md#invoices"),
    AlertKind.INVOICE_PAID_TWICE: AlertPolicy(("page",), False,
        N_("an invoice was paid through Stripe before a transfer could settle it"),
        N_("Give one of the two payments back."),
        "docs/billing/operators-day.md#paid-by-a-transfer"),
    AlertKind.INVOICE_DRAFT_MISSING: AlertPolicy(("page",), False,
        N_("Stripe has no draft of an invoice 45 minutes after its period"),
        N_("Look at the subscription at Stripe."),
        "docs/operations/alerts.md#billingdraftnotheld"),
    AlertKind.CREDIT_NOTE_FAILED: AlertPolicy(("page",), False,
        N_("a credit note was not made at Stripe"),
        N_("Read the reason. A refused credit note is not tried again; any other one is."),
        "docs/billing/billing.md#invoices"),
    AlertKind.PLAN_STOPPED: AlertPolicy(("warn",), False,
        N_("a plan has ended, or its fees rest, as its invoices stay unpaid"),
        N_("Nothing, or ask the customer: a payment of all that is open starts the fees again."),
        "docs/billing/runbook.md#a-customer-has-not-paid"),
    AlertKind.DECISION_FAILED: AlertPolicy(("page",), False,
        N_("an invoice did not become what a person has decided"),
        N_("Look at the invoice at Stripe, and decide again."),
        "docs/billing/operators-day.md#what-fails"),
    AlertKind.REFUND_FAILED: AlertPolicy(("page",), False,
        N_("the money of a refund did not reach the customer"),
        N_("Send the money in another way, or credit it; the reason is at Stripe."),
        "docs/billing/operators-day.md#what-fails"),
    AlertKind.PAYMENT_DISPUTED: AlertPolicy(("warn", "page"), False,
        N_("a bank has taken a payment back, or asks about it"),
        N_("Answer with evidence in Stripe's dashboard before the day that the alert names, or accept the loss."),
        "docs/billing/runbook.md#a-disputed-payment"),
    AlertKind.DISPUTE_CLOSED: AlertPolicy(("info", "warn"), False,
        N_("a bank has decided a dispute"),
        N_("Nothing. If it is lost, decide whether the customer is served any further."),
        "docs/billing/runbook.md#a-disputed-payment"),
    AlertKind.CHARGING_STOPPED: AlertPolicy(("page",), False,
        N_("charging is stopped"),
        N_("Remove the cause, then resume charging."),
        "docs/billing/runbook.md#stop-charging"),
    AlertKind.USAGE_EXPORT_FAILED: AlertPolicy(("page",), False,
        N_("Stripe does not take reported usage"),
        N_("Remove the cause that the alert names; the next revision has the usage."),
        "docs/billing/runbook.md#drift"),
    AlertKind.USAGE_EXPORT_STOPPED: AlertPolicy(("page",), False,
        N_("no usage is reported to Stripe any more"),
        N_("Remove the cause that the alert names, then restart the collector."),
        "docs/operations/alerts.md#billingexportlags"),
    AlertKind.METER_EVENTS_REJECTED: AlertPolicy(("page",), False,
        N_("Stripe could not count usage that it had taken"),
        N_("Remove the cause that the alert names; the next revision has the usage."),
        "docs/billing/runbook.md#drift"),
    AlertKind.WEBHOOK_EVENT_FAILED: AlertPolicy(("page",), False,
        N_("an event from Stripe could not be applied"),
        N_("Remove the cause that the alert names, then replay the event."),
        "docs/billing/runbook.md#dead-letters"),
    AlertKind.WEBHOOK_MODE_MISMATCH: AlertPolicy(("warn",), False,
        N_("Stripe sends events of the mode that is not configured"),
        N_("Point the webhook of that mode at another collector."),
        "docs/billing/stripe.md#webhooks"),
    AlertKind.CATALOG_PRICE_MISSING: AlertPolicy(("page",), False,
        N_("Stripe lacks a price of a plan"),
        N_("Have the missing price made at Stripe: run edgeproxy billing sync."),
        "docs/billing/stripe.md#usage-by-meters"),
    AlertKind.RECONCILIATION_MISMATCH: AlertPolicy(("warn", "page"), False,
        N_("two books that should agree do not"),
        N_("Stop charging if it is more than usage under way, then compare the customers that the alert names."),
        "docs/billing/runbook.md#drift"),
}
# fmt: on

EVENT_TYPES: Final[Mapping[AlertKind, EventType]] = {
    AlertKind.QUOTA_REACHED: EventType.USAGE_THRESHOLD_REACHED,
    AlertKind.SPEND_REACHED: EventType.SPEND_THRESHOLD_REACHED,
    AlertKind.REQUEST_CAP_EXCEEDED: EventType.REQUEST_CAP_EXCEEDED,
    AlertKind.DIMENSION_LIMIT_EXCEEDED: EventType.USAGE_DIMENSION_LIMIT_EXCEEDED,
    AlertKind.USAGE_ANOMALY: EventType.USAGE_ANOMALY_DETECTED,
    AlertKind.CUSTOMER_PAUSED: EventType.CUSTOMER_PAUSED,
    AlertKind.TRIAL_WILL_END: EventType.TRIAL_WILL_END,
    AlertKind.KEY_ROTATION_DUE: EventType.KEY_ROTATION_DUE,
    AlertKind.KEY_ROTATION_OVERDUE: EventType.KEY_ROTATION_OVERDUE,
    AlertKind.KEY_ENDS_SOON: EventType.KEY_ENDS_SOON,
    AlertKind.KEY_BUDGET_REACHED: EventType.KEY_BUDGET_REACHED,
    AlertKind.SPEND_SPIKE: EventType.SPEND_SPIKE_DETECTED,
    AlertKind.PAYMENT_FAILED: EventType.PAYMENT_FAILED,
    AlertKind.PRICE_CHANGE: EventType.PLAN_PRICE_CHANGE,
    AlertKind.INVOICE_UNPAID: EventType.INVOICE_OVERDUE,
    AlertKind.WEBHOOK_DISABLED: EventType.WEBHOOK_DISABLED,
}
"""The type of webhook message for each kind that customers read."""


NOTICES: Final = frozenset(kind for kind, policy in ALERT_POLICIES.items() if policy.contacts)
"""Kinds that notify contacts of an action."""


def find_policy(kind: str) -> AlertPolicy | None:
    """Return the row of a stored alert's kind, or None if another version has raised it."""
    try:
        return ALERT_POLICIES[AlertKind(kind)]
    except ValueError:
        return None
