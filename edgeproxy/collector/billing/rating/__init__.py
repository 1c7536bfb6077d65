"""Prices of usage, to the cent: the rater, money, periods and projection. Pure.

Owns every computation of money. Does not own usage, clocks, settings or the database: all of these are arguments.
"""
