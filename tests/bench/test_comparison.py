"""Two versions beside each other."""

import pytest

from loadtest.bench.measure.slice import Slice
from loadtest.bench.report.comparison import compare

NOISE = (1.0, 1.3, 0.9, 1.1, 0.95, 1.2, 1.05)
"""The effect of the machine on both versions, by round."""


def slices_of(ratios: list[float], waited: float = 0.0, system: float = 0.0) -> list[Slice]:
    slices = []
    for number, (noise, ratio) in enumerate(zip(NOISE, ratios, strict=True)):
        for peer, cost in (("new", 20 * noise * ratio), ("old", 20 * noise)):
            kernel = cost * system if peer == "old" else cost * (1 - (1 - system) / ratio)
            slices.append(Slice(number, peer, "small", 1000, 500.0, cost, 0.0, 1.0, waited, "", kernel))
    return slices


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([1.0, 1.01, 0.99, 1.0, 1.005, 0.995, 1.0], "same"),
        ([1.05, 1.06, 1.04, 1.05, 1.05, 1.07, 1.03], "dearer"),
        ([0.9, 0.91, 0.92, 0.9, 0.89, 0.9, 0.9], "cheaper"),
        ([0.9, 1.1, 1.0, 0.85, 1.2, 1.0, 1.05], "too noisy"),
    ],
)
def test_a_verdict_is_given_only_where_the_interval_allows_for_one(ratios: list[float], verdict: str) -> None:
    difference = {each.part: each for each in compare(slices_of(ratios), "new", "old")}["cpu"]
    assert difference.low <= difference.ratio <= difference.high
    assert difference.verdict == verdict


def test_comparison_judges_system_and_user_time_separately() -> None:
    """Simulates a change to immediate writes: user time is unchanged, and the kernel takes all of the extra time."""
    differences = compare(slices_of([1.2, 1.21, 1.19, 1.2, 1.2, 1.22, 1.18], system=0.5), "new", "old")
    assert {difference.part: difference.verdict for difference in differences} == {
        "cpu": "dearer",
        "user": "same",
        "system": "dearer",
    }


def test_a_disturbed_slice_does_not_count() -> None:
    assert compare(slices_of([1.0] * 7, waited=0.5), "new", "old") == []
