"""The demonstration: a company that sells an API, its services as processes, and a tour that judges its own lines."""
