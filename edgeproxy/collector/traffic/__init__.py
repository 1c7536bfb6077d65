"""The traffic of edges: their reports, each taken once, kept by minute and hour, and read as rates and quantiles."""
