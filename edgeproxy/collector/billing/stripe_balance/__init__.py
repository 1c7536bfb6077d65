"""The balance at Stripe: each of Stripe's balance transactions is in the journal, once.

Owns the account `cash`, what a balance transaction is about, and what remains in clearing. Does not own what our books
expect of Stripe: credits/ and invoices/ book that in clearing.
"""
