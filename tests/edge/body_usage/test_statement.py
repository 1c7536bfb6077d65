"""Counts that an answer states: zeros, and what is left without the numbers."""

import pytest

from edgeproxy.edge.body_usage import dialects as facts
from edgeproxy.edge.body_usage.statement import StatedCounts


@pytest.mark.parametrize(
    ("values", "is_zero"),
    [
        ({facts.PROMPT: 0, facts.OUTPUT: 0}, True),
        ({facts.PROMPT: 0, facts.OUTPUT: 1}, False),
        ({facts.TOTAL: 3}, False),
        ({facts.MODEL: b"m"}, False),
        ({}, False),
    ],
)
def test_all_zero_needs_numbers_that_are_zero(values: dict[str, int | bytes], is_zero: bool) -> None:
    assert StatedCounts(values).is_all_zero is is_zero


def test_model_stays_when_numbers_are_dropped() -> None:
    counts = StatedCounts({facts.MODEL: b"m", facts.PROMPT: 7, facts.OUTPUT: 1}).drop_numbers()
    assert counts.values == {facts.MODEL: b"m"}
    assert not counts.has_numbers
