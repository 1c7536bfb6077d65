"""Texts of alerts in the reader's language: what happened, its facts, and where to act. Pure.

The title of an alert is written in English when it is raised. A sentence here expresses the title from the alert's
details, in any language and with the reader's number formats. If no sentence fits, for example for an alert of another
version, the title is shown.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Final, NamedTuple

import orjson

from edgeproxy.base.json_values import JsonObject, JsonValue
from edgeproxy.collector.alerts.kinds import AlertKind, find_policy
from edgeproxy.collector.languages.catalogs import load_catalog
from edgeproxy.collector.languages.invisible import format_line
from edgeproxy.collector.languages.marks import N_
from edgeproxy.collector.languages.meter_display import format_label
from edgeproxy.collector.languages.reader import Reader
from edgeproxy.config.collector.currency_units import DECIMALS, MILLICREDITS, USD

HOLE = re.compile(r"%\((\w+)\)s")
"""A placeholder in a sentence for a detail."""

# fmt: off
SENTENCES: Final[Mapping[AlertKind, tuple[str, ...]]] = {
    AlertKind.QUOTA_REACHED: (
        N_("%(customer)s has used %(threshold)s of the %(meter)s that are included in this day"),
        N_("%(customer)s has used %(threshold)s of the %(meter)s that are included in this month"),
        N_("%(customer)s has used %(threshold)s of what is included of %(meter)s"),
        N_("%(customer)s has used %(threshold)s of what is included of %(quota)s"),
    ),
    AlertKind.SPEND_REACHED: (
        N_("%(customer)s has spent %(spent_cents)s since %(period_start)s, and %(amount_cents)s is reached"),
    ),
    AlertKind.TRIAL_WILL_END: (
        N_("The trial of %(customer)s ends on %(trial_ends_at)s: from then on the plan is paid"),
    ),
    AlertKind.REQUEST_CAP_EXCEEDED: (
        N_("Answers to %(customer)s on %(route)s have cost %(above)s credits more than a request may"),
        N_("Answers on %(route)s have cost %(above)s credits more than a request may"),
        N_("Answers to %(customers)s customers of the edge %(edge)s have cost more than a request may"),
    ),
    AlertKind.DIMENSION_LIMIT_EXCEEDED: (
        N_("%(customer)s has more than %(values)s values of %(dimension)s in %(month)s: others count as ~other"),
    ),
    AlertKind.USAGE_ANOMALY: (
        N_("%(customer)s has unusually many %(meter)s: %(value)s instead of %(expected)s"),
    ),
    AlertKind.CUSTOMER_PAUSED: (
        N_("%(customer)s has unusually many %(meter)s (%(value)s instead of %(expected)s), and is paused"),
        N_("%(customer)s has spent %(spent_cents)s in an hour, at %(times)s times the usual usage, and is paused"),
        N_("%(customer)s has used units worth %(spent_cents)s in an hour (%(usual_cents)s is usual), and is paused"),
        N_("%(customer)s has spent %(spent_cents)s in an hour, where little is usual, and is paused"),
    ),
    AlertKind.KEY_ROTATION_DUE: (
        N_("The key %(start)s… of %(customer)s is due for rotation by %(rotate_by)s"),
    ),
    AlertKind.KEY_ROTATION_OVERDUE: (
        N_("The key %(start)s… of %(customer)s was due for rotation by %(rotate_by)s"),
    ),
    AlertKind.KEY_ENDS_SOON: (
        N_("The key %(start)s… of %(customer)s was replaced by the key %(new_start)s…, and ends on %(ends_on)s"),
        N_("The key %(start)s… of %(customer)s ends on %(ends_on)s"),
    ),
    AlertKind.KEY_BUDGET_REACHED: (
        N_("The key %(start)s… of %(customer)s has used %(threshold)s of its budget"),
    ),
    AlertKind.SPEND_SPIKE: (
        N_("%(customer)s has spent %(spent_cents)s in an hour, at %(times)s times the usual usage"),
        N_("%(customer)s has used units worth %(spent_cents)s in an hour, and %(usual_cents)s is usual"),
        N_("%(customer)s has spent %(spent_cents)s in an hour, where little is usual"),
    ),
    AlertKind.PAYMENT_FAILED: (
        N_("A payment of %(amount)s of %(customer)s was declined, and is tried again on %(next_retry)s"),
        N_("A payment of %(amount)s of %(customer)s was declined, and is tried again on %(next_payment_attempt)s"),
        N_("A payment of %(amount)s of %(customer)s was declined, and is not tried again"),
    ),
    AlertKind.INVOICE_UNPAID: (
        N_("%(customer)s is paused until an invoice is paid"),
    ),
    AlertKind.PRICE_CHANGE: (
        N_("The price of the plan %(plan)s changes on %(at)s"),
        N_("The change of your plan's price on %(at)s does not take place"),
    ),
    AlertKind.WEBHOOK_DISABLED: (
        N_("The webhook of %(customer)s to %(host)s is disabled"),
    ),
    AlertKind.INVOICE_ISSUED: (
        N_("The invoice %(number)s of %(customer)s for %(amount)s is due on %(due_at)s"),
        N_("The invoice %(number)s of %(customer)s for %(amount)s"),
    ),
    AlertKind.PAYMENT_RECEIVED: (
        N_("%(customer)s has paid %(amount)s for the invoice %(number)s"),
        N_("%(customer)s has paid %(amount)s for %(credits)s credits"),
    ),
    AlertKind.CREDITS_LOW: (
        N_("%(customer)s has only %(left)s of its credits left"),
    ),
    AlertKind.CREDITS_SPENT: (
        N_("The credits of %(customer)s are used up"),
    ),
    AlertKind.KEY_CREATED: (
        N_("A key of %(customer)s was created: %(start)s…"),
        N_("A key of %(customer)s was created"),
    ),
    AlertKind.KEY_ROTATED: (
        N_("A key of %(customer)s was rotated: %(start)s…"),
        N_("A key of %(customer)s was rotated"),
    ),
    AlertKind.KEY_REVOKED: (
        N_("A key of %(customer)s was revoked: %(start)s…"),
        N_("A key of %(customer)s was revoked"),
    ),
    AlertKind.CONTACT_ADDED: (
        N_("Somebody was added to the team of %(customer)s"),
    ),
    AlertKind.DELETION_REQUESTED: (
        N_("The deletion of %(customer)s has begun"),
    ),
    AlertKind.BATCHES_LOST: (
        N_("Edges of the token %(token)s have lost batches: their counts are missing"),
    ),
    AlertKind.BATCHES_QUARANTINED: (
        N_("Batches of edges of the token %(token)s cannot be read: they are in quarantine and count nothing so far"),
    ),
    AlertKind.TOKEN_EDGE_LIMIT_REACHED: (
        N_("The token %(token)s has as many edges as it may: batches of further edges wait there"),
    ),
    AlertKind.EVENTS_REJECTED: (
        N_("Events of the token %(token)s were rejected: they count nothing so far"),
    ),
    AlertKind.REQUESTS_DENIED: (
        N_("%(denials)s requests to the API were denied in a minute"),
    ),
    AlertKind.CERTIFICATE_EXPIRING: (
        N_("The certificate %(file)s of the collector is valid until %(expires)s"),
    ),
    AlertKind.ROW_UNREADABLE: (
        N_("A row of the table %(table)s cannot be read and is left out: %(key)s"),
    ),
    AlertKind.ESTIMATES_HIGH: (
        N_("Much of the usage of %(customer)s is estimated: %(estimated)s of %(units)s (%(meter)s)"),
    ),
    AlertKind.CUSTOMER_PAUSE_FAILED: (
        N_("%(of)s uses far more than usual and cannot be paused here: %(why)s"),
    ),
    AlertKind.PRICE_CHANGE_DECIDED: (
        N_("Price change of %(at)s: %(state)s"),
    ),
    AlertKind.CUSTOMERS_UNKNOWN: (
        N_("Usage is counted for customers that nobody knows: %(names)s"),
    ),
    AlertKind.PRIVACY_REQUEST_DUE: (
        N_("The request %(request)s of a person is to be answered by %(due_at)s"),
    ),
    AlertKind.SUBSCRIPTION_PERIOD_FAILED: (
        N_("The period of a subscription cannot end: %(why)s"),
    ),
    AlertKind.IMPORTED_SUBSCRIPTION_FAILED: (
        N_("An imported subscription does not begin here: %(why)s"),
    ),
    AlertKind.INVOICE_HELD: (
        N_("The invoice of %(of)s for the period from %(period)s is held: %(why)s"),
    ),
    AlertKind.INVOICE_REPLACED: (
        N_("The draft of %(of)s for the period from %(period)s was changed at Stripe by hand: a new one is made"),
    ),
    AlertKind.INVOICE_FAILED: (
        N_("The invoice of %(of)s for the period from %(period)s fails, and is tried again: %(why)s"),
    ),
    AlertKind.INVOICE_PAID_TWICE: (
        N_("The invoice of %(of)s for the period from %(period)s was paid at Stripe, and by a transfer too"),
    ),
    AlertKind.INVOICE_DRAFT_MISSING: (
        N_("Stripe has no draft of the invoice of %(of)s for the period from %(period)s"),
    ),
    AlertKind.CREDIT_NOTE_FAILED: (
        N_("A credit note cannot be made at Stripe: %(why)s"),
    ),
    AlertKind.PLAN_STOPPED: (
        N_("The plan of %(of)s is not paid: %(after)s"),
    ),
    AlertKind.DECISION_FAILED: (
        N_("The decision on the invoice of %(of)s for the period from %(period)s failed: %(why)s"),
    ),
    AlertKind.REFUND_FAILED: (
        N_("A refund of %(amount)s to %(of)s failed"),
    ),
    AlertKind.PAYMENT_DISPUTED: (
        N_("A payment of %(amount)s of %(of)s is disputed: answer at Stripe by %(answer_by)s"),
        N_("A payment of %(amount)s of %(of)s is disputed"),
    ),
    AlertKind.DISPUTE_CLOSED: (
        N_("The dispute with %(of)s about %(amount)s: %(state)s"),
    ),
    AlertKind.CHARGING_STOPPED: (
        N_("Nobody is charged any more: %(why)s"),
    ),
    AlertKind.USAGE_EXPORT_FAILED: (
        N_("Stripe does not take reported usage of %(customer)s: %(why)s"),
    ),
    AlertKind.USAGE_EXPORT_STOPPED: (
        N_("No usage is reported to Stripe any more: %(why)s"),
    ),
    AlertKind.METER_EVENTS_REJECTED: (
        N_("Stripe could not count usage that it had taken: %(why)s"),
    ),
    AlertKind.WEBHOOK_EVENT_FAILED: (
        N_("The event %(event)s from Stripe could not be applied"),
        N_("Stripe does not return %(unread)s: %(why)s"),
        N_("Stripe does not return an invoice of %(customer)s: its payment is unknown"),
    ),
    AlertKind.WEBHOOK_MODE_MISMATCH: (
        N_("Stripe sends events of the mode %(mode)s, which is not configured"),
    ),
    AlertKind.CATALOG_PRICE_MISSING: (
        N_("Stripe lacks the price %(price)s of a plan"),
    ),
    AlertKind.RECONCILIATION_MISMATCH: (
        N_("Two books are %(part)s apart: %(books)s"),
    ),
}
# fmt: on
"""Sentences for alerts of each kind. The first sentence with all of its details is used."""

# fmt: off
OWN_SENTENCES: Final[Mapping[AlertKind, tuple[str, ...]]] = {
    AlertKind.QUOTA_REACHED: (
        N_("You have used %(threshold)s of the %(meter)s that are included in this day"),
        N_("You have used %(threshold)s of the %(meter)s that are included in this month"),
        N_("You have used %(threshold)s of what is included of %(meter)s"),
        N_("You have used %(threshold)s of what is included of %(quota)s"),
    ),
    AlertKind.SPEND_REACHED: (
        N_("You have spent %(spent_cents)s since %(period_start)s, and have reached your alert of %(amount_cents)s"),
    ),
    AlertKind.TRIAL_WILL_END: (
        N_("Your trial ends on %(trial_ends_at)s: from then on the plan is paid"),
    ),
    AlertKind.REQUEST_CAP_EXCEEDED: (
        N_("Answers to you on %(route)s have cost %(above)s credits more than a request may"),
    ),
    AlertKind.DIMENSION_LIMIT_EXCEEDED: (
        N_("You have more than %(values)s values of %(dimension)s in %(month)s: others count as ~other"),
    ),
    AlertKind.USAGE_ANOMALY: (
        N_("You have unusually many %(meter)s: %(value)s instead of %(expected)s"),
    ),
    AlertKind.CUSTOMER_PAUSED: (
        N_("You have unusually many %(meter)s (%(value)s instead of %(expected)s), and are paused"),
        N_("You have spent %(spent_cents)s in an hour, at %(times)s times the usual usage, and are paused"),
        N_("You have used units worth %(spent_cents)s in an hour (%(usual_cents)s is usual), and are paused"),
        N_("You have spent %(spent_cents)s in an hour, where little is usual, and are paused"),
    ),
    AlertKind.KEY_ROTATION_DUE: (
        N_("Your key %(start)s… is due for rotation by %(rotate_by)s"),
    ),
    AlertKind.KEY_ROTATION_OVERDUE: (
        N_("Your key %(start)s… was due for rotation by %(rotate_by)s"),
    ),
    AlertKind.KEY_ENDS_SOON: (
        N_("Your key %(start)s… was replaced by the key %(new_start)s…, and ends on %(ends_on)s"),
        N_("Your key %(start)s… ends on %(ends_on)s"),
    ),
    AlertKind.KEY_BUDGET_REACHED: (
        N_("Your key %(start)s… has used %(threshold)s of its budget"),
    ),
    AlertKind.SPEND_SPIKE: (
        N_("You have spent %(spent_cents)s in an hour, at %(times)s times the usual usage"),
        N_("You have used units worth %(spent_cents)s in an hour, and %(usual_cents)s is usual"),
        N_("You have spent %(spent_cents)s in an hour, where little is usual"),
    ),
    AlertKind.PAYMENT_FAILED: (
        N_("A payment of %(amount)s was declined, and is tried again on %(next_retry)s"),
        N_("A payment of %(amount)s was declined, and is tried again on %(next_payment_attempt)s"),
        N_("A payment of %(amount)s was declined, and is not tried again"),
    ),
    AlertKind.INVOICE_UNPAID: (
        N_("You are paused until an invoice is paid"),
    ),
    AlertKind.PRICE_CHANGE: SENTENCES[AlertKind.PRICE_CHANGE],
    AlertKind.WEBHOOK_DISABLED: (
        N_("Your webhook to %(host)s is disabled"),
    ),
    AlertKind.INVOICE_ISSUED: (
        N_("Your invoice %(number)s for %(amount)s is due on %(due_at)s"),
        N_("Your invoice %(number)s for %(amount)s"),
    ),
    AlertKind.PAYMENT_RECEIVED: (
        N_("We have received your payment of %(amount)s for the invoice %(number)s"),
        N_("We have received your payment of %(amount)s for %(credits)s credits"),
    ),
    AlertKind.CREDITS_LOW: (
        N_("Your credits are running low: %(left)s left"),
    ),
    AlertKind.CREDITS_SPENT: (
        N_("Your credits are used up"),
    ),
    AlertKind.KEY_CREATED: (
        N_("Your key %(start)s… was created"),
        N_("A key of yours was created"),
    ),
    AlertKind.KEY_ROTATED: (
        N_("Your key %(start)s… was rotated"),
        N_("A key of yours was rotated"),
    ),
    AlertKind.KEY_REVOKED: (
        N_("Your key %(start)s… was revoked"),
        N_("A key of yours was revoked"),
    ),
    AlertKind.CONTACT_ADDED: (
        N_("Somebody was added to your team"),
    ),
    AlertKind.DELETION_REQUESTED: (
        N_("The deletion of your account has begun"),
    ),
}
# fmt: on
"""Sentences for the customer concerned."""

# fmt: off
OWN_ACTIONS: Final[Mapping[AlertKind, tuple[str, ...]]] = {
    AlertKind.PAYMENT_RECEIVED: (N_("Thank you. There is nothing for you to do."),),
    AlertKind.PAYMENT_FAILED: (
        N_("We try again by ourselves. You can also pay now, or change your payment method, so that your access is not "
           "interrupted."),
        N_("Please pay the invoice, or change your payment method, so that your access is not interrupted."),
    ),
    AlertKind.INVOICE_UNPAID: (
        N_("Your requests are refused until the invoice is paid. Then they work again at once."),
    ),
    AlertKind.INVOICE_ISSUED: (
        N_("If you have stored a payment method, we charge it. Otherwise please pay by the day above."),
        N_("There is nothing for you to do."),
    ),
    AlertKind.CREDITS_LOW: (N_("Buy more credits in time. Once they are used up, your requests are refused."),),
    AlertKind.CREDITS_SPENT: (
        N_("Your requests are refused from now on. Buy more credits, and they work again at once."),
    ),
    AlertKind.KEY_CREATED: (N_("If nobody on your team did this, revoke the key at once."),),
    AlertKind.KEY_ROTATED: (
        N_("Use the new key in place of the old one by %(works_until)s. If nobody on your team did this, revoke both."),
        N_("If nobody on your team did this, revoke the key at once."),
    ),
    AlertKind.KEY_REVOKED: (N_("Requests with this key are refused. Create a new key if you still need one."),),
    AlertKind.KEY_ENDS_SOON: (
        N_("Use the key %(new_start)s… in its place before that day. Afterwards requests with the old key are "
           "refused."),
        N_("Create a new key and use it in its place before that day. Afterwards requests with this key are refused."),
    ),
    AlertKind.CONTACT_ADDED: (N_("If you do not know this person, remove them from your team."),),
    AlertKind.DELETION_REQUESTED: (
        N_("Your keys no longer work. On %(erased_on)s all data is erased for good. If this is a mistake, ask us "
           "before that day to undo it."),
        N_("Your keys no longer work. If this is a mistake, ask us to undo it."),
    ),
}
# fmt: on
"""The next step of the customer concerned. As with sentences, the first one with all of its details is used.

