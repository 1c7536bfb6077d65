"""The OpenAPI 3.1 description of the collector, made of the table of endpoints and of the models that check."""

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

import edgeproxy.config.collector.schema  # noqa: F401 - it adds its forms
from edgeproxy import __version__
from edgeproxy.collector.api.endpoint import JSON, Endpoint, Nothing
from edgeproxy.collector.api.responses import PROBLEM, Problem
from edgeproxy.config import units
from edgeproxy.config.schema import FORMS, Editor

Schema = dict[str, Any]
REF = "#/components/schemas/{model}"
SUFFIX = re.compile(r"(?<=[a-z])Response$")
NAMED = re.compile(r"\{([a-z_]+)\}")
PATHS = {name: {"type": "string", "pattern": "^[1-9][0-9]{0,14}$"} for name in ("seq", "alert")}
"""Parameters of paths that have a form of their own."""
STATUSES = {
    400: "The request cannot be read",
    401: "The token is missing or not known, has expired, or shows no second factor where one is asked for",
    403: "The token may not do this",
    404: "There is no such thing",
    409: "It contradicts what is there",
    412: "It has changed since it was read",
    413: "The body is too large",
    415: "The body is no JSON",
    422: "Some field cannot be used",
    429: "Too much is under way",
    503: "It cannot be done now",
}


class Written(Editor):
    """Makes the schema of what is sent, without the variables that files may have."""

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> Schema:
        """Describe what the reader takes; what has no form says so itself (WithJsonSchema)."""
        reader = schema["function"]["function"]
        if reader in FORMS or isinstance(reader, units.Whole | units.Time | units.Size):
            return _without_variables(super().function_before_schema(schema))
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Schema:
        """Leave out what a field is by default: here it is in its plain unit, not as it would be sent."""
        return self.generate_inner(schema["schema"])

    def literal_schema(self, schema: core_schema.LiteralSchema) -> Schema:
        """One of these words."""
        return {"enum": list(schema["expected"])}

    def nullable_schema(self, schema: core_schema.NullableSchema) -> Schema:
        """In JSON null says that a field has no value."""
        return GenerateJsonSchema.nullable_schema(self, schema)


def description(endpoints: Iterable[Endpoint[Any, Any]]) -> Schema:
    """Describe the API."""
    table = tuple(endpoints)
    sent = {one.sends for one in table if one.sends is not Nothing}
    order = sorted(sent, key=lambda model: model.__name__)
    refs, made = models_json_schema(
        [(model, "validation") for model in order], ref_template=REF, schema_generator=Written
    )
    schemas: Schema = made.get("$defs", {})
    paths: dict[str, Schema] = {}
    for one in table:
        body = refs[one.sends, "validation"] if one.sends is not Nothing else None
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, body, schemas)
    document: Schema = {
        "openapi": "3.1.0",
        "info": {"title": "edgeproxy collector", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }
    renamed: Schema = _without_suffix(document)
    return renamed


def _operation(one: Endpoint[Any, Any], body: Schema | None, schemas: Schema) -> Schema:
    made: Schema = {
        "operationId": one.name,
        "summary": one.about,
        "parameters": [*_path(one), *_query(one.query), *_head(one)],
        "responses": _responses(one, schemas),
    }
    if one.roles is not None:
        made["security"] = [{"bearer": []}]
        made["x-roles"] = sorted(one.roles)
        made["x-sensitive"] = one.sensitive
    media: Schema = {kind: {"schema": {}} for kind in one.media}
    if body is not None:
        media[JSON] = {"schema": body}
    if media:
        made["requestBody"] = {"required": body is not None, "content": media}
    return made


def _path(one: Endpoint[Any, Any]) -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, "schema": PATHS.get(name, {"type": "string", "minLength": 1})}
        for name in NAMED.findall(one.path)
    ]


def _query(model: type[BaseModel]) -> list[Schema]:
    schema = model.model_json_schema(by_alias=True, schema_generator=Written)
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": _given(said)}
        for name, said in schema.get("properties", {}).items()
    ]


def _given(said: Schema) -> Schema:
    """A parameter is left out where it has no value: it is never null."""
    choices = [one for one in said.get("anyOf", ()) if one != {"type": "null"}]
    return choices[0] if len(choices) == 1 else {key: value for key, value in said.items() if key != "title"}


def _head(one: Endpoint[Any, Any]) -> list[Schema]:
    return [
        {"name": name, "in": "header", "required": field.required, "schema": field.schema}
        for name, field in one.fields.items()
    ]


def _responses(one: Endpoint[Any, Any], schemas: Schema) -> Schema:
    media: Schema = {kind: {"schema": {"type": "string"}} for kind in one.gives}
    if one.answers is not None:
        media[JSON] = {"schema": _of(one.answers, schemas)}
    success: Schema = {"description": one.about}
    if media:
        success["content"] = media
    if one.shows:
        success["headers"] = {name: {"schema": {"type": "string"}} for name in one.shows}
    told: Schema = {str(one.status): success}
    if one.again or (one.status != 200 and "dry_run" in one.query.model_fields):
        told["200"] = success
    refused = {PROBLEM: {"schema": _of(Problem, schemas)}}
    if one.media:  # What is no JSON may be refused with a verdict.
        refused[JSON] = {"schema": {"type": "object"}}
    for status in sorted(one.statuses):
        told[str(status)] = {"description": STATUSES[status], "content": refused}
    return told


def _of(kind: Any, schemas: Schema) -> Schema:
    made = TypeAdapter(kind).json_schema(ref_template=REF, mode="serialization")
    schemas |= made.pop("$defs", {})
    if "title" not in made:
        return made
    schemas[made["title"]] = made
    return {"$ref": REF.format(model=made["title"])}


def _without_suffix(node: Any) -> Any:
    """Name a schema `Customer` whose class is `CustomerResponse`: another class in the code has the short name."""
    if isinstance(node, dict):
        return {SUFFIX.sub("", key): _without_suffix(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_suffix(value) for value in node]
    return SUFFIX.sub("", node) if isinstance(node, str) else node


def _without_variables(schema: Schema) -> Schema:
    """Take out what config/schema.py adds to each form for `${VARIABLE}`."""
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        schema = {**schema, "pattern": pattern.removesuffix(r"|\$\{")}
    choices = schema.get("anyOf")
    if isinstance(choices, list):
        kept = [one for one in choices if one not in VARIABLES]
        schema = kept[0] if len(kept) == 1 and len(schema) == 1 else {**schema, "anyOf": kept}
    return schema


VARIABLES: list[Schema] = [{"type": "string", "pattern": r"\$\{"}, {"type": "string", "pattern": ""}]
