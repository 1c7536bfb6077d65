"""The usage of quotas according to the ledger, its counts for edges, and allocations of countable things."""
