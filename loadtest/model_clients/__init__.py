"""Clients of models' APIs, directly and behind the edge."""
