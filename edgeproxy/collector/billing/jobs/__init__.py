"""Periodic jobs of billing: exporting meters, booking credits, ending periods.

Owns when something is done, and that one collector does it. Does not own what is done: each job calls the package that
does.
"""
