"""The beacon: clients report their latencies of regions to it, and fetch their best region from it."""
