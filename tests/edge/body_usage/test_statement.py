"""Counts stated by an answer: zeros, and the remaining text without the numbers."""

import pytest

from edgeproxy.edge.body_usage import dialects as facts
from edgeproxy.edge.body_usage.statement import StatedCounts


@pytest.mark.parametrize(
    ("values", "is_zero", "left"),
    [
        ({facts.PROMPT: 0, facts.OUTPUT: 0}, True, (None, None, None)),
        ({facts.PROMPT: 0}, True, (None, None, None)),
        ({facts.TOTAL: 0}, True, (None, None, None)),
        ({facts.PROMPT: 7, facts.OUTPUT: 0}, True, (7, None, None)),
        ({facts.PROMPT: 7, facts.CACHED_BESIDE: 2, facts.OUTPUT: 0, facts.TOTAL: 9}, True, (9, None, None)),
        ({facts.PROMPT: 0, facts.OUTPUT: 1}, False, None),
        ({facts.PROMPT: 7, facts.OUTPUT: 0, facts.THOUGHTS_BESIDE: 3}, False, None),
        ({facts.PROMPT: 7, facts.OUTPUT: 0, facts.TOTAL: 9}, False, None),
        ({facts.PROMPT: 7}, False, None),
        ({facts.TOTAL: 3}, False, None),
        ({facts.UNITS: 3}, False, None),
        ({facts.MODEL: b"m"}, False, None),
        ({}, False, None),
    ],
)
def test_zero_output_is_dropped_without_the_input(
    values: dict[str, int | bytes | str | list[object]], is_zero: bool, left: tuple[int | None, ...] | None
) -> None:
    counts = StatedCounts({**values, facts.MODEL: "m"})
    assert counts.has_zero_output is is_zero
    if left is not None:
        rest = counts.drop_zero_output()
        assert tuple(rest.find_number(f"{count}_tokens") for count in ("input", "output", "total")) == left
        assert rest.model == "m"


def test_model_stays_when_numbers_are_dropped() -> None:
    counts = StatedCounts({facts.MODEL: b"m", facts.PROMPT: 7, facts.OUTPUT: 1}).drop_numbers()
    assert counts.values == {facts.MODEL: b"m"}
    assert not counts.has_numbers
