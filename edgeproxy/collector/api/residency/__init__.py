"""Endpoints of moves of customers between residencies."""
