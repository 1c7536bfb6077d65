"""Spans: as which messages they are written, which are recorded, and how they reach a receiver."""
