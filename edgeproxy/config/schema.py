"""The JSON Schemas of edge.yaml and collector.yaml, by which editors complete and check what operators write.

Made of the models. What a value looks like in a file is in `FORMS`, by the reader of its type; what it means is
the docstring below its field. Wherever a value is one text or number, a text with a `${VARIABLE}` may stand.
"""

import ast
import copy
import functools
import inspect
import itertools
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple, get_args

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from edgeproxy.config import (
    admin,
    alerts,
    anomalies,
    auth,
    billing,
    catalog,
    collector,
    compression,
    cors,
    credits,
    currencies,
    directory_settings,
    issuers,
    listeners,
    meters,
    methods,
    models,
    networks,
    operators,
    pages,
    parsers,
    paths,
    regions,
    rewrites,
    rules,
    timeouts,
    tokens,
    units,
)
from edgeproxy.config.dimensions import VALUES_MAX
from edgeproxy.config.part import Part

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
VARIABLE = r"\$\{"
"""What a text has that stands for something else."""

PORT = ":[0-9]{1,5}"

MODELS = (
    admin,
    auth,
    compression,
    cors,
    directory_settings,
    issuers,
    networks,
    paths,
    rewrites,
    rules,
    timeouts,
    models,
)
"""The modules with models, those that others import first."""
COLLECTOR_MODELS = (
    *(*MODELS, regions, operators, alerts, anomalies, credits, currencies, billing, pages, listeners, collector),
)
"""The same for collector.yaml: of two models of one name the last counts."""

