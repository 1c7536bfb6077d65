"""Reconciliation of our books with Stripe's and with each other: usage, payments, credits.

Owns what is compared and when. Does not own how large a difference may be (mismatch.py), its record and alert
(discrepancies.py), or how it is mended.
"""
