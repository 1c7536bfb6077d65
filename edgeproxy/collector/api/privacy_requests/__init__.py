"""Endpoints of privacy requests."""
