"""Faults of all kinds on two edges, their network and a collector, with steady traffic; all sums are equal in the end.

The long run writes its record to bench-results/usage.md.
"""

from pathlib import Path

import pytest

from tests.faults.counting.course import Course
from tests.faults.counting.site import Site
from tests.support.process import ROOT

SHORT, LONG = 60.0, 1800.0
"""Seconds."""
RECORD = ROOT / "bench-results" / "usage.md"


def run(folder: Path, seed: int, seconds: float) -> str:
    """A run; its record."""
    with Site(folder, seed, edges=2) as site:
        course = Course(site, seed, seconds)
        try:
            course.run()
        finally:
            record = course.record()
            print(record)
    return record


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_minute_of_faults(tmp_path: Path, seed: int) -> None:
    assert run(tmp_path, seed, SHORT)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_half_an_hour_of_faults(tmp_path: Path, seed: int) -> None:
    record = run(tmp_path, seed, LONG)
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(record)
