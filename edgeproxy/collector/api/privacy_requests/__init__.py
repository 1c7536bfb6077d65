"""Endpoints of requests of people about their data."""
