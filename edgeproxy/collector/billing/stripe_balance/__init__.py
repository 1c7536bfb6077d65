"""The balance at Stripe: each of Stripe's balance transactions is in the journal once.

Owns the account `cash`, the subject of a balance transaction, and the rest in clearing. Does not own the amounts that
our books expect from Stripe: credits/ and invoices/ book them in clearing.
"""
