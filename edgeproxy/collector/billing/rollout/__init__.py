"""Roll-out of charging: its steps and their gates (pure), and the switch at run time.

Owns whether a customer is charged now, and the times without charging. Does not own the figures of the gates
(reports/), or the amounts that are charged.
"""
