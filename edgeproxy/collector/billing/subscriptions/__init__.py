"""Subscriptions: who has which plan, changes of plans (pure), plan versions, and entitlements.

Owns the segments by which usage is rated, and the tier and caps that a plan gives at the edge. Does not own prices
(rating/), or what Stripe has of a subscription (stripe_sync/).
"""
