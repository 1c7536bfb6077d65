"""Encryption of personal data at rest: master key, keys that it wraps, a data key of each customer, and rows."""
