"""Hosts agreeing on limits: what the hub is told and when (pure), and the coordinator that tells it."""
