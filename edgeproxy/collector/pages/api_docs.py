"""The reference of the owner's API, generated from its OpenAPI 3 description. Pure.

The description is untrusted. It is displayed as text, and only references within it are followed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import orjson

from edgeproxy.base.json_values import JsonObject, JsonValue
from edgeproxy.base.snippets import build_python, build_typescript

METHODS = ("get", "head", "post", "put", "patch", "delete", "options")
OPERATIONS_MAX = 2000
FIELDS_MAX = 200
"""Fields of a body. Further ones are left out, and the page says so."""
DEPTH_MAX = 6
CHOICES_DEPTH_MAX = 3
"""Nested choices and lists in the description of a field's type."""
REFERENCES_MAX = 16
"""Longest chain of references."""
SLUG = re.compile(r"[A-Za-z0-9_.-]{1,80}")
EXAMPLE_BYTES_MAX = 20_000
EXAMPLE_FORM = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
"""Names in YAML may be numbers, for example statuses."""


class ApiField(NamedTuple):
    """A parameter, or a field of a body."""

    name: str
    """With the names of its parent objects: `items[].price`."""
    kind: str
    place: str
    """The place of a parameter: path, query, header; empty for a field."""
    is_required: bool
    text: str


class ApiBody(NamedTuple):
    """The body of a request or an answer in one media type."""

    media: str
    kind: str
    fields: Sequence[ApiField]
    is_cut: bool
    """True if there are more fields than shown."""
    example: str


class ApiAnswer(NamedTuple):
    """An answer by its status."""

    status: str
    text: str
    bodies: Sequence[ApiBody]


class ApiOperation(NamedTuple):
    """An operation for display."""

    slug: str
    method: str
    path: str
    title: str
    text: str
    is_deprecated: bool
    parameters: Sequence[ApiField]
    bodies: Sequence[ApiBody]
    answers: Sequence[ApiAnswer]


class ApiSection(NamedTuple):
    """The operations of a tag."""

    name: str
    text: str
    operations: Sequence[ApiOperation]


class ApiReference(NamedTuple):
    """The whole reference."""

    title: str
    version: str
    text: str
    sections: Sequence[ApiSection]

    def find(self, slug: str) -> ApiOperation | None:
        """Return the operation with this slug, or None."""
        return next(
            (operation for section in self.sections for operation in section.operations if operation.slug == slug), None
        )


def build_reference(document: JsonObject) -> ApiReference:
    """Return the reference of a description. Parts that are no valid OpenAPI are left out."""
    reader = _Reader(document)
    info = _table(document.get("info"))
    texts = {_text(tag.get("name")): _text(tag.get("description")) for tag in map(_table, _list(document.get("tags")))}
    by_tag: dict[str, list[ApiOperation]] = {}
    slugs: set[str] = set()
    for method, path, tag, operation in list(reader.list_operations())[:OPERATIONS_MAX]:
        made = reader.read_operation(method, path, operation)
        slug = made.slug if made.slug not in slugs else f"{made.slug[:70]}-{len(slugs)}"
        slugs.add(slug)
        by_tag.setdefault(tag, []).append(made._replace(slug=slug))
    ranked = sorted(by_tag, key=lambda tag: (list(texts).index(tag) if tag in texts else len(texts), tag == ""))
    sections = [ApiSection(tag, texts.get(tag, ""), by_tag[tag]) for tag in ranked]
    return ApiReference(_text(info.get("title")), _text(info.get("version")), _text(info.get("description")), sections)


