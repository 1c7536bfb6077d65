"""Endpoints of service."""
