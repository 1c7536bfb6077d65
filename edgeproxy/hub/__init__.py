"""The hub, with which hosts synchronise limits: Redis or a Redis Cluster, with one connection per node."""