class _Reader:
    """Reads the parts of a description."""

    def __init__(self, document: JsonObject) -> None:
        self._document = document

    def list_operations(self) -> Iterator[tuple[str, str, str, JsonObject]]:
        """Yield the method, the path, the first tag and the description of each operation."""
        for path, value in _table(self._document.get("paths")).items():
            item = self._follow(value)
            for method in METHODS:
                operation = _table(item.get(method))
                if operation:
                    shared = [*_list(item.get("parameters")), *_list(operation.get("parameters"))]
                    tag = next(map(_text, _list(operation.get("tags"))), "")
                    yield method.upper(), path, tag, {**operation, "parameters": shared}

    def read_operation(self, method: str, path: str, operation: JsonObject) -> ApiOperation:
        """Return an operation."""
        name = _text(operation.get("operationId"))
        fallback = re.sub(r"[^A-Za-z0-9]+", "-", f"{method}{path}").strip("-").lower()[:70]
        parameters = {}
        for parameter in map(self._follow, _list(operation.get("parameters"))):
            field = self._read_parameter(parameter)
            parameters[field.name, field.place] = field
        return ApiOperation(
            slug=name if SLUG.fullmatch(name) else fallback or "operation",
            method=method,
            path=path,
            title=_text(operation.get("summary")) or name,
            text=_text(operation.get("description")),
            is_deprecated=operation.get("deprecated") is True,
            parameters=list(parameters.values()),
            bodies=self._read_bodies(self._follow(operation.get("requestBody"))),
            answers=[
                ApiAnswer(str(status), _text(answer.get("description")), self._read_bodies(answer))
                for status, answer in ((s, self._follow(a)) for s, a in _table(operation.get("responses")).items())
            ],
        )

    def _read_parameter(self, parameter: JsonObject) -> ApiField:
        schema = self._follow(parameter.get("schema"))
        return ApiField(
            _text(parameter.get("name")),
            self._describe(schema),
            _text(parameter.get("in")),
            parameter.get("required") is True,
            _text(parameter.get("description")) or _text(schema.get("description")),
        )

    def _read_bodies(self, container: JsonObject) -> list[ApiBody]:
        bodies = []
        for media, value in _table(container.get("content")).items():
            content = _table(value)
            schema = self._follow(content.get("schema"))
            fields = list(islice(self._list_fields(schema, "", 0), FIELDS_MAX + 1))
            examples = [self._follow(one).get("value") for one in _table(content.get("examples")).values()]
            example = content.get("example", next(iter(examples), schema.get("example")))
            written = "" if example is None else orjson.dumps(example, option=EXAMPLE_FORM).decode()
            shown = written if len(written) <= EXAMPLE_BYTES_MAX else ""
            bodies.append(ApiBody(media, self._describe(schema), fields[:FIELDS_MAX], len(fields) > FIELDS_MAX, shown))
        return bodies

    def _list_fields(self, schema: JsonObject, prefix: str, depth: int) -> Iterator[ApiField]:
        """Yield the fields of a schema, and nested fields."""
        if depth >= DEPTH_MAX:
            return
        for part in (schema, *(self._follow(part) for part in _list(schema.get("allOf")))):
            required = _list(part.get("required"))
            for name, value in _table(part.get("properties")).items():
                inner = self._follow(value)
                yield ApiField(
                    f"{prefix}{name}", self._describe(inner), "", name in required, _text(inner.get("description"))
                )
                yield from self._list_fields(inner, f"{prefix}{name}.", depth + 1)
        if schema.get("type") == "array":
            items = self._follow(schema.get("items"))
            yield from self._list_fields(items, f"{prefix.removesuffix('.')}[].", depth + 1)

    def _describe(self, schema: JsonObject, depth: int = 0) -> str:
        """Return the type of a schema in terms of JSON Schema."""
        if depth >= CHOICES_DEPTH_MAX:
            return "…"
        if choices := _list(schema.get("enum")):
            return " | ".join(orjson.dumps(choice).decode() for choice in choices[:20])
        for several in ("oneOf", "anyOf"):
            if choices := _list(schema.get(several)):
                return " | ".join(
                    dict.fromkeys(self._describe(self._follow(choice), depth + 1) for choice in choices[:10])
                )
        kind = schema.get("type")
        if kind == "array":
            return f"array of {self._describe(self._follow(schema.get('items')), depth + 1)}"
        names = " | ".join(map(_text, kind)) if isinstance(kind, list) else _text(kind)
        form = _text(schema.get("format"))
        return (names or ("object" if "properties" in schema or "allOf" in schema else "any")) + (
            f" ({form})" if form else ""
        )

    def _follow(self, value: JsonValue) -> JsonObject:
        """Follow a value's references within the description. Return the object, or an empty one if there is none."""
        for _ in range(REFERENCES_MAX):
            table = _table(value)
            reference = table.get("$ref")
            if not isinstance(reference, str):
                return table
            if not reference.startswith("#/"):
                return {"type": "object", "description": reference}
            value = self._document
            for step in reference[2:].split("/"):
                value = _table(value).get(step.replace("~1", "/").replace("~0", "~"))
        return {}


def _table(value: JsonValue) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _list(value: JsonValue) -> list[JsonValue]:
    return list(value) if isinstance(value, list) else []


def _text(value: JsonValue) -> str:
    if isinstance(value, str):
        return value.strip()
    return "" if value is None or isinstance(value, dict | list) else str(value)


# ---- commands


def build_commands(url: str, method: str, path: str, field: str, key: str, body: JsonValue = None) -> Mapping[str, str]:
    """Return a request with a key as commands of curl, Python and TypeScript, by language.

    `key` is a generated key or a placeholder. It has only letters, digits, `_` and `-`. `path` has no quotes.
    """
    headers = {field: f"Bearer {key}" if field.lower() == "authorization" else key}
    lines = [f"curl {'-I' if method == 'HEAD' else f'-i -X {method}'} '{url}{path}'"]
    if body is not None:
        headers["Content-Type"] = "application/json"
    lines += [f"-H '{name}: {value}'" for name, value in headers.items()]
    if body is not None:
        written = orjson.dumps(body, option=EXAMPLE_FORM).decode().replace("'", r"'\''")
        lines.append(f"-d '{written}'")
    return {
        "curl": " \\\n  ".join(lines),
        "Python": build_python(method, f"{url}{path}", headers, body),
        "TypeScript": build_typescript(method, f"{url}{path}", headers, body),
    }
