"""Alerts: their kinds, raising each only once, and their delivery to people and machines."""
