"""Endpoints of price changes."""
