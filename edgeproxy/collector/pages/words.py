"""Texts of pages for the API's values, in English. Other languages are in collector/languages/locale/."""

from collections.abc import Mapping

from edgeproxy.collector.alerts.words import (
    DECLINE_REASONS,
    DISPUTE_STATES,
    PRICE_CHANGE_STATES,
    RECONCILED,
)
from edgeproxy.collector.languages.billing_words import CREDIT_KINDS, INVOICE_KINDS
from edgeproxy.collector.languages.marks import N_
from edgeproxy.collector.pages.audit_words import AUDIT_ACTIONS
from edgeproxy.collector.pages.console_words import EDGE_LATENESS, EDGE_STATES, MATCHES, PRICE_TERMS

MESSAGES = {
    "signed-out": N_("You have signed out."),
    "created": N_("The customer is made."),
    "created-partly": N_("The customer is made, but its plan, person or invitation is not: look at them below."),
    "changed": N_("The change is made."),
    "paused": N_("The customer is paused."),
    "resumed": N_("The customer is served again."),
    "raised": N_("The limits are raised: edges know it within seconds."),
    "reverted": N_("The usual limits hold again within seconds."),
    "revoked": N_("The key is revoked."),
    "leaked": N_("The leaked key is revoked: whoever uses it is refused within seconds."),
    "tier": N_("The tier is changed: edges know it within seconds."),
    "key-restored": N_("The key works again within seconds."),
    "replayed": N_("It is counted."),
    "discarded": N_("It is discarded."),
    "told": N_("The status page tells of it."),
    "plan": N_("The plan is changed."),
    "plan-later": N_("The plan changes at the end of the paid period."),
    "details": N_("The billing details are changed: the next invoices have them."),
    "ended": N_("The plan has ended."),
    "ending": N_("The plan ends at the end of the paid period."),
    "kept": N_("The plan goes on."),
    "sent": N_("It is on its way again."),
    "acknowledged": N_("The alert is acknowledged."),
    "acknowledged-all": N_("The alerts are acknowledged."),
    "assigned": N_("The alert is given to them."),
    "muted": N_("Alerts of this kind are not sent until then."),
    "unmuted": N_("Alerts of this kind are sent again."),
    "invited": N_("The invitation is on its way."),
    "added": N_("Your colleague can sign in now. No mail was sent: tell them."),
    "not-mailed": N_(
        "Your colleague can sign in now, but the mail could not be sent: send it again later, or tell them."
    ),
    "role": N_("The role is changed, and holds at once."),
    "removed": N_("Your colleague is removed, and signed out."),
    "webhook-sent": N_("The message is on its way."),
    "account-deleting": N_("The deletion of the account has begun."),
    "deleting": N_("The deletion of the customer has begun."),
    "restored": N_("The deletion is taken back: the customer is served again."),
    "token": N_("The token is revoked."),
    "uncharged": N_("Nobody is charged any more."),
    "charged": N_("Customers are charged again, from the next minute on."),
    "stepped": N_("The percentage is changed."),
    "invoice-hold": N_("The invoice is held."),
    "invoice-accept": N_("The invoice is accepted, and goes out."),
    "invoice-void": N_("The invoice is being taken back."),
    "invoice-credit": N_("The credit note is being made."),
    "invoice-settle": N_("The invoice is being marked as paid."),
    "invoice-write-off": N_("The invoice is being written off."),
    "price-change": N_("The price change is scheduled."),
    "price-change-withdrawn": N_("The price change is withdrawn."),
    "credits-given": N_("The credits are given."),
    "credits-withdrawn": N_("The credits are taken back."),
    "usage-reversed": N_("The usage is reversed: its credits are back."),
    "purchase-refunded": N_("The refund is on its way."),
    "top-up-on": N_("Automatic top-up is on."),
    "top-up-off": N_("Automatic top-up is off."),
    "bought": N_("Thank you. The credits are here as soon as the payment is confirmed, as a rule within a minute."),
}
CANCELLATION_REASONS = {
    "too_expensive": N_("It is too expensive"),
    "missing_features": N_("Something that we need is missing"),
    "switched_service": N_("We are switching to another provider"),
    "unused": N_("We do not use it enough"),
    "customer_service": N_("Support was not good enough"),
    "too_complex": N_("It is too hard to use"),
    "low_quality": N_("It does not work well enough"),
    "other": N_("Another reason"),
}
PAYMENT_METHOD_STATES = {
    "expires_soon": N_("expires soon"),
    "expired": N_("expired"),
    "declined": N_("declined"),
}
NAVIGATION_GROUPS = {
    "traffic": N_("Traffic"),
    "customers": N_("Customers"),
    "money": N_("Money"),
    "system": N_("System"),
    "usage": N_("Usage"),
    "build": N_("Build"),
    "billing": N_("Billing"),
    "account": N_("Account"),
}
RESIDENCY_STATES = {
    "ok": N_("answers"),
    "away": N_("does not answer"),
    "refused": N_("does not take the token"),
    "unreadable": N_("answers something else, or is not trusted"),
}
CONTACT_ROLES = {"owner": N_("Owner"), "developer": N_("Developer"), "billing": N_("Billing")}
CONTACT_RIGHTS = {
    "owner": N_("Everything, and who else may come in"),
    "developer": N_("API keys, webhooks, usage and limits; no invoices and no payments"),
    "billing": N_("Plan, invoices, credits and payments; no API keys and no webhooks"),
}
THEMES = {"auto": N_("System"), "light": N_("Light"), "dark": N_("Dark")}
FAULTS = {
    400: N_("That cannot be understood"),
    401: N_("Sign in again"),
    403: N_("That is not allowed"),
    404: N_("There is no such thing"),
    405: N_("That cannot be done here"),
    409: N_("That cannot be done now"),
    422: N_("Some of it cannot be used"),
    429: N_("That was too much at once"),
    500: N_("Something went wrong here"),
    503: N_("The data cannot be had now. Try again in a minute."),
}
LABELS = (
    N_("API calls"),
    N_("Agent executions"),
    N_("Cached tokens"),
    N_("Concurrency"),
    N_("Input tokens"),
    N_("LLM tokens"),
    N_("Output tokens"),
    N_("Refusals"),
    N_("Seats"),
    N_("Session"),
    N_("Storage GB"),
    N_("Support"),
    N_("Workflows"),
)
"""Labels of the meters, limits and features in the shipped files. Other names are shown unchanged."""
CUSTOMER_STATES = {
    "active": N_("active"),
    "paused": N_("paused"),
    "deleting": N_("being deleted"),
    "deleted": N_("deleted"),
}
KEY_STATES = {
    "active": N_("active"),
    "due": N_("to be rotated"),
    "rotating": N_("being replaced"),
    "expired": N_("expired"),
    "revoked": N_("revoked"),
}
INCIDENT_STATES = {
    "investigating": N_("We are looking into it"),
    "identified": N_("We know why"),
    "monitoring": N_("It is fixed, and we are watching it"),
    "resolved": N_("It is over"),
}
MAINTENANCE_STATES = {
    "scheduled": N_("planned"),
    "in_progress": N_("under way"),
    "completed": N_("completed"),
    "cancelled": N_("cancelled"),
}
MAINTENANCE_UPDATES = {
    "announced": N_("Maintenance is planned"),
    "changed": N_("Maintenance is at another time"),
    "cancelled": N_("Maintenance is cancelled"),
    "begun": N_("Maintenance has begun"),
    "ended": N_("Maintenance is over"),
}
PART_STATES = {
    "operational": N_("operational"),
    "degraded": N_("degraded"),
    "partial_outage": N_("partial outage"),
    "major_outage": N_("outage"),
    "maintenance": N_("under maintenance"),
    "unknown": N_("not measured yet"),
}
OVERLAPS = {
    "0s": N_("at once"),
    "1h": N_("after 1 hour"),
    "1d": N_("after 1 day"),
    "7d": N_("after 7 days"),
    "30d": N_("after 30 days"),
}
"""The end of a key or secret after its replacement."""
SPANS = {
    "1h": N_("1 hour"),
    "8h": N_("8 hours"),
    "24h": N_("24 hours"),
    "1d": N_("1 day"),
    "7d": N_("7 days"),
    "30d": N_("30 days"),
}
ACKNOWLEDGED = {"false": N_("open"), "true": N_("acknowledged")}
SEVERITIES = {"page": N_("critical"), "warn": N_("warning"), "info": N_("info")}
INCIDENT_SEVERITIES = {
    "P0": N_("outage"),
    "P1": N_("major disruption"),
    "P2": N_("partial disruption"),
    "P3": N_("minor"),
}
JOB_RESULTS = {"succeeded": N_("succeeded"), "failed": N_("failed"), "standby": N_("left to another collector")}
JOB_RESTS = {
    "seconds": N_("Every few seconds"),
    "minutes": N_("Every few minutes"),
    "hours": N_("Every hour, or less often"),
}
DELIVERY_STATES = {"due": N_("on its way"), "sent": N_("sent"), "dead": N_("given up")}
WEBHOOK_STATES = {"enabled": N_("enabled"), "disabled": N_("disabled")}
USAGE_RANGES = {
    "1h": N_("1 hour"),
    "today": N_("Today"),
    "7": N_("7 days"),
    "30": N_("30 days"),
    "90": N_("90 days"),
}
STEPS = {"minute": N_("Minute"), "hour": N_("Hour"), "day": N_("Day"), "month": N_("Month")}
USAGE_FIELDS = {"": N_("Nothing"), "route": N_("Route"), "region": N_("Region")}
UNITS = {
    "": "",
    "requests": N_("requests"),
    "bytes": N_("bytes"),
    "tokens": N_("tokens"),
    "seconds": N_("seconds"),
    "messages": N_("messages"),
    "characters": N_("characters"),
}
PERIODS = {"day": N_("a day"), "month": N_("a month")}

