"""What operators write: typed models, units, files with their lines, environment, and every error at once.

`edge/` is what edge.yaml alone has, `collector/` what collector.yaml, plans.yaml and regions.yaml have. The rest is of
both.
"""
