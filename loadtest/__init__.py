"""What exercises a running edge: benchmarks, regions on one machine, soak runs, and the load test.

`python -m loadtest` (scripts/loadtest) is the load test; docs/loadtest.md says how to read what it prints.
"""