COMPARED_LINES = {
    "fee": N_("Fee of the plan"),
    "proration": N_("Share of a fee"),
    "subtotal": N_("Subtotal"),
    "total": N_("Total"),
    "another line": N_("A line that Stripe alone has"),
}
"""Names of differences between our invoice and Stripe's that concern no meter."""

INVOICE_STATES = {
    "held": N_("held"),
    "draft": N_("draft"),
    "closing": N_("being closed"),
    "open": N_("open"),
    "paid": N_("paid"),
    "voiding": N_("being taken back"),
    "void": N_("void"),
    "waived": N_("waived"),
    "uncollectible": N_("uncollectible"),
    "settling": N_("being marked as paid"),
    "writing_off": N_("being written off"),
}
CREDIT_NOTE_STATES = {
    "requested": N_("on its way"),
    "made": N_("credited"),
    "refused": N_("refused by Stripe"),
    "void": N_("void"),
}
DISPUTE_REASONS = {
    "fraudulent": N_("the payment was not authorized"),
    "unrecognized": N_("the payment was not recognized"),
    "duplicate": N_("paid twice"),
    "subscription_canceled": N_("the plan was canceled"),
    "product_not_received": N_("not received"),
    "product_unacceptable": N_("not as described"),
    "credit_not_processed": N_("a refund did not come"),
    "general": N_("other reasons"),
}
MODES = {"off": N_("off"), "shadow": N_("shadow: only who is listed is charged"), "live": N_("live")}
LEVELS = {"none": N_("agree"), "warn": N_("differ a little"), "page": N_("differ")}

