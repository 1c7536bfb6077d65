"""Configuration files: typed models, units, files with line numbers, environment, and all errors at once.

`edge/` has what only edge.yaml contains. `collector/` has what only collector.yaml, plans.yaml and regions.yaml
contain. Everything else is shared.
"""
