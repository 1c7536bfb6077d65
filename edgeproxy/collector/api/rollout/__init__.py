"""Endpoints of rollout."""
