"""Endpoints of regions."""
