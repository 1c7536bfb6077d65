"""Invoices and credit notes as rows: their states, lines, bookings in the journal, the shadow log, and dunning.

Owns the tables of states and the functions that change them. Does not own the lines of a period (period_close/), the
delivery of invoices to Stripe (period_close/), or the price of a unit (rating/).
"""
