"""JSON Schemas of the files, by which editors complete and check what operators write.

Made of the models (edge/schema.py, collector/schema.py). What a value looks like in a file is in `FORMS`, by the reader
of its type; what it means is the docstring below its field. Wherever a value is one text or number, a text with a
`${VARIABLE}` may stand.
"""

import ast
import copy
import functools
import inspect
import itertools
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from edgeproxy.config import addresses, certificate_names, hub_settings, meters, parsers, tokens, units
from edgeproxy.config.dimensions import VALUES_MAX
from edgeproxy.config.part import Part

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
VARIABLE = r"\$\{"
"""What a text has that stands for something else."""

PORT = ":[0-9]{1,5}"


class Form(NamedTuple):
    """What a value looks like in a file: its schema, made of the plain value's, and how to write a plain one."""

    schema: Callable[[Schema], Schema]
    written: Callable[[Any], Any] = str


def build_text(pattern: str, *examples: str) -> Schema:
    """Make the schema of a text that has this form, or a variable in it."""
    schema: Schema = {"type": "string", "pattern": f"^({pattern})$|{VARIABLE}"}
    return {**schema, "examples": list(examples)} if examples else schema


def build_any_of(*schemas: Schema) -> Schema:
    """Make the schema of a value that has one of these."""
    return {"anyOf": list(schemas)}


def build_words(*values: object) -> Schema:
    """Make the schema of one of these values, or of a variable for it."""
    return build_any_of({"enum": list(values)}, {"type": "string", "pattern": VARIABLE})


def build_number(lowest: int, highest: int) -> Schema:
    """Make the schema of a whole number between these two."""
    return build_any_of({"type": "integer", "minimum": lowest, "maximum": highest}, build_text("[0-9]+"))


def always(schema: Schema) -> Callable[[Schema], Schema]:
    """Ignore the plain value's schema, and use this one."""
    return lambda _: copy.deepcopy(schema)


NAME = build_text(parsers.NAME.pattern)
ADDRESS = build_text(rf"(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+){PORT}", "127.0.0.1:8080", "[::1]:8080")
URL = r"https?://[^/?#@\s]+/?"
ORIGIN = build_text(URL, "http://10.0.0.5:9001")
REDIS_AT = rf"(\[[0-9A-Fa-f:.]+\]|[^/?#@:,\[\]\s]+)({PORT})?"
HUB = build_text(
    rf"memory://|rediss?://([^/?#\s]*@)?{REDIS_AT}(/[0-9]{{0,5}})?"
    rf"|rediss?\+cluster://([^/?#\s]*@)?{REDIS_AT}(,{REDIS_AT})*/?",
    "memory://",
    "redis://localhost:6379/0",
    "redis+cluster://10.0.0.5:7000,10.0.0.6:7000",
)
OFF = build_words("off", False)
"""`off` is a switch to readers of YAML 1.1."""
TIME = build_text(rf"{units.NUMBER} ?({'|'.join(units.SECONDS)})", "250ms", "5s", "2min")
SIZE = rf"{units.NUMBER} ?({'|'.join(units.BYTES)})"
RATE = rf"{units.NUMBER} ?/ ?({units.NUMBER} ?)?({'|'.join(units.SECONDS)})"
AT_ONCE = build_any_of({"const": "none"}, build_number(units.some_at_once.lowest, units.some_at_once.highest))
DIGEST = build_text(parsers.DIGEST.pattern)
PAIRS = build_text(
    rf"|{parsers.NAME.pattern}:{parsers.DIGEST.pattern}( +{parsers.NAME.pattern}:{parsers.DIGEST.pattern})*"
)
WORKERS = build_any_of({"const": "auto"}, build_number(units.some_workers.lowest, units.some_workers.highest))

