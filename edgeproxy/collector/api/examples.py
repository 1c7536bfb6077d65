"""Examples in the API description: one per field, and answers of operations composed of them.

Most follow from the type of a field: a choice, the schema that it refers to, or an example of its pattern. The others
are in `examples.yml`, by the name of the field, so that each name has one example throughout.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import yaml

Schema = dict[str, Any]
TYPES: Final[Mapping[str, type | tuple[type, ...]]] = MappingProxyType(
    {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}
)
FORMATS: Final = MappingProxyType(
    {
        "date-time": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"),
        "date": re.compile(r"\d{4}-\d\d-\d\d"),
    }
)
"""The formats of texts, recognized from their examples."""


class Examples(NamedTuple):
    """The examples that do not follow from types."""

    fields: Mapping[str, object]
    """Examples by the name of the field."""
    schemas: Mapping[str, Mapping[str, object]]
    """Examples for single schemas, by the name of the field."""
    empty: frozenset[str]
    """Optional fields, or pairs like `Token.customer`, that are left out of examples of answers."""


@functools.cache
def read_examples() -> Examples:
    """Read `examples.yml`."""
    document = yaml.safe_load((files(__package__) / "examples.yml").read_text())
    return Examples(document["fields"], document["schemas"], frozenset(document["empty"]))


def add_examples(document: Schema) -> None:
    """Add an example to each field of the schemas and to each JSON answer of an OpenAPI document.

    A field that refers to a schema with fields has its example there. A field whose example is a time gets the format.
    """
    composer = ExampleComposer(document["components"]["schemas"])
    for name, schema in composer.schemas.items():
        for field, shape in schema.get("properties", {}).items():
            if not composer.refers_to_fields(shape):
                for example in composer.find_examples(name, field, shape):
                    shape["examples"] = [example]
                    _add_format(shape, example)
                    break
    for operation in (operation for methods in document["paths"].values() for operation in methods.values()):
        for status, response in operation["responses"].items():
            media = response.get("content", {}).get("application/json")
            if media is not None and status < "300":
                media["example"] = next(composer.find_examples("", "", media["schema"]))


def _add_format(shape: Schema, example: object) -> None:
    for choice in (shape, *shape.get("anyOf", ())):
        if choice.get("type") == "string" and not choice.keys() & {"format", "pattern"}:
            for name, form in FORMATS.items():
                if form.fullmatch(str(example)):
                    choice["format"] = name


class ExampleComposer:
    """Finds examples of fields, and composes examples of schemas from them."""

    def __init__(self, schemas: Mapping[str, Schema]) -> None:
        self.schemas = schemas

    def refers_to_fields(self, shape: object) -> bool:
        """Return True if a schema refers, directly or nested, to one with fields."""
        if isinstance(shape, list):
            return any(map(self.refers_to_fields, shape))
        if not isinstance(shape, dict):
            return False
        return ("$ref" in shape and "properties" in self._resolve(shape)) or self.refers_to_fields([*shape.values()])

    def find_examples(self, schema: str, field: str, shape: Schema) -> Iterator[object]:
        """Yield examples of a field of a schema, the best first."""
        examples, own = read_examples().fields, read_examples().schemas.get(schema, {})
        if field in own:
            yield own[field]
        for choice in shape.get("anyOf") or shape.get("oneOf") or [shape]:
            if "$ref" in choice and choice["$ref"].endswith("/JsonValue"):
                continue
            if "$ref" in choice:
                yield self._compose(choice)
            yield from choice.get("enum", ())
            kind = TYPES.get(choice.get("type", ""), ())
            if isinstance(examples.get(field), kind) and not self.refers_to_fields(choice):
                yield examples[field]
            yield from (choice["const"],) if "const" in choice else choice.get("examples", ())
            if kind is bool:
                yield True
            elif kind is list:
                yield from ([item] for item in self.find_examples("", field, choice["items"]))
            elif kind is dict and isinstance(choice.get("additionalProperties"), dict):
                members = self.find_examples("", field, choice["additionalProperties"])
                yield from ({examples["meter"]: member} for member in members)

    def _resolve(self, reference: Schema) -> Schema:
        return self.schemas[reference["$ref"].rpartition("/")[2]]

    def _compose(self, reference: Schema) -> object:
        name, schema = reference["$ref"].rpartition("/")[2], self._resolve(reference)
        if "enum" in schema:
            return schema["enum"][0]
        composed: dict[str, object] = {}
        for field, shape in schema.get("properties", {}).items():
            is_empty = not read_examples().empty.isdisjoint((field, f"{name}.{field}"))
            if is_empty and {"type": "null"} in shape.get("anyOf", ()):
                composed[field] = None
            elif not is_empty or field in schema.get("required", ()):
                composed[field] = next(self.find_examples(name, field, shape), None)
        return composed
