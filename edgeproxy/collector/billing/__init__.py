"""Billing: the cost of usage, customers' plans, charging and booking.

Each sub-package states what it owns. Usage itself belongs to the ledger (collector/ledger/), accounts to
collector/accounts/, HTTP to collector/api/.
"""