The first of two for a failed payment and for an issued invoice holds while CONDITIONS names a detail that is there.
"""
TOP_UP_ACTIONS: Final = (
    N_("We try again by ourselves. You can also change your payment method, or buy credits yourself."),
    N_("Automatic top-up is off now. Change your payment method and turn it on again, or buy credits yourself."),
)
"""The next step after a declined payment for credits: while it is tried again, and afterwards."""
CONDITIONS: Final[Mapping[AlertKind, frozenset[str]]] = {
    AlertKind.PAYMENT_FAILED: frozenset({"next_retry", "next_payment_attempt"}),
    AlertKind.INVOICE_ISSUED: frozenset({"due_at"}),
}
"""Kinds whose first action needs one of these details, which it does not state."""
QUOTA_PERIODS: Final = ("day", "month")
"""The first periods of quotas. Each has its own sentence."""


class Button(NamedTuple):
    """The place where a customer acts: the detail with the address, and the text of the button.

    Without an address in the details, the button leads to a page of the portal.
    """

    detail: str
    text: str
    page: str = "/account/alerts"
    page_text: str = "See all alerts"


ALL_ALERTS = N_("See all alerts")
ALERT = N_("Alert")
BUTTONS: Final[Mapping[AlertKind, Button]] = {
    **dict.fromkeys(
        (AlertKind.PAYMENT_FAILED, AlertKind.INVOICE_ISSUED, AlertKind.INVOICE_UNPAID),
        Button("pay", N_("Pay the invoice"), "/account/invoices", N_("See the invoice")),
    ),
    **dict.fromkeys(
        (AlertKind.KEY_ROTATION_DUE, AlertKind.KEY_ROTATION_OVERDUE),
        Button("rotate_at", N_("Rotate the key"), "/account/keys", N_("See the keys")),
    ),
    **dict.fromkeys(
        (AlertKind.PRICE_CHANGE, AlertKind.TRIAL_WILL_END),
        Button("page", N_("See the plan"), "/account/plan", N_("See the plan")),
    ),
    **dict.fromkeys(
        (
            AlertKind.KEY_CREATED,
            AlertKind.KEY_ROTATED,
            AlertKind.KEY_REVOKED,
            AlertKind.KEY_BUDGET_REACHED,
            AlertKind.KEY_ENDS_SOON,
        ),
        Button("", "", "/account/keys", N_("See the keys")),
    ),
    **dict.fromkeys(
        (AlertKind.USAGE_ANOMALY, AlertKind.CUSTOMER_PAUSED, AlertKind.SPEND_SPIKE),
        Button("", "", "/account/usage", N_("Explore usage")),
    ),
    **dict.fromkeys(
        (AlertKind.CREDITS_LOW, AlertKind.CREDITS_SPENT),
        Button("", "", "/account/credits", N_("Buy credits")),
    ),
    AlertKind.PAYMENT_RECEIVED: Button("receipt", N_("See the receipt"), "/account/invoices", N_("See the invoice")),
    AlertKind.DELETION_REQUESTED: Button("", "", "/account/data", N_("See your data")),
    AlertKind.QUOTA_REACHED: Button("", "", "/account/limits", N_("See the limits")),
    AlertKind.SPEND_REACHED: Button("", "", "/account/month", N_("See usage and costs")),
    AlertKind.WEBHOOK_DISABLED: Button("", "", "/account/webhooks", N_("See the webhooks")),
    AlertKind.CONTACT_ADDED: Button("", "", "/account/team", N_("See the team")),
}
ALERTS_BUTTON = Button("", "")
"""The button of all other kinds."""


PURCHASE_BUTTON = Button("", "", "/account/credits", N_("See the credits"))
"""The button of a payment for credits."""


OF_PAYMENTS = frozenset({AlertKind.PAYMENT_RECEIVED, AlertKind.PAYMENT_FAILED})


def find_button(kind: str, details: JsonObject) -> Button:
    """Return the button for an alert. Kinds of another version get the default button."""
    if kind in OF_PAYMENTS and details.get("credits") is not None:
        return PURCHASE_BUTTON
    return BUTTONS.get(AlertKind(kind), ALERTS_BUTTON) if find_policy(kind) else ALERTS_BUTTON


ACTORS: Final[Mapping[str, str]] = {"operator": N_("the operator"), "token": N_("one of your tokens")}
"""Actors for a customer that are no contacts."""
LEAKED = N_("The key was found in public.")
PRICE_CHANGE_STATES: Final = {"scheduled": N_("scheduled"), "done": N_("in force"), "withdrawn": N_("withdrawn")}
DISPUTE_STATES: Final = {
    "inquiry": N_("the bank asks"),
    "needs_response": N_("waits for an answer"),
    "under_review": N_("the bank decides"),
    "won": N_("won"),
    "lost": N_("lost"),
    "closed": N_("ended"),
}
RECONCILED: Final = {
    "A": N_("The ledger and the outbox"),
    "B": N_("The outbox and Stripe's sums"),
    "C": N_("Our rating and Stripe's invoices"),
    "D": N_("Payments and the journal"),
    "E": N_("Credit entries and balances"),
}
"""The books that each kind of reconciliation compares."""
DECLINE_REASONS: Final[Mapping[str, str]] = {
    "other": N_("The bank did not allow the payment. Ask the bank, or use another payment method."),
    "funds": N_("There is not enough money in the account. Add some, or use another payment method."),
    "limit": N_("The card has reached a limit. Ask the bank to raise it, or use another payment method."),
    "expired": N_("The card has expired. Store a valid one."),
    "details": N_("The number, the security code or the address of the card is wrong. Enter the card again."),
    "confirmation": N_("The bank asks you to confirm the payment. Pay by yourself this time, and confirm it there."),
    "unsupported": N_("The card does not allow this payment. Ask the bank, or use another payment method."),
    "unavailable": N_("The bank did not answer. Nothing is wrong with the card: try again later."),
    "stopped": N_("The bank has an order to stop our payments. Withdraw it there, or use another payment method."),
    "duplicate": N_("The bank knows a payment just like it. Look at your account before you pay again."),
    "account": N_("The bank account is closed or unknown. Store another payment method."),
    "test": N_("A test card was used, or a real card for a test. Store another card."),
    "no_method": N_("No payment method is stored. Store one."),
    "no_tax_id": N_("A valid tax number is missing. Enter it in the payment details."),
}
"""The reasons for declined payments, each with the customer's next step (billing/invoices/declines.py)."""
UNPAID_STEPS: Final = {
    "pause": N_("its fees rest until all is paid"),
    "cancel": N_("it has ended"),
    "uncollectible": N_("it has ended, and the invoices are written off"),
}
"""The results of a plan whose invoices are not paid."""
CODES: Final[Mapping[str, Mapping[str, str]]] = {
    "state": PRICE_CHANGE_STATES | DISPUTE_STATES,
    "after": UNPAID_STEPS,
    "books": RECONCILED,
    "decline_reason": DECLINE_REASONS,
}
"""The words for details that are codes, by the name of the detail."""


