"""The collector's HTTP API: listeners, authorization, endpoints, and schemas of requests and answers."""
