"""Endpoints of quarantine."""
