"""An existing Stripe account: which of its customers and subscriptions are ours, and taking them over once.

Owns the mapping (pure) and the steps of a run. Does not own the beginning of a subscription when what was paid at
Stripe ends (period_close/imported_starts.py).
"""
