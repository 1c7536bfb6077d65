"""Quantiles of latencies."""

import math

from loadtest.bench.load.paced import quantile


def test_a_quantile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile(values, 1.0)) == (50.0, 99.0, 100.0)
    assert quantile([3.0], 0.99) == 3.0
    assert math.isnan(quantile([], 0.5))
