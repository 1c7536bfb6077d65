"""Stripe's objects and the effects of calls on them. Pure but for the transaction that every function is given."""
