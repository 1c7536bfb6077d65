"""Endpoints of quotas."""
