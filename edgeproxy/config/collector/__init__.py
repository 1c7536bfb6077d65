"""Models of collector.yaml, plans.yaml and regions.yaml: tokens, billing, plans, alerts, pages, regions."""
