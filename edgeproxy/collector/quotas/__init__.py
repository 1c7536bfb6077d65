"""The usage of quotas by the ledger, what edges get of it, and allocations of things that exist."""
