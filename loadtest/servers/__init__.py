"""Real application servers behind the edge, under load, with pauses as long as they keep idle connections."""
