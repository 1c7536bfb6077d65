"""Rows and histograms: written data is read back, and merging loses nothing."""

import random
from pathlib import Path

import pytest

from loadtest.record import PerSecond, Request, Times, quantile, read_hdr, unpacked, write_hdr


def test_rows_are_read_as_they_were_written() -> None:
    request = Request(3.5, 0.25, 0.125, 0.0, 1, 2, 255, 4, 65535, 429)
    assert list(unpacked(request.packed() * 2)) == [request, request]
    assert (request.sent, request.end) == (3.625, 3.75)


def test_merged_histograms_are_the_histogram_of_all(seed: int) -> None:
    rng = random.Random(seed)
    values = [rng.expovariate(30) for _ in range(3000)]
    whole, parts = Times(), [Times() for _ in range(3)]
    for number, value in enumerate(values):
        whole.add(value)
        parts[number % 3].add(value)
    merged = Times.decoded(parts[0].encoded())
    merged.merge(Times.decoded(parts[1].encoded()))
    merged.merge(parts[2])
    assert merged.count == 3000
    for percent in (50, 95, 99, 100):
        assert merged.percentile(percent) == whole.percentile(percent)
        assert merged.percentile(percent) == pytest.approx(quantile(values, percent), rel=0.002)


def test_a_histogram_outlives_its_file(tmp_path: Path) -> None:
    times = Times()
    for number in range(1, 1001):
        times.add(number / 1000)
    times.add(1e6)  # more than fits is the most that fits
    write_hdr(tmp_path / "some.hdr", times, 1e9, 10, "some region")
    again = read_hdr(tmp_path / "some.hdr")
    assert again.count == 1001
    assert again.percentile(95) == times.percentile(95) == pytest.approx(0.951, rel=0.002)
    assert again.percentile(100) == pytest.approx(120, rel=0.002)


def test_seconds_above_a_threshold_span_first_to_last() -> None:
    times = PerSecond()
    for second in range(10):
        for _ in range(20):
            times.add(second + 0.5, 0.2 if second in (3, 5) else 0.02)
    assert times.above(95, 0.08) == (3, 6)
    assert times.above(95, 0.3) is None
    assert times.between(3, 4) == pytest.approx([0.2] * 20)
