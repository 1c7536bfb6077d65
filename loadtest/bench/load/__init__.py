"""Who asks: wrk as fast as it can, or a paced generator at a rate that is set."""
