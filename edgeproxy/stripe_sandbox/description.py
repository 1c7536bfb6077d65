"""What Stripe's API is: operations, their parameters, their answers. Read from stripe-api.json."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import orjson

Schema = Mapping[str, Any]
"""A part of the description: JSON Schema as OpenAPI 3.0 has it, with `x-pruned` where something was left out."""

REFERENCE = "#/components/schemas/"


@dataclass(frozen=True)
class Operation:
    """Something that can be asked."""

    id: str
    method: str
    path: str
    parameters: Schema
    """An object: what may be sent in the query or the body."""
    answer: Schema

    @property
    def changes(self) -> bool:
        """Whether it may change something."""
        return self.method != "GET"


class Match(NamedTuple):
    """An operation, and what the path says in the place of its names."""

    operation: Operation
    ids: dict[str, str]


class Description:
    """All operations and objects."""

    def __init__(self, version: str, operations: Sequence[Operation], schemas: Mapping[str, Schema]) -> None:
        self.version = version
        self.operations = operations
        self.schemas = schemas
        self._routes: dict[tuple[str, int], list[tuple[re.Pattern[str], Operation]]] = {}
        for operation in sorted(operations, key=lambda one: one.path.count("{")):
            pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(operation.path)))
            self._routes.setdefault((operation.method, operation.path.count("/")), []).append((pattern, operation))

    def find(self, method: str, path: str) -> Match | None:
        """The operation of this method at this path."""
        for pattern, operation in self._routes.get((method, path.count("/")), ()):
            if match := pattern.fullmatch(path):
                return Match(operation, match.groupdict())
        return None

    def resolved(self, schema: Schema) -> Schema:
        """A schema, or what it refers to."""
        reference = schema.get("$ref")
        return schema if reference is None else self.schemas[reference.removeprefix(REFERENCE)]

    def options(self, schema: Schema) -> list[Schema]:
        """What a value may be: the alternatives of a schema, or the schema."""
        return [self.resolved(one) for one in schema.get("anyOf", (schema,))]


@cache
def load_description() -> Description:
    """The description that comes with the sandbox."""
    read = orjson.loads(files("edgeproxy.stripe_sandbox").joinpath("stripe-api.json").read_bytes())
    return Description(read["version"], [Operation(**one) for one in read["operations"]], read["schemas"])