def find_sentence(kind: str, customer: str | None, details: JsonObject) -> str | None:
    """Return the English sentence of an alert with placeholders, or None if none fits."""
    return _choose_sentence(SENTENCES, kind, _name_customer(customer, details))


def _name_customer(customer: str | None, details: JsonObject) -> JsonObject:
    """Return the details with the customer of an alert. Some alerts for operators have it only there."""
    return {**details, "customer": customer} if customer else details


def find_own_sentence(kind: str, details: JsonObject) -> str | None:
    """Return the English sentence for the customer concerned, with placeholders."""
    return _choose_sentence(OWN_SENTENCES, kind, details)


def _choose_sentence(known: Mapping[AlertKind, tuple[str, ...]], kind: str, details: JsonObject) -> str | None:
    there = {name for name, value in details.items() if value is not None}
    sentences = known[AlertKind(kind)] if kind in known else ()
    if kind == AlertKind.QUOTA_REACHED:
        of_periods = dict(zip(QUOTA_PERIODS, sentences, strict=False))
        of_period = of_periods.get(str(details.get("per")))
        sentences = (*([of_period] if of_period else []), *sentences[len(of_periods) :])
    return next((sentence for sentence in sentences if there >= set(HOLE.findall(sentence))), None)


def describe_own(reader: Reader, kind: str, details: JsonObject) -> str | None:
    """Return a sentence about the alert in the language of the customer concerned; None as for `describe`."""
    sentence = find_own_sentence(kind, details)
    if sentence is None:
        return None
    return _fill_sentence(reader, sentence, details)


