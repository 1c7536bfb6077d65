"""Endpoints of credits."""
