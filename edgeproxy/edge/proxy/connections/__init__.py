"""Connections: clients' and upstreams', over HTTP/1.1 and HTTP/2, and how each opens."""
