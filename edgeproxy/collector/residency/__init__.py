"""Moves of customers between residencies: what goes, in which steps, and what must not be lost."""