FORMS: dict[Hashable, Form] = {
    parsers.read_name: Form(always(NAME)),
    parsers.read_dimension_name: Form(always(NAME)),
    parsers.read_dimension: Form(lambda inner: build_any_of(build_number(1, VALUES_MAX), inner)),
    parsers.read_scope: Form(always(build_text(parsers.SCOPE.pattern, "read"))),
    addresses.read_address: Form(always(ADDRESS)),
    addresses.read_network: Form(always(build_text(r"[0-9A-Fa-f:.]+(/[0-9]{1,3})?", "10.0.0.0/8"))),
    addresses.read_origin: Form(always(ORIGIN)),
    addresses.read_collector: Form(always(build_text(URL, "http://127.0.0.1:9100"))),
    hub_settings.read_hub_url: Form(always(HUB)),
    hub_settings.read_hub: Form(lambda inner: build_any_of(HUB, inner), lambda hub: hub.url),
    parsers.read_target: Form(always(build_text(parsers.TARGET.pattern, "/healthz"))),
    addresses.read_server_name: Form(always(build_text(r"[A-Za-z0-9_.:-]+", "api.internal"))),
    parsers.read_file: Form(always(build_text(".+", "certs/edge.pem"))),
    parsers.read_unless_off: Form(lambda inner: build_any_of(OFF, inner), lambda _: None),
    parsers.read_or_off: Form(lambda inner: inner),
    parsers.read_field_name: Form(always(build_text(parsers.FIELD_NAME.pattern, "X-Cost"))),
    parsers.read_sentence: Form(always(build_text(r"[\s\S]*\S[\s\S]*"))),
    parsers.read_timezone: Form(
        always(build_text(rf"(?!({parsers.NO_TIMEZONES.pattern})$){parsers.TIMEZONE.pattern}", "UTC", "Europe/Berlin"))
    ),
    parsers.read_digest: Form(always(DIGEST)),
    parsers.read_folder: Form(always(build_text(".+", "var/edge"))),
    parsers.read_secret: Form(always({"type": "string"}), lambda _: None),
    parsers.read_token: Form(always(build_text(f"|{parsers.TOKEN.pattern}")), lambda _: None),
    parsers.read_one_or_more: Form(
        lambda inner: build_any_of(inner["items"], {**inner, "minItems": 1}), lambda members: str(members[0].address)
    ),
    parsers.read_listener: Form(lambda inner: build_any_of(ADDRESS, inner)),
    parsers.read_words: Form(lambda inner: build_any_of({"type": "string"}, inner), lambda _: None),
    tokens.read_pairs: Form(lambda inner: build_any_of(PAIRS, inner), lambda _: None),
    tokens.read_digests: Form(lambda inner: build_any_of(DIGEST, {"type": "array", "items": DIGEST, "minItems": 1})),
    units.read_bytes: Form(always(build_text(SIZE, "10MiB"))),
    units.read_wait: Form(always(TIME), units.format_seconds),
    units.read_duration: Form(always(TIME), units.format_seconds),
    units.read_share: Form(always(build_text(units.SHARE.pattern, "20%")), lambda share: f"{share * 100:g}%"),
    units.read_sample: Form(
        always(build_text(rf"(?!0+(\.0+)? ?%){units.SHARE.pattern}", "1%")), lambda share: f"{share * 100:g}%"
    ),
    units.read_body: Form(
        always(build_text(f"none|{SIZE}", "none", "10MiB")), lambda size: "none" if size is None else f"{size}B"
    ),
    units.read_rate: Form(always(build_text(RATE, "60/min", "100/10s"))),
    units.read_moment: Form(always(build_text(f"{units.DATE.pattern}|{units.MOMENT.pattern}", "2027-01-01"))),
    units.read_switch: Form(lambda inner: build_words(True, False) if "type" in inner else inner, bool),
    units.read_concurrency: Form(always(AT_ONCE), lambda _: "none"),
    units.read_own_concurrency: Form(always(AT_ONCE)),
    units.read_pause: Form(lambda inner: inner, int),
    units.read_workers: Form(always(WORKERS)),
    certificate_names.read_certificate_name: Form(always(build_text(r".+", "acme"))),
    certificate_names.add_certificate_digest: Form(lambda inner: inner),
    meters.add_refusal_dimensions: Form(lambda inner: inner),
    units.read_analytics: Form(always(TIME), lambda _: None),
    units.read_age: Form(always(build_any_of(build_words("none"), TIME)), lambda _: None),
}
"""By the reader of a type, what its values look like."""
UNKNOWN = Form(lambda inner: build_any_of(inner, {"type": "string"}))
"""The form of a reader that has no row: the plain value, or any text."""


