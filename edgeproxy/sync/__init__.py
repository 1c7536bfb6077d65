"""Edges agreeing on limits: what to tell the hub and when (pure), and the hub's drivers."""
