"""Customers, keys, flags, tokens and contacts as data, and the audit log of their changes."""
