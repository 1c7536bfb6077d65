"""Words of billing that pages, PDFs, CSV files and Stripe share, in English. The files of locale/ translate them."""

from typing import Final

from edgeproxy.collector.languages.marks import N_

INVOICE_KINDS: Final = {
    "start": N_("First fee of a plan"),
    "change": N_("Change of a plan"),
    "period": N_("Usage and fees"),
    "threshold": N_("Usage so far"),
}
"""The content of an invoice, by its kind (billing/subscriptions/changes.py), on pages and at Stripe."""
CREDIT_KINDS: Final = {
    "purchase": N_("Purchase"),
    "gift": N_("Credits given"),
    "withdrawal": N_("Credits taken back"),
    "consumption": N_("Usage"),
    "usage_refund": N_("Usage taken back"),
    "refund": N_("Refund"),
    "refund_failed": N_("Refund that failed"),
    "chargeback": N_("Payment taken back"),
    "chargeback_won": N_("Payment restored"),
    "expiry": N_("Expired"),
    "expiry_reversed": N_("Expired credits returned for earlier usage"),
    "moved_out": N_("Moved to another residency"),
    "moved_in": N_("Moved from another residency"),
}
"""The text that customers read for each kind of transaction of credits. Other kinds do not change their balance."""
