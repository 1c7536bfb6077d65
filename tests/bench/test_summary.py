"""Medians, best slices and ratios."""

import pytest

from loadtest.bench.measure.slice import Slice
from loadtest.bench.report.summary import costs, proportion


def slice_of(round_: int, peer: str, microseconds: float, scenario: str = "small", wrong: str = "") -> Slice:
    return Slice(round_, peer, scenario, 1000, 500.0, microseconds, 0.0, 1.0, 0.0, wrong)


def test_a_cost_is_the_median_and_the_best_of_the_slices() -> None:
    (cost,) = costs([slice_of(number, "own", value) for number, value in enumerate((18.0, 16.0, 30.0))], "yardstick")
    assert (cost.median, cost.best, cost.slices) == (18.0, 16.0, 3)


def test_ratios_are_taken_within_a_round_before_their_median() -> None:
    """The third round was disturbed for both: the ratio of medians would be 20/10."""
    slices = [slice_of(1, "own", 10.0), slice_of(1, "yardstick", 10.0)]
    slices += [slice_of(2, "own", 20.0), slice_of(2, "yardstick", 10.0)]
    slices += [slice_of(3, "own", 60.0), slice_of(3, "yardstick", 50.0)]
    own, yardstick = costs(slices, "yardstick")
    assert own.ratio == pytest.approx(1.2)
    assert yardstick.ratio == 1.0


def test_without_the_reference_there_is_no_ratio() -> None:
    (cost,) = costs([slice_of(1, "own", 10.0)], "yardstick")
    assert cost.ratio is None


def test_wrong_slices_do_not_count() -> None:
    slices = [slice_of(1, "own", 10.0), slice_of(2, "own", 1.0, wrong="3 of 9 were refused")]
    (cost,) = costs(slices, "own")
    assert (cost.best, cost.slices) == (10.0, 1)


def test_proportion_compares_slices_of_the_same_round() -> None:
    slices = [slice_of(1, "own", 9.0, "429"), slice_of(1, "own", 18.0), slice_of(2, "own", 99.0, "429")]
    assert proportion(slices, ("own", "429"), ("own", "small")) == 0.5
    assert proportion(slices, ("own", "64k"), ("own", "small")) is None
