"""Decisions on counts: admit or refuse, when to come back, what the RateLimit fields say. Time is an argument."""
