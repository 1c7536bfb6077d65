"""Customers and keys for all edges: versions in the hub, followed by each edge and cached on its disk."""
