"""The API reference for people, read from the OpenAPI description, and its form as Markdown."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias, cast

from edgeproxy.base.json_values import JsonValue
from edgeproxy.base.snippets import build_python, build_typescript
from edgeproxy.collector.api.endpoint import COMMON_ERRORS

Schema: TypeAlias = "Mapping[str, object]"
JSON = "application/json"
HOST = "https://collector.example"
REFERENCE = re.compile(r'"#/components/schemas/(\w+)"')
ANY_JSON = "JsonValue"
"""A schema that is not shown."""
CLIENT_SNIPPETS: Mapping[str, str] = {
    "POST /v1/events": f"""from edgeproxy.client import EventClient

client = EventClient("{HOST}", "TOKEN", queue="/var/lib/app/events", source="app")
client.report("acme", "llm_tokens", 1200, dimensions={{"model": "large"}})
client.close()"""
}
"""The Python of operations for which the package has a client (edgeproxy/client)."""


class Field(NamedTuple):
    """A parameter of a request, or a field of JSON."""

    name: str
    kind: str
    """The type of the field in words."""
    link: str | None
    """The schema that its type refers to."""
    is_required: bool
    description: str
    example: str | None = None
    """An example of a JSON field, as JSON; None if the field refers to a schema with examples."""
    place: str = ""
    """The place of a parameter: path, query or header."""


class Content(NamedTuple):
    """The content of a request or of an answer."""

    media: str
    kind: str
    link: str | None
    example: str | None
    """An example of a JSON answer."""


class Request(NamedTuple):
    """A request with the required parameters of an operation."""

    url: str
    headers: Mapping[str, str]
    body: JsonValue
    """The JSON body; None if there is none."""
    has_file: bool
    """True if the body is bytes from a file."""


class Operation(NamedTuple):
    """An operation for rendering."""

    id: str
    method: str
    path: str
    summary: str
    access: str
    """The callers that may use the operation, as a text."""
    snippets: Mapping[str, str]
    """The request as code, by language."""
    sent: str | None
    """An example of the JSON body."""
    may_try: bool
    """False if the body is not JSON."""
    parameters: list[Field]
    bodies: list[Content]
    status: str
    answers: list[Content]
    errors: list[tuple[str, str]]
    """The error statuses, with their meanings if these differ from the usual ones."""


class Record(NamedTuple):
    """A schema for rendering."""

    name: str
    description: str
    fields: list[Field]
    choices: list[str]


class Section(NamedTuple):
    """The operations of a tag."""

    name: str
    description: str
    operations: list[Operation]
    records: list[Record]
    """The schemas that the operations refer to, directly or not."""


def _as_schema(value: object) -> Schema:
    return cast(Schema, value) if isinstance(value, dict) else {}


def _list_schemas(value: object) -> list[Schema]:
    return [_as_schema(item) for item in value] if isinstance(value, list) else []


class Reference:
    """The content of the reference, read from an OpenAPI document."""

    def __init__(self, document: Schema) -> None:
        self._schemas = _as_schema(_as_schema(document["components"])["schemas"])
        self.title = f"API of the collector, version {_as_schema(document['info'])['version']}"
        self.about = str(_as_schema(document["info"])["description"])
        operations: dict[str, list[Operation]] = {}
        described: dict[str, list[Schema]] = {}
        for path, methods in _as_schema(document["paths"]).items():
            for method, value in _as_schema(methods).items():
                operation = _as_schema(value)
                (tag,) = cast(list[str], operation["tags"])
                operations.setdefault(tag, []).append(self._read_operation(method.upper(), path, operation))
                described.setdefault(tag, []).append(operation)
        records = {name: self._read_record(name) for name in sorted(self._schemas) if name != ANY_JSON}
        self.records = list(records.values())
        links = {name: _list_links(schema) for name, schema in self._schemas.items()}
        self.sections = []
        for about in _list_schemas(document["tags"]):
            name = str(about["name"])
            used, left = set[str](), _list_links(described[name])
            while left:
                used |= left
                left = set[str]().union(*(links[link] for link in left)) - used
            shown = [records[link] for link in sorted(used - {ANY_JSON})]
            self.sections.append(Section(name, str(about["description"]), operations[name], shown))

    def _read_operation(self, method: str, path: str, operation: Schema) -> Operation:
        responses = _as_schema(operation["responses"])
        success = max(status for status in responses if status < "400")
        errors = []
        for status, response in responses.items():
            meaning = str(_as_schema(response)["description"])
            if status >= "400":
                errors.append((status, "" if meaning == COMMON_ERRORS.get(int(status)) else meaning))
        roles = cast(list[str], operation.get("x-roles", []))
        access = f"Roles: {', '.join(roles)}." if roles else "Anyone, without a token."
        if operation.get("x-sensitive"):
            access += " It is sensitive: people need a second factor, tokens need `sensitive: true`."
        request = self._build_request(path, operation)
        return Operation(
            id=str(operation["operationId"]),
            method=method,
            path=path,
            summary=str(operation["summary"]),
            access=access,
            snippets={
                "curl": _build_curl(method, request),
                "Python": CLIENT_SNIPPETS.get(f"{method} {path}")
                or build_python(method, request.url, request.headers, request.body),
                "TypeScript": build_typescript(method, request.url, request.headers, request.body),
            },
            sent=None if request.body is None else json.dumps(request.body, indent=2),
            may_try=not request.has_file,
            parameters=[self._read_parameter(parameter) for parameter in _list_schemas(operation["parameters"])],
            bodies=self._read_bodies(operation.get("requestBody")),
            status=success,
            answers=self._read_bodies(responses[success]),
            errors=errors,
        )

    def _read_parameter(self, parameter: Schema) -> Field:
        schema = _as_schema(parameter["schema"])
        kind = f"{self._describe(schema)[0]}, in the {parameter['in']}"
        description = str(parameter["description"])
        name, place = str(parameter["name"]), str(parameter["in"])
        return Field(name, kind, None, bool(parameter["required"]), description, place=place)

    def _read_bodies(self, container: object) -> list[Content]:
        content = _as_schema(_as_schema(container).get("content"))
        contents = ((media, _as_schema(value)) for media, value in content.items())
        return [
            Content(
                media,
                *self._describe(_as_schema(value["schema"])),
                json.dumps(value["example"], indent=2) if "example" in value else None,
            )
            for media, value in contents
        ]

    def _read_record(self, name: str) -> Record:
        schema = _as_schema(self._schemas[name])
        required = cast(list[str], schema.get("required", []))
        fields = [
            Field(
                field,
                *self._describe(_as_schema(shape)),
                field in required,
                str(_as_schema(shape).get("description", "")),
                next(map(json.dumps, cast(list[object], _as_schema(shape).get("examples", []))), None),
            )
            for field, shape in _as_schema(schema.get("properties")).items()
        ]
        choices = [json.dumps(choice) for choice in cast(list[object], schema.get("enum", []))]
        return Record(name, " ".join(str(schema.get("description", "")).split()), fields, choices)

    def _describe(self, schema: Schema) -> tuple[str, str | None]:
        """Return the type of a schema as a text, and the name of the schema that it refers to."""
        if "$ref" in schema:
            name = str(schema["$ref"]).rpartition("/")[2]
            return ("any JSON", None) if name == ANY_JSON else (name, name)
        if "enum" in schema:
            return " or ".join(f"`{choice}`" for choice in cast(list[object], schema["enum"])), None
        if "const" in schema:
            return f"`{schema['const']}`", None
        choices = _list_schemas(schema.get("anyOf")) or _list_schemas(schema.get("oneOf"))
        if choices and "properties" not in schema:
            described = [self._describe(choice) for choice in choices]
            return " or ".join(kind for kind, _ in described), next((link for _, link in described if link), None)
        if schema.get("type") == "array":
            kind, link = self._describe(_as_schema(schema.get("items")))
            return f"list of {kind}", link
        if schema.get("type") == "object" and "additionalProperties" in schema:
            kind, link = self._describe(_as_schema(schema["additionalProperties"]))
            return f"{kind} by name", link
        form = f" ({schema['format']})" if "format" in schema else ""
        return f"{schema.get('type', 'any JSON')}{form}", None

    # ---- examples

    def _build_request(self, path: str, operation: Schema) -> Request:
        """Return a request with the required parameters of an operation."""
        query, headers = [], {}
        if "security" in operation:
            headers["Authorization"] = "Bearer TOKEN"
        for parameter in _list_schemas(operation["parameters"]):
            name, place = str(parameter["name"]), parameter["in"]
            if parameter["required"] and place == "query":
                query.append(f"{name}={str(name).upper()}")
            elif parameter["required"] and place == "header":
                headers[name] = name.upper().replace("-", "_")
            elif place == "path":
                path = path.replace(f"{{{name}}}", name.upper())
        content = _as_schema(_as_schema(operation.get("requestBody")).get("content"))
        body = None
        if JSON in content:
            headers["Content-Type"] = JSON
            body = cast(JsonValue, _as_schema(content[JSON]).get("example", {}))
        address = f"{HOST}{path}" + (f"?{'&'.join(query)}" if query else "")
        return Request(address, headers, body, has_file=bool(content) and JSON not in content)


def _list_links(schema: object) -> set[str]:
    """Return the names of the schemas that a part of the document refers to."""
    return set(REFERENCE.findall(json.dumps(schema)))


def _build_curl(method: str, request: Request) -> str:
    lines = [f"curl -X {method}" if method != "GET" else "curl"]
    lines += [f"-H '{name}: {value}'" for name, value in request.headers.items()]
    if request.body is not None:
        lines.append("-d '" + json.dumps(request.body).replace("'", r"'\''") + "'")
    elif request.has_file:
        lines.append("--data-binary @FILE")
    return " \\\n  ".join([*lines, f"'{request.url}'"])


def render_markdown(document: Schema) -> str:
    """Return the reference of a description as Markdown."""
    reference = Reference(document)
    return "\n".join([*_render_sections(reference), *_render_records(reference)]) + "\n"


def _render_sections(reference: Reference) -> Iterator[str]:
    yield f"# {reference.title.partition(',')[0]}\n"
    yield "`scripts/api-page` makes this page from the API's description. A collector serves the description as"
    yield f"`/v1/openapi.json`, and this reference as `/docs`.\n\n{reference.about}\n\n| error | |\n|---|---|"
    yield from (f"| {status} | {meaning} |" for status, meaning in COMMON_ERRORS.items())
    yield ""
    for section in reference.sections:
        yield f"- [{section.name}](#{section.name}): {section.description}"
    yield "- [types](#types)"
    for section in reference.sections:
        yield f"\n## {section.name}\n\n{section.description}"
        for operation in section.operations:
            yield from _render_operation(operation)


def _render_operation(operation: Operation) -> Iterator[str]:
    yield f"\n### {operation.method} {operation.path}\n\n{operation.summary} {operation.access}\n"
    yield f"```sh\n{operation.snippets['curl']}\n```\n"
    if operation.parameters:
        yield "| parameter | type | |\n|---|---|---|"
        yield from (_render_field(field) for field in operation.parameters)
        yield ""
    for name, bodies in (("Request", operation.bodies), (f"Answer {operation.status}", operation.answers)):
        kinds = ", or ".join(f"{_render_kind(body.kind, body.link)} (`{body.media}`)" for body in bodies)
        if kinds or name != "Request":
            yield f"{name}: {kinds or 'no content'}.\n"
    for example in (body.example for body in operation.answers if body.example is not None):
        yield f"<details><summary>An example</summary>\n\n```json\n{example}\n```\n\n</details>\n"
    yield f"Errors: {', '.join(status for status, _ in operation.errors)}."
    yield from (f"{status}: {meaning}" for status, meaning in operation.errors if meaning)


def _render_records(reference: Reference) -> Iterator[str]:
    yield "\n## types"
    for record in reference.records:
        yield f"\n### {record.name}\n\n{record.description}"
        if record.choices:
            yield "\n" + ", ".join(f"`{choice}`" for choice in record.choices)
        if record.fields:
            yield "\n| field | type | example | |\n|---|---|---|---|"
            yield from (_render_field(field, with_example=True) for field in record.fields)


def _render_field(field: Field, *, with_example: bool = False) -> str:
    name = f"`{field.name}`" + ("" if field.is_required else " (optional)")
    example = f" {'' if field.example is None else f'`{field.example}`'} |" if with_example else ""
    kind = _render_kind(field.kind, field.link)
    return f"| {name} | {kind} |{example} {field.description} |".replace("|  |", "| |")


def _render_kind(kind: str, link: str | None) -> str:
    return kind if link is None else kind.replace(link, f"[{link}](#{link.lower()})", 1)
