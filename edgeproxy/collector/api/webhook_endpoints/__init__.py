"""Endpoints of customers' webhooks."""
