"""A stand-in for Stripe to test with: its API, its behaviour and its faults, on one SQLite file.

It imports nothing from edgeproxy, so its invoices are a second opinion on edgeproxy's.
"""

__version__ = "0.1.0"
