"""Endpoints of invoices."""
