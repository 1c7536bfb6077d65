"""Endpoints of edges."""
