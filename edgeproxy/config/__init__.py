"""Configuration files: typed models, units, files with line numbers, environment, and every error at once.

`edge/` has what is in edge.yaml alone, `collector/` what is in collector.yaml, plans.yaml and regions.yaml; the rest is
shared.
"""
