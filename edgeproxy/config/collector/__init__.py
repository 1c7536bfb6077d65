"""What collector.yaml, plans.yaml and regions.yaml have: tokens, billing, plans, alerts, pages, regions."""
