"""Stripe's objects: what each call does to them. Pure but for the transaction that every function is given."""
