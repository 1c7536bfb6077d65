"""Invoices and credit notes as rows: their states, lines, bookings in the journal, the shadow log, and dunning.

Owns the tables of states and the functions that change them. Does not own what the lines of a period are
(period_close/), how an invoice gets to Stripe (period_close/), or what a unit costs (rating/).
"""
