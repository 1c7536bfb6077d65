"""Billing details: models, handlers and endpoints."""