ELSEWHERE = {
    "Limit": {"name"},
    "RouteLimit": {"name"},
    "KeyLimit": {"name"},
    "Key": {"sha256"},
    "EdgeFile": {"upstreams", "routes"},
}
"""Fields that a model must have in the end, and a file need not: another file has them, or a default is made."""
COLLECTOR_ELSEWHERE = {**ELSEWHERE, "CollectorFile": {"tokens"}}


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
ENDPOINT = build_text(r"https?://[^/?#@\s]+(/[^?#\s]*)?", "http://10.0.0.5:9001", "http://10.0.0.5:9001/api")
WEB_ORIGIN = r"[A-Za-z][A-Za-z0-9+.-]*://((\*\.)?([A-Za-z0-9_-]+\.)+[A-Za-z0-9_-]+|[A-Za-z0-9_-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
REDIS_AT = rf"(\[[0-9A-Fa-f:.]+\]|[^/?#@:,\[\]\s]+)({PORT})?"
HUB = build_text(
    rf"memory://|rediss?://([^/?#\s]*@)?{REDIS_AT}(/[0-9]{{0,5}})?"
    rf"|rediss?\+cluster://([^/?#\s]*@)?{REDIS_AT}(,{REDIS_AT})*/?",
    "memory://",
    "redis://localhost:6379/0",
    "redis+cluster://10.0.0.5:7000,10.0.0.6:7000",
)
LOG = build_text(rf"(?!({'|'.join(parsers.NO_LOGS)})$).*[^/]", "var/access.log")
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
    cors.read_origin: Form(
        always(build_text(rf"\*|(?!null$){WEB_ORIGIN}", "https://app.example.com", "https://*.example.com"))
    ),
    cors.read_header: Form(always(build_text(rf"\*|{parsers.FIELD_NAME.pattern}", "X-API-Key"))),
    parsers.read_name: Form(always(NAME)),
    parsers.read_dimension_name: Form(always(NAME)),
    parsers.read_dimension: Form(lambda inner: build_any_of(build_number(1, VALUES_MAX), inner)),
    parsers.read_scope: Form(always(build_text(parsers.SCOPE.pattern, "read"))),
    parsers.read_address: Form(always(ADDRESS)),
    parsers.read_network: Form(always(build_text(r"[0-9A-Fa-f:.]+(/[0-9]{1,3})?", "10.0.0.0/8"))),
    parsers.read_host: Form(always(build_text(r"(\*\.)?[A-Za-z0-9_.-]+", "api.example.com", "*.example.com"))),
    parsers.read_sent_host: Form(
        always(build_text(r"[A-Za-z0-9_.-]+(:[0-9]{1,5})?", "pass", "upstream", "api.internal"))
    ),
    parsers.read_path: Form(always(build_text(parsers.PATH.pattern, "/v1/orders", "/v1/*"))),
    parsers.read_method: Form(always(build_text(methods.TOKEN.pattern, "GET", "PROPFIND"))),
    parsers.read_protocol: Form(always(build_text(parsers.PROTOCOL.pattern, "websocket", "SPDY/3.1"))),
    parsers.read_origin: Form(always(ORIGIN)),
    parsers.read_collector: Form(always(build_text(URL, "http://127.0.0.1:9100"))),
    parsers.read_hub_url: Form(always(HUB)),
    parsers.read_hub: Form(lambda inner: build_any_of(HUB, inner), lambda hub: hub.url),
    parsers.read_target: Form(always(build_text(parsers.TARGET.pattern, "/healthz"))),
    parsers.read_server_name: Form(always(build_text(r"[A-Za-z0-9_.:-]+", "api.internal"))),
    parsers.read_file: Form(always(build_text(".+", "certs/edge.pem"))),
    parsers.read_log: Form(always(LOG)),
    parsers.read_unless_off: Form(lambda inner: build_any_of(OFF, inner), lambda _: None),
    parsers.read_or_off: Form(lambda inner: inner),
    parsers.read_field_name: Form(always(build_text(parsers.FIELD_NAME.pattern, "X-Cost"))),
    parsers.read_sentence: Form(always(build_text(r"[\s\S]*\S[\s\S]*"))),
    parsers.read_timezone: Form(
        always(build_text(rf"(?!({parsers.NO_TIMEZONES.pattern})$){parsers.TIMEZONE.pattern}", "UTC", "Europe/Berlin"))
    ),
    parsers.read_access_log: Form(lambda inner: build_any_of(OFF, LOG, inner), lambda _: "off"),
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
    collector.read_database: Form(
        always(build_text(r"sqlite:///.*[^/]|postgresql://.+", "sqlite:///var/collector/ledger.db"))
    ),
    collector.read_retention: Form(
        always(build_text(r"forever|[0-9]+ ?(day|d)", "400day", "forever")),
        lambda seconds: "forever" if seconds is None else f"{seconds / collector.DAY_SECONDS:g}day",
    ),
    billing.read_base: Form(always(build_text(r"https?://[^/?#@\s]+/?", billing.STRIPE))),
    billing.read_key_file: Form(always(build_text(r"(?!(sk|rk|pk|whsec)_).+", "/run/secrets/stripe")), lambda _: None),
    catalog.read_price: Form(always(build_text(catalog.PRICE.pattern, "0.10", "0.01/1000")), lambda _: None),
    currencies.read_code: Form(always(build_text(currencies.CODE.pattern, "EUR"))),
    currencies.read_rate: Form(always(build_text(currencies.RATE.pattern, "0.86"))),
    credits.read_account: Form(always(build_text(r"\S(.*\S)?", "200"))),
    operators.read_issuer: Form(always(build_text(r"https?://.+", "https://login.example.com"))),
    pages.read_mailbox: Form(always(build_text(pages.MAILBOX.pattern, "edge@example.com"))),
    regions.read_region_url: Form(always(build_text(r"https?://[^?#@\s]+", "https://eu.api.example.com/healthz"))),
    operators.read_word: Form(always(build_text(r"[\s\S]*\S[\s\S]*"))),
    tokens.read_digests: Form(lambda inner: build_any_of(DIGEST, {"type": "array", "items": DIGEST, "minItems": 1})),
    admin.read_admin: Form(lambda inner: build_any_of(build_words(admin.UNIX), ADDRESS, inner), lambda _: admin.UNIX),
    parsers.read_endpoint: Form(lambda inner: build_any_of(ENDPOINT, inner)),
    compression.read_media_type: Form(
        always(build_text(rf"(?i:{compression.MEDIA_TYPE.pattern})", "application/json"))
    ),
    compression.read_compress: Form(lambda inner: build_any_of(build_words("on", True), OFF, inner), lambda _: "off"),
    rewrites.read_base: Form(always(build_text(rf"(?!.*/\.\.?(/|$)){rewrites.BASE.pattern}", "/api"))),
    rewrites.read_value: Form(always(build_text(rewrites.VALUE.pattern))),
    rewrites.read_request_field: Form(always(build_text(parsers.FIELD_NAME.pattern, "Cookie"))),
    rewrites.read_set_request_field: Form(always(build_text(parsers.FIELD_NAME.pattern))),
    rewrites.read_response_field: Form(always(build_text(parsers.FIELD_NAME.pattern, "Server"))),
    rewrites.read_set_response_field: Form(always(build_text(parsers.FIELD_NAME.pattern))),
    rewrites.read_redirect_target: Form(
        always(build_text(f"https|(?!$){rewrites.WHERE.pattern}", "https", "https://www.example.com/*"))
    ),
    rewrites.read_redirect: Form(lambda inner: build_any_of(build_text(f"https|(?!$){rewrites.WHERE.pattern}"), inner)),
    rewrites.read_redirect_status: Form(lambda inner: inner, int),
    rewrites.read_fixed_status: Form(always(build_number(200, 599)), int),
    rewrites.read_content: Form(always({"type": "string"})),
    units.read_bytes: Form(always(build_text(SIZE, "10MiB"))),
    units.read_wait: Form(always(TIME), units.format_seconds),
    parsers.read_key_field: Form(always(build_text(parsers.KEY_FIELD.pattern, "X-API-Key"))),
    parsers.read_key_fields: Form(lambda inner: build_any_of(inner["items"], {**inner, "minItems": 1}), ", ".join),
    parsers.read_parameter: Form(always(build_text(parsers.PARAMETER.pattern, "none", "api_key")), lambda _: "none"),
    parsers.read_stripped: Form(always(build_text(parsers.STRIPPED.pattern, "X-Internal-*"))),
    parsers.read_strip_exception: Form(always(build_text(parsers.STRIPPED.pattern, "X-HTTP-Method-Override"))),
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
    auth.read_certificate_name: Form(always(build_text(r".+", "acme"))),
    auth.add_certificate_digest: Form(lambda inner: inner),
    meters.add_refusal_dimensions: Form(lambda inner: inner),
    issuers.read_jwks: Form(always(build_text(r"\S+", "https://id.example.com/.well-known/jwks.json", "keys.jwks"))),
    issuers.read_texts: Form(lambda inner: build_any_of(inner["items"], {**inner, "minItems": 1}), list),
    issuers.read_auth: Form(
        always(
            build_any_of(
                build_words("key", *get_args(models.RouteAuth)),
                {"type": "array", "items": {"enum": list(issuers.TAKEN)}, "minItems": 1},
            )
        )
    ),
    units.read_analytics: Form(always(TIME), lambda _: None),
    units.read_age: Form(always(build_any_of(build_words("none"), TIME)), lambda _: None),
    alerts.read_webhook: Form(always(build_text(r"https?://.+", "https://hooks.example.com/alerts"))),
    alerts.read_signing_secret: Form(always(build_text(r"whsec_.+"))),
    alerts.read_routing_key: Form(always(build_text(alerts.ROUTING_KEY.pattern))),
    alerts.read_smtp: Form(always(build_text(r"smtps?://.+", "smtps://USER:PASSWORD@mail.example.com:465"))),
    alerts.read_mail_address: Form(always(build_text(r".+@.+", "ops@example.com"))),
    alerts.read_one_or_many: Form(lambda inner: build_any_of(inner["items"], {**inner, "minItems": 1}), list),
    alerts.read_thresholds: Form(
        always(
            {
                "type": "array",
                "items": build_number(alerts.some_percent.lowest, alerts.some_percent.highest),
                "maxItems": alerts.THRESHOLDS_MAX,
            }
        ),
        list,
    ),
    anomalies.read_score: Form(always(build_text(anomalies.DECIMAL.pattern, "3.0")), str),
    anomalies.read_similarity: Form(always(build_text(anomalies.DECIMAL.pattern, "0.9")), str),
    anomalies.read_days: Form(
        always(build_text("[0-9]+ ?(day|d)", "90day")), lambda seconds: f"{seconds / anomalies.DAY_SECONDS:g}day"
    ),
    anomalies.read_pause_at: Form(
        always(build_any_of(OFF, build_text(anomalies.DECIMAL.pattern, "5"))),
        lambda times: "off" if times is None else f"{times:g}",
    ),
    directory_settings.read_public_key: Form(always(build_text("ed25519:[A-Za-z0-9+/]{43}="))),
    directory_settings.read_trust: Form(lambda inner: build_any_of(inner["items"], inner), list),
    directory_settings.read_cache_key: Form(lambda inner: build_any_of({"type": "string"}, inner), lambda _: None),
}
"""By the reader of a type, what its values look like."""


