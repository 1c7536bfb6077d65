"""Coupons of subscriptions: models, handlers and endpoints."""
