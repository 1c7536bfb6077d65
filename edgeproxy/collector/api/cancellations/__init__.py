"""Cancellations: models, handlers and endpoints."""