def get_form(reader: Hashable) -> Form:
    """Find the form of the values of this reader."""
    if isinstance(reader, units.Whole):
        return Form(always(build_number(reader.lowest, reader.highest)), int)
    if isinstance(reader, units.Size):
        return Form(always(build_text(SIZE, "32KiB")), units.format_size)
    if isinstance(reader, units.Time):
        return Form(always(TIME), units.format_seconds)
    return FORMS.get(reader, UNKNOWN)


class Editor(GenerateJsonSchema):
    """Makes the schema of what is written, where pydantic's own would be of what was read."""

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> Schema:
        """Describe what the reader takes instead of what it returns."""
        return get_form(schema["function"]["function"]).schema(super().function_before_schema(schema))

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Schema:
        """Show the default as it would be written; those of whole parts are the defaults of their fields."""
        made = self.generate_inner(schema["schema"])
        default = schema.get("default")
        inner: Any = schema["schema"]
        if inner["type"] == "function-before" and "default" in schema:
            default = get_form(inner["function"]["function"]).written(default)
        if isinstance(default, str | int):
            made["default"] = default
        return made

    def nullable_schema(self, schema: core_schema.NullableSchema) -> Schema:
        """Leave out that a field may be null: one that has no value is not written."""
        return self.generate_inner(schema["schema"])

    def literal_schema(self, schema: core_schema.LiteralSchema) -> Schema:
        """Make the schema of one of these words. `off` is a switch to readers of YAML 1.1."""
        expected = schema["expected"]
        return build_words(*expected, *([False] if "off" in expected else []))

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> Schema:
        """Make the schema of one of these, which say themselves which."""
        return build_any_of(*map(self.generate_inner, schema["choices"].values()))

    def dict_schema(self, schema: core_schema.DictSchema) -> Schema:
        """Make the schema of a mapping of names."""
        return {**super().dict_schema(schema), "additionalProperties": False}

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Names say enough."""
        return False


def build_schema(
    file: str, root: type[Part], modules: tuple[ModuleType, ...], elsewhere: Mapping[str, Collection[str]]
) -> Schema:
    """Make the JSON Schema of a file and of what it includes, draft 2020-12.

    `modules` have its models, those that others import first; `elsewhere` are fields that a model must have in the end,
    and a file need not.
    """
    made = root.model_json_schema(schema_generator=Editor)
    parts = {root.__name__: made, **made["$defs"]}
    for name, part in parts.items():
        for field, meaning in collect_descriptions(modules)[name].items():
            part["properties"][field]["description"] = meaning
        needed = [field for field in part.get("required", ()) if field not in elsewhere.get(name, ())]
        part.pop("required", None)
        if needed:
            part["required"] = needed
    made["properties"]["include"] = {
        **build_any_of({"type": "string"}, {"type": "array", "items": {"type": "string"}}),
        "description": "Further files of this form, from where this file is.",
    }
    return {"$schema": DIALECT, "title": f"edgeproxy: {file}", **{k: v for k, v in made.items() if k != "title"}}


@functools.cache
def collect_descriptions(modules: tuple[ModuleType, ...]) -> dict[str, dict[str, str]]:
    """Collect the docstring below each field of each model, those of its parents included."""
    descriptions: dict[str, dict[str, str]] = {}
    for node in itertools.chain.from_iterable(ast.parse(inspect.getsource(module)).body for module in modules):
        if isinstance(node, ast.ClassDef):
            inherited = [descriptions.get(ast.unparse(parent), {}) for parent in node.bases]
            descriptions[node.name] = {field: text for fields in inherited for field, text in fields.items()}
            descriptions[node.name].update(_docstrings(node))
    return descriptions


def _docstrings(model: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(model.body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            yield ast.unparse(field.target).removesuffix("_"), str(ast.literal_eval(below.value))
