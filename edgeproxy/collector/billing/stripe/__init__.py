"""Stripe's API: the client, request rates, customers, and events of webhooks.

Owns everything that knows Stripe's package, keys and signatures. Does not own what calls are made for: invoices,
refunds and meters are in the packages of their domain.
"""
