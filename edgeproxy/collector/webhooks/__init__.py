"""Webhooks of customers: messages are written with their events, and sent until they are accepted."""
