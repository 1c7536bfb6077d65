"""Usage events that services report. Each counts once."""