def get_form(reader: Hashable) -> Form:
    """Find the form of the values of this reader."""
    if isinstance(reader, units.Whole):
        return Form(always(build_number(reader.lowest, reader.highest)), int)
    if isinstance(reader, units.Size):
        return Form(always(build_text(SIZE, "32KiB")), units.format_size)
    if isinstance(reader, units.Time):
        return Form(always(TIME), units.format_seconds)
    return FORMS[reader]


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
        """A field is left out where it has no value; it is never written as null."""
        return self.generate_inner(schema["schema"])

    def literal_schema(self, schema: core_schema.LiteralSchema) -> Schema:
        """One of these words. `off` is a switch to readers of YAML 1.1."""
        expected = schema["expected"]
        return build_words(*expected, *([False] if "off" in expected else []))

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> Schema:
        """One of these, which say themselves which."""
        return build_any_of(*map(self.generate_inner, schema["choices"].values()))

    def dict_schema(self, schema: core_schema.DictSchema) -> Schema:
        """A mapping of names."""
        return {**super().dict_schema(schema), "additionalProperties": False}

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Names say enough."""
        return False


def build_edge_schema() -> Schema:
    """Make the JSON Schema of edge.yaml and of what it includes, draft 2020-12."""
    return _build_schema("edge.yaml", models.EdgeFile, MODELS, ELSEWHERE)


def build_collector_schema() -> Schema:
    """Make that of collector.yaml."""
    return _build_schema("collector.yaml", collector.CollectorFile, COLLECTOR_MODELS, COLLECTOR_ELSEWHERE)


def _build_schema(
    file: str, root: type[Part], modules: tuple[ModuleType, ...], elsewhere: Mapping[str, Collection[str]]
) -> Schema:
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
def collect_descriptions(modules: tuple[ModuleType, ...] = MODELS) -> dict[str, dict[str, str]]:
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
