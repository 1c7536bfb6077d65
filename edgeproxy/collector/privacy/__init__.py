"""Personal data: the map of its places, the erasure of customers, and the export of a customer's data."""
