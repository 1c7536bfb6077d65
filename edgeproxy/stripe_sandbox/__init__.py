"""A Stripe to test with: its API, its manners and its faults, on one SQLite file.

It imports nothing of the rest of `collector/billing/`, so what it puts on an invoice is a second opinion on what we do.
"""
