"""The hub, which synchronises the limits of hosts: Redis or a Redis Cluster, with one connection per node."""
