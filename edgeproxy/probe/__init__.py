"""A probe of the edge as a customer sees it: a request with a key, its limit fields, its usage in the ledger."""
