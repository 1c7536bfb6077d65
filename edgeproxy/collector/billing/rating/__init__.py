"""What usage costs, to the cent: rater, money, periods, projection. Pure."""
