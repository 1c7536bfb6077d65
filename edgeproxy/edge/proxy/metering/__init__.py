"""Meters of requests, bodies and messages, and the counters of a worker."""
