"""Types of JSON documents."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
"""A read-only JSON value, so that lists of objects are included."""

JsonObject: TypeAlias = dict[str, JsonValue]
