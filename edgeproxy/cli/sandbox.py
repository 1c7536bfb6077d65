"""The command `stripe-sandbox`, of the distribution of that name."""

from stripe_sandbox.command import stripe_sandbox

__all__ = ["stripe_sandbox"]
