"""Usage on its way to Stripe's meters: slices, the outbox and its states (pure), the exporter."""
