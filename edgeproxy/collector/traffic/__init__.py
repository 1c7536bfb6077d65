"""The traffic of edges. Each report is recorded once, stored by minute and hour, and read as rates and quantiles."""
