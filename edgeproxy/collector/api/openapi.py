"""The OpenAPI 3.1 description of the collector, generated from the table of endpoints and the validating models.

The text of a field is the docstring below it (api/descriptions.py). Its example follows from its type or is in
api/examples.yml (api/examples.py).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from edgeproxy import __version__
from edgeproxy.collector.api.descriptions import RESPONSE_HEADERS, add_texts
from edgeproxy.collector.api.endpoint import JSON, Endpoint, Nothing
from edgeproxy.collector.api.examples import Schema, add_examples
from edgeproxy.collector.api.group import Group
from edgeproxy.collector.api.responses import PROBLEM, Problem
from edgeproxy.config.forms import find_form
from edgeproxy.config.schema import FileSchema, remove_links

REF = "#/components/schemas/{model}"
SUFFIX = re.compile(r"(?<=[a-z])Response$")
PATH_PARAMETER = re.compile(r"\{([a-z_]+)\}")
ABOUT = (
    "Customers, keys, usage, limits and billing. Times are RFC 3339 in UTC. Descriptions of numbers name their "
    "units. Each field has an example; examples of answers are composed of these. Errors are problems (RFC 9457). "
    "Lists come in pages: send `next` as `cursor` for the next one."
)


class RequestSchema(FileSchema):
    """Generate the schema of a request. Unlike files, requests have no variables."""

    files = False

    def model_schema(self, schema: core_schema.ModelSchema) -> Schema:
        """Describe each field by the docstring below it, unless it has a description."""
        model: type[BaseModel] = schema["cls"]
        aliases = {name: field.alias for name, field in model.model_fields.items() if field.alias is not None}
        generated = add_texts(super().model_schema(schema), model, aliases)
        if "description" in generated:  # The second paragraph is about files.
            generated["description"] = generated["description"].partition("\n\n")[0]
        return generated

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> Schema:
        """Describe the accepted input. A reader without a form has its own schema (WithJsonSchema)."""
        if find_form(schema["function"]["function"]) is None:
            return self.generate_inner(schema["schema"])
        return _without_variables(super().function_before_schema(schema))

    def literal_schema(self, schema: core_schema.LiteralSchema) -> Schema:
        """Describe a choice of words."""
        return {"enum": list(schema["expected"])}

    def nullable_schema(self, schema: core_schema.NullableSchema) -> Schema:
        """Allow null, JSON's missing value."""
        return GenerateJsonSchema.nullable_schema(self, schema)


class ResponseSchema(GenerateJsonSchema):
    """Generate the schema of an answer."""

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> Schema:
        """Describe each field by the docstring below it."""
        generated = super().typed_dict_schema(schema)
        return add_texts(generated, schema["cls"], {}) if "cls" in schema else generated

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leave titles out, because the names of fields suffice."""
        return False


def build_description(table: Iterable[tuple[Group, Sequence[Endpoint]]]) -> Schema:
    """Build the OpenAPI document of endpoints by group."""
    groups = [(group, endpoints) for group, endpoints in table if endpoints]
    bodies = {body for _, endpoints in groups for endpoint in endpoints for body in _list_body_models(endpoint)}
    models = sorted(bodies, key=lambda model: model.__name__)
    refs, generated = models_json_schema(
        [(model, "validation") for model in models], ref_template=REF, schema_generator=RequestSchema
    )
    body_schemas: dict[object, Schema] = {model: refs[model, "validation"] for model in models}
    schemas: Schema = remove_links(generated.get("$defs", {}))
    paths: dict[str, Schema] = {}
    for group, endpoints in groups:
        for endpoint in endpoints:
            operation = _build_operation(group, endpoint, body_schemas, schemas)
            paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    document: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "edgeproxy collector",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "tags": [{"name": group.name, "description": group.description} for group, _ in groups],
        "paths": paths,
        "components": {
            "schemas": _select_used(paths, schemas),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }
    renamed: Schema = _strip_suffixes(document)
    add_examples(renamed)
    return renamed


def _list_body_models(endpoint: Endpoint) -> Iterator[type[BaseModel]]:
    for kind in (endpoint.body, *endpoint.request_media.values()):
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not Nothing:
            yield kind


def _build_operation(
    group: Group, endpoint: Endpoint, body_schemas: Mapping[object, Schema], schemas: Schema
) -> Schema:
    operation: Schema = {
        "operationId": endpoint.operation_id,
        "tags": [group.name],
        "summary": endpoint.summary,
        "parameters": [
            *_path_parameters(group, endpoint),
            *_query_parameters(endpoint.query, schemas),
            *_header_parameters(endpoint),
        ],
        "responses": _build_responses(endpoint, schemas),
    }
    if not endpoint.is_public:
        operation["security"] = [{"bearer": []}]
        operation["x-roles"] = sorted(endpoint.roles)
        operation["x-sensitive"] = endpoint.is_sensitive
    kinds = {JSON: endpoint.body} if endpoint.body is not Nothing else endpoint.request_media
    if kinds:
        media: Schema = {name: {"schema": _build_body(kind, body_schemas, schemas)} for name, kind in kinds.items()}
        if endpoint.example is not None:
            media[JSON]["example"] = endpoint.example
        operation["requestBody"] = {"required": endpoint.body is not Nothing, "content": media}
    return operation


def _build_body(kind: object, body_schemas: Mapping[object, Schema], schemas: Schema) -> Schema:
    if kind is bytes:
        return {"type": "string", "format": "binary"}
    return body_schemas[kind] if isinstance(kind, type) and kind in body_schemas else _build_schema(kind, schemas)


def _path_parameters(group: Group, endpoint: Endpoint) -> Iterator[Schema]:
    for name in PATH_PARAMETER.findall(endpoint.path):
        parameter = group.parameters[name]
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": parameter.description,
            "schema": parameter.schema,
        }


def _query_parameters(model: type[BaseModel], schemas: Schema) -> Iterator[Schema]:
    schema = model.model_json_schema(by_alias=True, ref_template=REF, schema_generator=RequestSchema)
    schemas |= schema.pop("$defs", {})
    for name, field in schema.get("properties", {}).items():
        about = {"description": field.pop("description")} if "description" in field else {}
        required = name in schema.get("required", ())
        yield {"name": name, "in": "query", "required": required, **about, "schema": _without_null(field)}


def _without_null(schema: Schema) -> Schema:
    """Return the schema of an optional parameter. A missing parameter is left out, never null."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    return choices[0] if len(choices) == 1 else {key: value for key, value in schema.items() if key != "title"}


