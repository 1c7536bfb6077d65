"""Types of JSON documents that are passed on or read field by field. Those with a shape of their own have a model."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
"""A JSON value that is only read: so a list of objects is one too."""

JsonObject: TypeAlias = dict[str, JsonValue]

JsonDocument: TypeAlias = Any
"""A document of an API, whose schema mypy does not know: its fields are read by name."""
