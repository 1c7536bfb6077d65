"""What usage costs: exact amounts of money."""
