"""Periodic work of the collector: maintenance, quota watch, billing events, alerts for operators."""
