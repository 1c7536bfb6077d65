"""The description of Stripe's API: operations, parameters, responses. Loaded from FILES."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import orjson

Schema = Mapping[str, Any]
"""A part of the description: JSON Schema of OpenAPI 3.0, with `x-pruned` if members were left out."""

REFERENCE = "#/components/schemas/"
FILES = (
    "stripe-api.json",
    "stripe-api-balance.json",
    "stripe-api-subscriptions.json",
    "stripe-api-metering.json",
    "stripe-api-payments.json",
    "stripe-api-schedules.json",
)
"""The files of the description. An operation of a later file replaces one of an earlier file.

Disputes, payouts, the balance, promotion codes, discounts in full, and the meter events of v2 follow the types of
stripe 16.1.0. Payment methods and schedules follow the types of stripe 23.1.0 for Node, see
tests/support/stripe_types.py.
"""


@dataclass(frozen=True)
class Operation:
    """An operation of the API."""

    id: str
    method: str
    path: str
    parameters: Schema
    """An object: the parameters of the query or the body."""
    answer: Schema

    @property
    def changes(self) -> bool:
        """The operation may change objects."""
        return self.method != "GET"


class Match(NamedTuple):
    """An operation, and the values of its path parameters."""

    operation: Operation
    ids: dict[str, str]


class Description:
    """All operations and objects of the API."""

    def __init__(self, version: str, operations: Sequence[Operation], schemas: Mapping[str, Schema]) -> None:
        self.version = version
        self.operations = operations
        self.schemas = schemas
        self._routes: dict[tuple[str, int], list[tuple[re.Pattern[str], Operation]]] = {}
        for operation in sorted(operations, key=lambda entry: entry.path.count("{")):
            pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(operation.path)))
            self._routes.setdefault((operation.method, operation.path.count("/")), []).append((pattern, operation))

    def find_operation(self, method: str, path: str) -> Match | None:
        """Find the operation of a method and a path."""
        for pattern, operation in self._routes.get((method, path.count("/")), ()):
            if match := pattern.fullmatch(path):
                return Match(operation, match.groupdict())
        return None

    def resolve(self, schema: Schema) -> Schema:
        """Resolve the reference of a schema, or the members of an object that one file omits and another file has."""
        reference = schema.get("$ref")
        if reference is not None:
            return self.schemas[reference.removeprefix(REFERENCE)]
        if schema.get("x-pruned") and "object" in schema.get("properties", {}):
            return self.schemas.get(schema["properties"]["object"]["enum"][0], schema)
        return schema

    def list_options(self, schema: Schema) -> list[Schema]:
        """Return the alternatives of a schema, or the schema itself."""
        return [self.resolve(option) for option in schema.get("anyOf", (schema,))]


@cache
def load_description() -> Description:
    """Load the description that comes with the sandbox."""
    folder = files("stripe_sandbox")
    parts = [orjson.loads(folder.joinpath(name).read_bytes()) for name in FILES]
    operations = {operation["id"]: Operation(**operation) for part in parts for operation in part["operations"]}
    schemas = {name: schema for part in parts for name, schema in part["schemas"].items()}
    return Description(parts[0]["version"], list(operations.values()), schemas)
