"""Endpoints of traffic."""
