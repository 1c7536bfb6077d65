"""Dimensions such as `model`, which split usage beside customer, meter and route, and their values. Pure.

The dimensions of a count are a mapping, `{"model": "m1"}`. Tables store it as text: JSON with sorted names, or the
empty string without dimensions.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

import orjson

DIMENSIONS_MAX = 4
"""Dimensions of a meter."""
VALUES_MAX = 10_000
"""The most that a dimension's bound of values may be."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
COUNTED_VALUE = re.compile(r"[!-}][!-~]{0,63}")
VALUE = re.compile(rf"{COUNTED_VALUE.pattern}|~other")
A_VALUE = "1 to 64 visible characters of ASCII that do not begin with ~"
OTHER = "~other"
"""The value that counts in place of those beyond the bound."""
RESERVED = ("customer", "meter", "route", "region", "edge", "minute", "hour", "day", "month", "value")
"""Names that no dimension can have: fields of usage."""


def is_dimensions(candidate: object) -> bool:
    """Return whether this says values by dimension, of one at least."""
    return (
        isinstance(candidate, dict)
        and 1 <= len(candidate) <= DIMENSIONS_MAX
        and all(isinstance(name, str) and NAME.fullmatch(name) and name not in RESERVED for name in candidate)
        and all(isinstance(value, str) and VALUE.fullmatch(value) for value in candidate.values())
    )


def format_dimensions(dimensions: Mapping[str, str]) -> str:
    """Format values by dimension as text: JSON with its names in order, and nothing where there are none."""
    return orjson.dumps(dimensions, option=orjson.OPT_SORT_KEYS).decode() if dimensions else ""


@lru_cache(1 << 14)
def parse_dimensions(text: str) -> Mapping[str, str]:
    """Parse what `format_dimensions` has made. Returns the same object each time, which is not to be changed."""
    return orjson.loads(text) if text else {}


@lru_cache(1 << 14)
def is_formatted(text: object) -> bool:
    """Return whether `format_dimensions` makes this of some dimensions."""
    try:
        dimensions = orjson.loads(text)  # type: ignore[arg-type]
    except orjson.JSONDecodeError:
        return False
    return is_dimensions(dimensions) and format_dimensions(dimensions) == text
