"""Types of JSON documents that are passed on or read field by field. Documents with a known shape have a model."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
"""A read-only JSON value, so that lists of objects are included."""

JsonObject: TypeAlias = dict[str, JsonValue]

JsonDocument: TypeAlias = Any
"""A document of an API whose schema mypy does not know. Its fields are read by name."""
