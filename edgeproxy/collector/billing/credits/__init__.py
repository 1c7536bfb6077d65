"""Prepaid credits: purchases, consumption, refunds, balances and statements."""
