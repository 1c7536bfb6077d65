"""The customer directory as the collector publishes it: versions, and their copy in the hub (Redis)."""