DEFINITIONS = {
    "day": N_("A day of UTC."),
    "revenue": N_(
        "Fees of plans over the days that they pay for, usage of plans on the day of its invoice, credits "
        "when they are used, and credits that expired; less what was taken back. Without tax. It is what the "
        "books say."
    ),
    "cost": N_(
        "What the usage of the day cost, at the prices of billing.credits.cogs in this currency: that of all "
        "customers who are charged in it, whether they pay or not. Usage of meters without such a price costs "
        "nothing here."
    ),
    "margin": N_("Revenue for each unit of cost."),
    "target": N_("A margin of more than 4."),
    "models": N_(
        "The dimension model of meters that have a price under billing.credits.cogs, by what their usage of "
        "the week cost."
    ),
    "customers": N_("For each meter, the customers with the largest usage in the week."),
    "liability": N_("Credits that customers have and have not used, at the end of the month; those given away too."),
    "fees_ahead": N_("Fees that were invoiced for days after the month."),
    "conversion": N_(
        "Customers who paid for the first time in the month, of those who had never paid before it: the ones "
        "who were there and the ones who came."
    ),
    "active": N_("Customers who used credits in the month, or had a plan with a fee or billed usage."),
    "growth": N_("Revenue of the month beside that of the month before: 0.1 is a tenth more."),
    "conversion_rate": N_(
        "Purchases of credits that were paid, of those that were begun at Checkout in the month; 85 of 100 are the "
        "goal."
    ),
    "mean_purchase": N_("Credits of an average purchase."),
    "churn": N_("Customers who were active in the month before and not in this one, of those of the month before."),
    "lifetime_value": N_(
        "Revenue of the month for each active customer, less its share of the cost, divided by the churn."
    ),
    "mrr": N_(
        "Monthly fees of the subscriptions at the end of the month, or now; a yearly fee counts a twelfth, a trial "
        "nothing. Without usage, coupons and tax."
    ),
    "expansion": N_("More monthly fees of customers who had some at the start of the month."),
    "contraction": N_("Less monthly fees of customers who still have some."),
    "churned": N_("Monthly fees of customers who have none any more."),
}
"""Definitions of the business metrics, equal to the API's (collector/billing/reports/business_report.py)."""

