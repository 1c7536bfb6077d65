"""Drift: the thresholds, and that every difference has something that a person can do."""

import pytest

from edgeproxy.collector.billing.mismatch import (
    ABOUT,
    ADVICE,
    UNITS,
    Drift,
    Kind,
    Level,
    Row,
    by_meter,
    highest,
    lasting,
    level,
    measured,
    what_to_do,
    worst,
)


def test_differences_do_not_make_up_for_each_other() -> None:
    rows = [Row("acme", "tokens", 1000, 1002), Row("bolt", "tokens", 1000, 998), Row("cora", "tokens", 0, 0)]
    assert measured(rows) == Drift(3, 2000, 4)
    assert measured([]) == Drift(0, 0, 0)


@pytest.mark.parametrize(
    ("kind", "units", "different", "found"),
    [
        ("B", 1_000_000, 0, "none"),
        ("B", 1_000_000, 100, "none"),
        ("B", 1_000_000, 101, "warn"),
        ("B", 1_000_000, 200, "warn"),  # 0.02 %
        ("B", 1_000_000, 1000, "warn"),
        ("B", 1_000_000, 1001, "page"),
        ("B", 1_000_000, 2000, "page"),  # 0.2 %
        ("B", 0, 1, "page"),
        *((kind, 1_000_000_000, 1, "page") for kind in "ACDE"),
        *((kind, 1, 0, "none") for kind in "ABCDE"),
    ],
)
def test_how_bad_a_difference_is(kind: Kind, units: int, different: int, found: str) -> None:
    assert level(kind, Drift(1, units, different)) == Level(found)


@pytest.mark.parametrize(("units", "different", "ratio"), [(1000, 0, 0.0), (1000, 1, 0.001), (0, 5, 1.0), (1, 5, 1.0)])
def test_the_ratio(units: int, different: int, ratio: float) -> None:
    assert Drift(1, units, different).ratio == ratio


def test_every_difference_has_its_advice_with_the_number() -> None:
    assert {kind for kind, _ in ADVICE} == set(ABOUT)
    for kind in ABOUT:
        for theirs in (7, 13):
            assert " 3 " in f" {what_to_do(kind, Row('acme', 'tokens', 10, theirs))} "
        assert what_to_do(kind, Row("acme", "tokens", 10, 10)) == "nothing: they agree"
    assert "lacks 3 units" in what_to_do("C", Row("acme", f"tokens{UNITS}", 10, 7)), "of units, not of cents"


def test_a_small_meter_is_not_lost_among_the_units_of_a_large_one() -> None:
    rows = [Row("acme", "tokens", 10**9, 10**9), Row("acme", "runs", 1000, 999), Row("bolt", "runs", 4000, 4000)]
    meters = by_meter(rows)
    assert meters == {"runs": Drift(2, 5000, 1), "tokens": Drift(1, 10**9, 0)}
    assert level("B", measured(rows)) is Level.NONE
    assert highest("B", meters.values()) is Level.WARN
    assert highest("B", by_meter([Row("acme", "runs", 1, 2), *rows[:2]]).values()) is Level.PAGE
    assert highest("B", []) is Level.NONE
    assert worst(meters.values()) == meters["runs"]
    assert worst([]) == Drift(0, 0, 0)


def test_only_what_differs_by_the_same_each_time_is_a_difference() -> None:
    first = [Row("acme", "tokens", 10, 12), Row("bolt", "tokens", 10, 9), Row("cora", "tokens", 5, 5)]
    then = [Row("acme", "tokens", 20, 22), Row("bolt", "tokens", 10, 10), Row("cora", "tokens", 6, 5)]
    assert lasting([first]) == first
    assert lasting([first, then]) == [then[0], then[1], Row("cora", "tokens", 6, 6)]
