"""Upstream services: their endpoints, the choice between these, and idle connections."""
