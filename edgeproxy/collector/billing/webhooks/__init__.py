"""Events of Stripe's webhooks: stored once, then applied.

Owns that no event is lost, and the time of its application. Does not own signatures and parsing (stripe/), or the
application of an object: that is a table of functions of other packages.
"""
