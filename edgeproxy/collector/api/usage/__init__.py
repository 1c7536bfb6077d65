"""Endpoints of usage."""
