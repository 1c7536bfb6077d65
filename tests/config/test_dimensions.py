"""Dimensions of meters: what may be written of them, and their values as text."""

import pytest

from edgeproxy.config.dimensions import DIMENSIONS_MAX, format_dimensions, is_dimensions, is_formatted, parse_dimensions
from edgeproxy.config.meters import Dimension, Meter
from tests.config.conftest import LEAST


@pytest.mark.parametrize(
    "reported",
    [
        None,
        [],
        {},
        {f"d{number}": "v" for number in range(DIMENSIONS_MAX + 1)},
        {"a b": "v"},
        {"customer": "v"},
        {1: "v"},
        {"model": ""},
        {"model": "a b"},
        {"model": "~mine"},
        {"model": "m" * 65},
        {"model": 1},
    ],
)
def test_invalid_dimensions_are_no_dimensions(reported: object) -> None:
    assert not is_dimensions(reported)


def test_dimensions_format_alike_in_any_order() -> None:
    one, other = {"model": "m/1:x", "agent": "~other"}, {"agent": "~other", "model": "m/1:x"}
    assert is_dimensions(one)
    assert format_dimensions(one) == format_dimensions(other) == '{"agent":"~other","model":"m/1:x"}'
    assert parse_dimensions(format_dimensions(one)) == one
    assert (format_dimensions({}), parse_dimensions("")) == ("", {})


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ('{"model":"m1"}', True),
        ('{"model": "m1"}', False),
        ('{"model":"m1","agent":"a"}', False),
        ("{}", False),
        ("", False),
        ("model", False),
    ],
)
def test_only_canonical_text_is_formatted_dimensions(text: str, is_one: bool) -> None:
    assert is_formatted(text) is is_one


def test_a_dimension_is_its_number_of_values_or_a_mapping() -> None:
    meter = Meter.model_validate({"count": "events", "dimensions": {"model": "50", "agent": {"values": 200}}})
    assert meter.dimensions == {"model": Dimension(values=50), "agent": Dimension(values=200)}


EVENTS = "meters: {tokens: {count: events, "
EDGES = "meters: {tokens: {count: requests, "


@pytest.mark.parametrize(
    ("meters", "path", "what"),
    [
        (EVENTS + "dimensions: {customer: 5}}}", "meters.tokens.dimensions", "customer is a field that all usage has"),
        (EVENTS + "dimensions: {model: 0}}}", "meters.tokens.dimensions.model", "0 is out of range"),
        (EVENTS + "dimensions: {model: {header: X-M, values: 5}}}}", "meters.tokens.dimensions.model.header", "is of"),
        (EVENTS + "dimensions: {a: 1, b: 1, c: 1, d: 1, e: 1}}}", "meters.tokens.dimensions", "has 5 dimensions"),
        (EVENTS + "dimensions: 5}}", "meters.tokens.dimensions", "mapping"),
        (EDGES + "dimensions: {model: 5}}}", "meters.tokens.dimensions.model", "lacks the field"),
        (EDGES + "dimensions: {model: {header: Date, values: 5}}}}", "meters.tokens.dimensions.model.header", "itself"),
        (
            EDGES + "when: admitted, dimensions: {model: {header: X-M, values: 5}}}}",
            "meters.tokens.dimensions",
            "known",
        ),
        ("meters: {seats: {count: holdings, dimensions: {team: 5}}}", "meters.seats.dimensions", "are of usage"),
        ("meters: {seats: {count: holdings, aggregate: unique}}", "meters.seats.aggregate", "places are counted"),
        (EDGES + "aggregate: max}}", "meters.tokens.aggregate", "is of events"),
        (EDGES + "pass: true}}", "meters.tokens.pass", "is of what upstreams report"),
    ],
)
def test_invalid_dimensions_are_reported(problems, meters: str, path: str, what: str) -> None:
    result = problems(f"{meters}\n{LEAST}")
    assert any(path in str(problem) and what in str(problem) for problem in result), result


def test_valid_dimensions_pass(problems) -> None:
    whole = "dimensions: {model: {header: X-M, values: 5}}"
    meters = (
        f"{{a: {{count: requests, pass: true, {whole}}}, b: {{count: events, aggregate: max, dimensions: {{m: 1}}}}}}"
    )
    assert problems(f"meters: {meters}\n{LEAST}") == []
