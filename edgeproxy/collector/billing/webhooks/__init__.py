"""Events of Stripe's webhooks: stored once, then applied.

Owns that no event is lost, and when it is applied. Does not own signatures and parsing (stripe/), or what applying an
object does: that is a table of functions of other packages.
"""
