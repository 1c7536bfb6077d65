"""Stripe's API: the client, request rates, customers, and events of webhooks.

Owns the use of Stripe's package, keys and signatures. Does not own the purpose of calls: invoices, refunds and meters
are in the packages of their domain.
"""
