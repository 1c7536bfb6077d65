"""Encryption of personal data at rest: the master key, keys that it wraps, a data key per customer, and rows."""
