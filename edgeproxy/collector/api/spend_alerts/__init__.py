"""Spend alerts: models, handlers and endpoints."""
