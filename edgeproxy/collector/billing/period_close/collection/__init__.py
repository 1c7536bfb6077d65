"""The two ways to collect an invoice at Stripe: by items that are rated here, or by meters that Stripe rates.

Owns the calls of Stripe for one invoice. Each call may be repeated. Does not own their time, or the reaction to a
failure (invoice_delivery.py).
"""
