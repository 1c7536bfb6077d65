"""Periodic jobs of billing: exporting meters, booking credits, ending periods.

Owns the schedule, and that one collector does the work. Does not own the work itself: each job calls the package that
does it.
"""