def describe(reader: Reader, kind: str, customer: str | None, details: JsonObject) -> str | None:
    """Return a sentence about the alert in the reader's language, or None if only its title is available."""
    sentence = find_sentence(kind, customer, details)
    if sentence is None:
        return None
    return _fill_sentence(reader, sentence, _name_customer(customer, details))


def describe_action(reader: Reader, kind: str, details: JsonObject) -> str | None:
    """Return the next step of the customer concerned in its language, or None if there is none."""
    actions = OWN_ACTIONS.get(AlertKind(kind), ()) if find_policy(kind) else ()
    if kind == AlertKind.PAYMENT_FAILED and details.get("credits") is not None:
        actions = TOP_UP_ACTIONS
    there = {name for name, value in details.items() if value is not None}
    needed = CONDITIONS.get(AlertKind(kind)) if actions else None
    if needed is not None and not needed & there:
        actions = actions[1:]
    action = next((action for action in actions if there >= set(HOLE.findall(action))), None)
    return None if action is None else _fill_sentence(reader, action, details)


def _fill_sentence(reader: Reader, sentence: str, details: JsonObject) -> str:
    values = {name: format_detail(reader, name, details) for name in HOLE.findall(sentence)}
    say, meter = load_catalog(reader.language).gettext, details.get("meter")
    if isinstance(meter, str):
        values["meter"] = format_line(format_meter(say(format_label(meter)), reader))
    return say(sentence) % values


