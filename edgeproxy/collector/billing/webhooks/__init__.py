"""What Stripe reports: events are received, kept once and applied."""
