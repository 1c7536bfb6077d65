"""A customer's month out of a year of 10,000 customers' rows, on PostgreSQL."""

import asyncio
import random
import statistics
from contextlib import closing
from pathlib import Path

import pytest

from loadtest.testbed.collector import Collector
from loadtest.testbed.postgresql import Postgresql
from tests.collector.api.year import METERS, drawn, fill, measured

YEAR, SHORT = (10_000, range(1, 13), 40_000_000), (100, range(1, 3), 200_000)
"""Customers, months, and rows of minutes at least."""
MOST = 100.0
"""Milliseconds."""


@pytest.mark.parametrize("size", [SHORT, pytest.param(YEAR, marks=pytest.mark.soak)], ids=["short", "year"])
def test_customer_month_of_a_year_of_usage_loads_within_100_ms(
    postgresql: Postgresql, tmp_path: Path, seed: int, size: tuple[int, range, int]
) -> None:
    """The year takes some 11 GB on disk, and many minutes. Its figures are in docs/start/performance.md."""
    customers, months, rows = size
    print(f"seed {seed}")
    url = postgresql.database()
    assert asyncio.run(fill(url, customers, months)) > rows
    some = drawn(random.Random(seed), customers, months, min(50, customers // 20))
    with closing(Collector(tmp_path, url, meters=METERS)) as collector:
        collector.start()
        measured(collector, some)
        for name, times in measured(collector, some).items():
            print(f"{name}: p50 {statistics.median(times):.1f} ms, max {max(times):.1f} ms")
            assert statistics.median(times) < MOST