def format_meter(label: str, reader: Reader) -> str:
    """Return the label of a meter as written within a sentence. A label that begins with capitals keeps them."""
    return label if label[1:2].isupper() else reader.within(label)


def format_detail(reader: Reader, name: str, details: JsonObject) -> str:
    """Return a detail on one line in the reader's format: times in UTC, money with currency, shares in percent."""
    value, currency = details[name], details.get("currency")
    form = FORMS.get(name, _format_plain)
    try:
        return format_line(form(reader, value, currency if isinstance(currency, str) else None))
    except (ValueError, ArithmeticError, TypeError, LookupError):  # Another version wrote it.
        return format_line(_format_plain(reader, value, None))


def _format_plain(reader: Reader, value: JsonValue, _: str | None) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return reader.number(value)
    return orjson.dumps(value).decode()


def _format_moment(reader: Reader, value: JsonValue, _: str | None) -> str:
    return reader.moment(str(value))


def _format_day(reader: Reader, value: JsonValue, _: str | None) -> str:
    return reader.day(str(value))


def _format_month(reader: Reader, value: JsonValue, _: str | None) -> str:
    return reader.month(str(value))


def _format_meter(reader: Reader, value: JsonValue, _: str | None) -> str:
    return load_catalog(reader.language).gettext(format_label(str(value)))


