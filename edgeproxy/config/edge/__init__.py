"""Models of edge.yaml: upstreams, routes, listeners, shipping and the directory."""
