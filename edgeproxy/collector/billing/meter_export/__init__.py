"""The export of usage to Stripe's meters: slices (pure), the outbox and its states (pure), and the exporter.

Owns that every unit of usage is sent once, and the record of counted units. Does not own subscriptions at Stripe
(stripe_sync/), the comparison with Stripe's sums (reconciliation/), or the invoice (period_close/).
"""