def _header_parameters(endpoint: Endpoint) -> Iterator[Schema]:
    for name, field in endpoint.all_headers.items():
        yield {
            "name": name,
            "in": "header",
            "required": field.required,
            "description": field.description,
            "schema": field.schema,
        }


def _build_responses(endpoint: Endpoint, schemas: Schema) -> Schema:
    media: Schema = {}
    if endpoint.response is not None:
        media[JSON] = {"schema": _build_schema(endpoint.response, schemas)}
    media |= {kind: {"schema": {"type": "string"}} for kind in endpoint.response_media}
    success: Schema = {"description": endpoint.summary}
    if media:
        success["content"] = media
    if endpoint.all_response_headers:
        success["headers"] = {
            name: {"description": RESPONSE_HEADERS[name], "schema": {"type": "string"}}
            for name in endpoint.all_response_headers
        }
    responses: Schema = {str(endpoint.status): success}
    if endpoint.may_be_200 or (endpoint.status != 200 and "dry_run" in endpoint.query.model_fields):
        responses["200"] = success
    problem = {PROBLEM: {"schema": _build_schema(Problem, schemas)}}
    if endpoint.request_media:  # A body other than JSON may be refused with a verdict.
        problem[JSON] = {"schema": {"type": "object"}}
    for status, meaning in endpoint.all_errors.items():
        responses[str(status)] = {"description": meaning, "content": problem}
    return responses


def _build_schema(kind: Any, schemas: Schema) -> Schema:
    """Return the schema of an answer. A named schema is added to `schemas`, and a reference is returned."""
    name = getattr(kind, "__name__", "")
    if name in schemas:  # Half of the calls are for the error of each endpoint.
        return {"$ref": REF.format(model=name)}
    adapter = TypeAdapter(kind)
    schema = adapter.json_schema(ref_template=REF, mode="serialization", schema_generator=ResponseSchema)
    schemas |= schema.pop("$defs", {})
    if "title" not in schema:
        return schema
    schemas[schema["title"]] = schema
    return {"$ref": REF.format(model=schema["title"])}


def _select_used(paths: Schema, schemas: Schema) -> Schema:
    """Return the schemas that paths refer to, directly or indirectly, in the order of `schemas`."""
    used: set[str] = set()
    waiting = [*_references(paths)]
    while waiting:
        name = waiting.pop()
        if name not in used:
            used.add(name)
            waiting += _references(schemas[name])
    return {name: schema for name, schema in schemas.items() if name in used}


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].rpartition("/")[2]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _strip_suffixes(node: Any) -> Any:
    """Name the schema of class `CustomerResponse` just `Customer`. In the code another class has the short name."""
    if isinstance(node, dict):
        return {SUFFIX.sub("", key): _strip_suffixes(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_strip_suffixes(value) for value in node]
    return SUFFIX.sub("", node) if isinstance(node, str) else node


def _without_variables(schema: Schema) -> Schema:
    """Return a schema without the title of its form and without alternatives for `${VARIABLE}`."""
    schema.pop("title", None)
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        schema = {**schema, "pattern": pattern.removesuffix(r"|\$\{")}
    choices = schema.get("anyOf")
    if isinstance(choices, list):
        plain = [choice for choice in choices if choice not in VARIABLES]
        for choice in plain:
            choice.pop("title", None)
        schema = plain[0] if len(plain) == 1 and len(schema) == 1 else {**schema, "anyOf": plain}
    return schema


VARIABLES: list[Schema] = [{"type": "string", "pattern": r"\$\{"}, {"type": "string", "pattern": ""}]
