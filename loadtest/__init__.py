"""What exercises a running edge: benchmarks, regions on one machine, soak runs, and the parts of a load test."""

__version__ = "0.1.0"
