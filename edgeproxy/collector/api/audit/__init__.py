"""Endpoints of audit."""
