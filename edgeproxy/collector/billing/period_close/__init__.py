"""The end of a billing period: the roll to the next one, billed quantities, invoice lines, and delivery to Stripe.

Owns how a draft becomes an invoice that is paid or sent, once. Does not own prices (rating/), the invoice rows
(invoices/), or what a change of plan does (subscriptions/).
"""
