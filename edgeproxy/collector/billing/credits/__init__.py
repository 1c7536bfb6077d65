"""Prepaid credits: purchases, consumption, refunds, balances and statements.

Owns the events of credits, each booked once, and the checkout pages at Stripe. Does not own the journal that it books
in (journal/), invoices of plans (invoices/), or the webhooks that report payments (webhooks/).
"""
