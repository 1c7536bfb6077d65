"""What edge.yaml alone has: upstreams, routes, listeners, the way to the collector and the directory."""
