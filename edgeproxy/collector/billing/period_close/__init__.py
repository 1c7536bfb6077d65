"""The end of a billing period: the roll to the next one, billed quantities, invoice lines, and delivery to Stripe.

Owns the way from a draft to an invoice that is charged or sent, once. Does not own prices (rating/), the invoice rows
(invoices/), or the effects of a change of plan (subscriptions/).
"""
