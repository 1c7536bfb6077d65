"""Publishing the customer directory: its versions, and their copy in the hub (Redis)."""
