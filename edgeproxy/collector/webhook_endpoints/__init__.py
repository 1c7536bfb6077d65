"""Endpoints of customers' webhooks, and the messages to each."""
