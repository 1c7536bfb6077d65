"""Stripe's catalog and subscriptions follow ours."""
