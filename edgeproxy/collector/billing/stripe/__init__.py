"""Stripe's API: the client (the one file that knows the package), request rates, customers, webhook events."""
