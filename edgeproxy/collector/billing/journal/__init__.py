"""The journal of double entries: the entries of each kind of transaction (pure), and the chained rows.

Owns accounts, balances, grants and the hash chain. Does not own the time of a booking: credits/ and invoices/ decide
it.
"""
