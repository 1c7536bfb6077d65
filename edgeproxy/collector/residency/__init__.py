"""Moves of customers between residencies: their steps, the moved data, and checks that nothing is lost."""
