"""Drift: the thresholds, and that every difference has something that a person can do."""

import pytest

from edgeproxy.billing.drift import ABOUT, ADVICE, Drift, Kind, Level, Row, level, measured, what_to_do


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
