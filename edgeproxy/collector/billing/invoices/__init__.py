"""Invoices as rows, their bookings in the journal, and dunning."""
