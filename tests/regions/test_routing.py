"""The choice of a region, played in a world where maps mislead and some reports are forged."""

import pytest

from loadtest.regions.routing import play


@pytest.mark.parametrize("liars", [0.0, 0.3])
def test_measured_routing_is_within_5_percent_of_the_best_region(liars: float, seed: int) -> None:
    results = play(seed % 1000, liars)
    assert results["by network"].ratio <= 1.05
    assert results["by network"].within >= 0.95
    assert results["by network"].ratio < results["one region for all"].ratio
    by_country = results["by country, networks that have not reported"]
    assert by_country.ratio < results["one region for all"].ratio


def test_where_most_reports_are_forged_the_choice_is_wrong() -> None:
    assert play(7, 0.6)["by network"].ratio > 1.5, "if this held as well, the test above would show nothing"
