"""Alerts: their kinds, how they are raised once ever, and how they reach people and machines."""