def _format_percent(reader: Reader, value: JsonValue, _: str | None) -> str:
    return reader.share(float(str(value)) / 100, 0)


def _format_money(reader: Reader, value: JsonValue, currency: str | None) -> str:
    return reader.money(int(str(value)), currency or USD)


def _format_amount(reader: Reader, value: JsonValue, currency: str | None) -> str:
    """Format an amount such as 12.34 USD, an amount in smallest units with a currency, or units of a meter."""
    if isinstance(value, str):
        whole, code = value.split(" ")
        currency = code.lower()
        return reader.exact(int(Decimal(whole).scaleb(DECIMALS[currency]) * MILLICREDITS), currency)
    return _format_plain(reader, value, None) if currency is None else _format_money(reader, value, currency)


def _format_credits(reader: Reader, value: JsonValue, _: str | None) -> str:
    return reader.credits(int(str(value)))


def _format_actor(reader: Reader, value: JsonValue, _: str | None) -> str:
    """Format an actor: one of ACTORS, or the address in a contact's label."""
    actor = str(value)
    return load_catalog(reader.language).gettext(ACTORS[actor]) if actor in ACTORS else actor.partition(":")[2]


def _format_reason(reader: Reader, value: JsonValue, _: str | None) -> str:
    return load_catalog(reader.language).gettext(LEAKED) if value == "leaked" else str(value)


