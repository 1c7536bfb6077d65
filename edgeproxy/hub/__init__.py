"""The hub, where hosts agree on limits: Redis or a Redis Cluster, reached by one connection a node."""
