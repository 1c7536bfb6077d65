"""Stripe's catalog and subscriptions follow ours.

Owns prices, products, meters and subscriptions at Stripe. Does not own plans and subscriptions here (config/,
subscriptions/), or invoices of subscriptions (period_close/).
"""
