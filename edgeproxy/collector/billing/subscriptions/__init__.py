"""Subscriptions: the plans of customers, changes of plans (pure), plan versions, and entitlements.

Owns the segments that usage is rated by, and the tier and caps of a plan at the edge. Does not own prices (rating/), or
subscriptions at Stripe (stripe_sync/).
"""
