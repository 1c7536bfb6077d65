"""Dimensions, for example `model`, which split usage further than customer, meter and route, and their values. Pure.

The dimensions of a count are a mapping, `{"model": "m1"}`. Tables store it as text: JSON with sorted names, or the
empty string if there are no dimensions.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

import orjson

DIMENSIONS_MAX = 4
"""Maximum dimensions of a meter."""
VALUES_MAX = 10_000
"""The maximum that may be configured for the number of values of a dimension."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
COUNTED_VALUE = re.compile(r"[!-}][!-~]{0,63}")
VALUE = re.compile(rf"{COUNTED_VALUE.pattern}|~other")
A_VALUE = "1 to 64 visible characters of ASCII that do not begin with ~"
OTHER = "~other"
"""The value that replaces all values beyond the maximum."""
RESERVED = ("customer", "meter", "route", "region", "edge", "minute", "hour", "day", "month", "value")
"""Names that no dimension can have: fields of usage."""


def is_dimensions(candidate: object) -> bool:
    """Return whether this is a mapping of dimensions to values with at least one dimension."""
    return (
        isinstance(candidate, dict)
        and 1 <= len(candidate) <= DIMENSIONS_MAX
        and all(isinstance(name, str) and NAME.fullmatch(name) and name not in RESERVED for name in candidate)
        and all(isinstance(value, str) and VALUE.fullmatch(value) for value in candidate.values())
    )


def format_dimensions(dimensions: Mapping[str, str]) -> str:
    """Format a mapping of dimensions to values as text: JSON with sorted names, or an empty text."""
    return orjson.dumps(dimensions, option=orjson.OPT_SORT_KEYS).decode() if dimensions else ""


@lru_cache(1 << 14)
def parse_dimensions(text: str) -> Mapping[str, str]:
    """Parse the text of `format_dimensions`. Callers share the returned object and must not change it."""
    return orjson.loads(text) if text else {}


@lru_cache(1 << 14)
def is_formatted(text: object) -> bool:
    """Return whether `format_dimensions` returns this text for some dimensions."""
    try:
        dimensions = orjson.loads(text)  # type: ignore[arg-type]
    except orjson.JSONDecodeError:
        return False
    return is_dimensions(dimensions) and format_dimensions(dimensions) == text
