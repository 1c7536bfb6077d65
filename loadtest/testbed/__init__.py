"""Real processes on free ports of the loopback, for load tests and tests: edges, collectors, databases, upstreams."""
