"""Endpoints of flags."""
