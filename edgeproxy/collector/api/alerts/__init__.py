"""Endpoints of alerts."""