WORDS: dict[str, Mapping[str, str] | Mapping[int, str]] = {
    "messages": MESSAGES,
    "audit_actions": AUDIT_ACTIONS,
    "matches": MATCHES,
    "price_terms": PRICE_TERMS,
    "themes": THEMES,
    "contact_roles": CONTACT_ROLES,
    "contact_rights": CONTACT_RIGHTS,
    "usage_ranges": USAGE_RANGES,
    "step_names": STEPS,
    "usage_fields": USAGE_FIELDS,
    "unit_names": UNITS,
    "faults": FAULTS,
    "customer_states": CUSTOMER_STATES,
    "key_states": KEY_STATES,
    "incident_states": INCIDENT_STATES,
    "maintenance_states": MAINTENANCE_STATES,
    "maintenance_updates": MAINTENANCE_UPDATES,
    "part_states": PART_STATES,
    "spans": SPANS,
    "overlaps": OVERLAPS,
    "credit_kinds": CREDIT_KINDS,
    "periods": PERIODS,
    "severities": SEVERITIES,
    "incident_severities": INCIDENT_SEVERITIES,
    "edge_states": EDGE_STATES,
    "edge_lateness": EDGE_LATENESS,
    "residency_states": RESIDENCY_STATES,
    "delivery_states": DELIVERY_STATES,
    "webhook_states": WEBHOOK_STATES,
    "job_results": JOB_RESULTS,
    "job_rests": JOB_RESTS,
    "compared_lines": COMPARED_LINES,
    "invoice_states": INVOICE_STATES,
    "credit_note_states": CREDIT_NOTE_STATES,
    "decline_reasons": DECLINE_REASONS,
    "dispute_states": DISPUTE_STATES,
    "dispute_reasons": DISPUTE_REASONS,
    "price_change_states": PRICE_CHANGE_STATES,
    "invoice_kinds": INVOICE_KINDS,
    "cancellation_reasons": CANCELLATION_REASONS,
    "payment_method_states": PAYMENT_METHOD_STATES,
    "modes": MODES,
    "reconciled": RECONCILED,
    "levels": LEVELS,
    "definitions": DEFINITIONS,
}
"""All texts, by their names in templates."""
