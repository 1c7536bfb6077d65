"""The import of an existing Stripe account: its customers and subscriptions that become ours, once.

Owns the mapping (pure) and the steps of a run. Does not own the start of a subscription when the time paid at Stripe
ends (period_close/imported_starts.py).
"""
