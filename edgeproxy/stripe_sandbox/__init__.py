"""A stand-in for Stripe to test with: its API, its behaviour and its faults, on one SQLite file. It imports nothing of
`collector/billing/`, so its invoices are a second opinion on ours."""
