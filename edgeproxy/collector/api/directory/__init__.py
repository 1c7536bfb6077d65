"""Endpoints of directory."""
