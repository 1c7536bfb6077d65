"""Webhooks of customers: messages written with what they tell of, and sent until they are taken."""
