"""Who has which plan: changes (pure), plan versions, entitlements."""
