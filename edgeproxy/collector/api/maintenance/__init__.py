"""Endpoints of planned maintenance."""
