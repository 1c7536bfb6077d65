"""Tests that fail behind the edge and pass behind nginx, each with the part of docs/compatibility.md that says why."""

DIFFERENCES: dict[str, tuple[tuple[str, str], ...]] = {}
"""(part of the test's name, heading), by suite."""
