"""Fuzzing of a real edge: random conversations through it, and an oracle that knows what must hold of each."""
