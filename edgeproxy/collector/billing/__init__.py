"""Billing: what usage costs, who has which plan, and how it is charged and booked.

Each sub-package says what it owns. Usage itself is the ledger's (collector/ledger/), accounts are those of
collector/accounts/, HTTP is collector/api/.
"""
