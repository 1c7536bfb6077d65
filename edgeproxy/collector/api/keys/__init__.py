"""Endpoints of keys."""
