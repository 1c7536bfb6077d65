"""Buckets of the latency histograms of the edge and of the collector."""

LATENCY_BUCKETS = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds in seconds of every histogram's buckets. One more bucket without a bound follows."""
