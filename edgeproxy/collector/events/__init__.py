"""Usage that services report themselves: events, each of which counts once."""