def _format_ratio(reader: Reader, value: JsonValue, _: str | None) -> str:
    return reader.share(float(str(value)), 4)


def _format_names(reader: Reader, value: JsonValue, _: str | None) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else _format_plain(reader, value, None)


def _find_word(words: Mapping[str, str], reader: Reader, value: JsonValue, _: str | None) -> str:
    return load_catalog(reader.language).gettext(words[str(value)])


def _format_plan(_: Reader, value: JsonValue, __: str | None) -> str:
    return str(value).partition("@")[0]


Form = Callable[[Reader, JsonValue, str | None], str]
FORMS: Final[Mapping[str, Form]] = {
    **dict.fromkeys(
        (
            "at",
            "resets",
            "since",
            "trial_ends_at",
            "period_start",
            "next_retry",
            "next_payment_attempt",
            "hour",
            "works_until",
            "expires",
            "answer_by",
            "counts_as_unpaid_at",
        ),
        _format_moment,
    ),
    **dict.fromkeys(("amount_cents", "spent_cents", "usual_cents", "fee", "fee_before"), _format_money),
    **dict.fromkeys(("threshold", "percent"), _format_percent),
    **dict.fromkeys(("rotate_by", "ends_on", "due_at", "erased_on", "period"), _format_day),
    **{name: partial(_find_word, words) for name, words in CODES.items()},
    **dict.fromkeys(("names", "edges", "moves", "missing", "rejected"), _format_names),
    "part": _format_ratio,
    "by": _format_actor,
    "why": _format_reason,
    **dict.fromkeys(("amount", "used", "left", "granted"), _format_amount),
    "plan": _format_plan,
    "month": _format_month,
    "meter": _format_meter,
    **dict.fromkeys(("above", "credits"), _format_credits),
}
"""Formats of details that are no plain text or number, by name."""
