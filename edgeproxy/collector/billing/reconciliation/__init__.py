"""Reconciliation of our books with Stripe's and with each other: usage, payments, credits.

Owns the comparisons and their times. Does not own the allowed size of a difference (mismatch.py), its record and alert
(discrepancies.py), or its correction.
"""
