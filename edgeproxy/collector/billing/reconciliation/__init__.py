"""Our books held against Stripe's: usage, credits, payments."""
