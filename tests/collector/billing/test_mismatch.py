"""Drift: the thresholds, and that every difference has something that a person can do."""

import pytest

from edgeproxy.collector.billing.mismatch import (
    ADVICE,
    COMPARED_BOOKS,
    UNITS_SUFFIX,
    Comparison,
    Drift,
    Level,
    ReconciliationKind,
    classify_drift,
    find_currency,
    get_advice,
    highest_level,
    measure_drift,
    measure_drift_by_meter,
    name_by_currency,
    select_lasting,
    to_difference,
    worst_drift,
)


def test_differences_do_not_make_up_for_each_other() -> None:
    rows = [
        Comparison("acme", "tokens", 1000, 1002),
        Comparison("bolt", "tokens", 1000, 998),
        Comparison("cora", "tokens", 0, 0),
    ]
    assert measure_drift(rows) == Drift(3, 2000, 4)
    assert measure_drift([]) == Drift(0, 0, 0)


@pytest.mark.parametrize(
    ("kind", "units", "different", "expected"),
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
def test_drift_is_classified_by_its_share(kind: ReconciliationKind, units: int, different: int, expected: str) -> None:
    assert classify_drift(kind, Drift(1, units, different)) == Level(expected)


@pytest.mark.parametrize(("units", "different", "ratio"), [(1000, 0, 0.0), (1000, 1, 0.001), (0, 5, 1.0), (1, 5, 1.0)])
def test_drift_ratio_compares_the_difference_with_all_units(units: int, different: int, ratio: float) -> None:
    assert Drift(1, units, different).ratio == ratio


def test_every_difference_has_its_advice_with_the_number() -> None:
    assert {kind for kind, _ in ADVICE} == set(COMPARED_BOOKS)
    for kind in COMPARED_BOOKS:
        for theirs in (7, 13):
            assert " 3 " in f" {get_advice(kind, Comparison('acme', 'tokens', 10, theirs))} "
        assert get_advice(kind, Comparison("acme", "tokens", 10, 10)) == "nothing: they agree"
    assert "lacks 3 units" in get_advice("C", Comparison("acme", f"tokens{UNITS_SUFFIX}", 10, 7)), (
        "of units, not of cents"
    )


def test_a_small_meter_is_not_lost_among_the_units_of_a_large_one() -> None:
    rows = [
        Comparison("acme", "tokens", 10**9, 10**9),
        Comparison("acme", "runs", 1000, 999),
        Comparison("bolt", "runs", 4000, 4000),
    ]
    meters = measure_drift_by_meter(rows)
    assert meters == {"runs": Drift(2, 5000, 1), "tokens": Drift(1, 10**9, 0)}
    assert classify_drift("B", measure_drift(rows)) is Level.NONE
    assert highest_level("B", meters.values()) is Level.WARN
    assert (
        highest_level("B", measure_drift_by_meter([Comparison("acme", "runs", 1, 2), *rows[:2]]).values()) is Level.PAGE
    )
    assert highest_level("B", []) is Level.NONE
    assert worst_drift(meters.values()) == meters["runs"]
    assert worst_drift([]) == Drift(0, 0, 0)


def test_only_a_lasting_mismatch_is_a_difference() -> None:
    first = [
        Comparison("acme", "tokens", 10, 12),
        Comparison("bolt", "tokens", 10, 9),
        Comparison("cora", "tokens", 5, 5),
    ]
    then = [
        Comparison("acme", "tokens", 20, 22),
        Comparison("bolt", "tokens", 10, 10),
        Comparison("cora", "tokens", 6, 5),
    ]
    assert select_lasting([first]) == first
    assert select_lasting([first, then]) == [then[0], then[1], Comparison("cora", "tokens", 6, 6)]


@pytest.mark.parametrize(("currency", "name"), [("usd", "balance"), ("eur", "balance eur")])
def test_name_by_currency_omits_only_dollars(currency: str, name: str) -> None:
    assert name_by_currency("balance", currency) == name
    assert find_currency(name) == currency


def test_a_line_that_differs_says_whether_it_is_of_an_amount_or_of_units() -> None:
    amount = to_difference(Comparison("acme", "fee", 900, 990))
    assert (amount["meter"], amount["of"], amount["difference"]) == ("fee", "amount", 90)
    assert amount["action"] == get_advice("C", Comparison("acme", "fee", 900, 990))
    units = to_difference(Comparison("acme", f"tokens{UNITS_SUFFIX}", 500, 497))
    assert (units["meter"], units["of"], units["difference"]) == ("tokens", "quantity", -3)
