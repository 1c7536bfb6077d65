"""The JSON Schema of edge.yaml."""

from typing import get_args

from edgeproxy.config import (
    customers,
    hub_settings,
    limits,
    meters,
    networks,
    parsers,
    tiers,
    tls,
    tokens,
)
from edgeproxy.config.edge import (
    admin,
    auth,
    compression,
    cors,
    directory_settings,
    issuers,
    listeners,
    methods,
    paths,
    readers,
    rewrites,
    routes,
    rules,
    settings,
    timeouts,
    upstreams,
    usage,
)
from edgeproxy.config.schema import (
    ADDRESS,
    FORMS,
    OFF,
    Form,
    Schema,
    always,
    build_any_of,
    build_number,
    build_schema,
    build_text,
    build_words,
)

MODELS = (
    tokens,
    networks,
    tls,
    hub_settings,
    limits,
    meters,
    tiers,
    customers,
    admin,
    auth,
    compression,
    cors,
    directory_settings,
    issuers,
    paths,
    rewrites,
    rules,
    timeouts,
    upstreams,
    routes,
    usage,
    listeners,
    settings,
)
"""The modules with models, those that others import first."""
ELSEWHERE = {
    "Limit": {"name"},
    "RouteLimit": {"name"},
    "KeyLimit": {"name"},
    "Key": {"sha256"},
    "EdgeFile": {"upstreams", "routes"},
}
"""Fields that a model must have in the end, and a file need not: another file has them, or a default is made."""

WEB_ORIGIN = r"[A-Za-z][A-Za-z0-9+.-]*://((\*\.)?([A-Za-z0-9_-]+\.)+[A-Za-z0-9_-]+|[A-Za-z0-9_-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
ENDPOINT = build_text(r"https?://[^/?#@\s]+(/[^?#\s]*)?", "http://10.0.0.5:9001", "http://10.0.0.5:9001/api")
LOG = build_text(rf"(?!({'|'.join(readers.NO_LOGS)})$).*[^/]", "var/access.log")

FORMS.update(
    {
        cors.read_origin: Form(
            always(build_text(rf"\*|(?!null$){WEB_ORIGIN}", "https://app.example.com", "https://*.example.com"))
        ),
        cors.read_header: Form(always(build_text(rf"\*|{parsers.FIELD_NAME.pattern}", "X-API-Key"))),
        readers.read_host: Form(always(build_text(r"(\*\.)?[A-Za-z0-9_.-]+", "api.example.com", "*.example.com"))),
        readers.read_sent_host: Form(
            always(build_text(r"[A-Za-z0-9_.-]+(:[0-9]{1,5})?", "pass", "upstream", "api.internal"))
        ),
        readers.read_path: Form(always(build_text(readers.PATH.pattern, "/v1/orders", "/v1/*"))),
        readers.read_method: Form(always(build_text(methods.TOKEN.pattern, "GET", "PROPFIND"))),
        readers.read_protocol: Form(always(build_text(readers.PROTOCOL.pattern, "websocket", "SPDY/3.1"))),
        readers.read_log: Form(always(LOG)),
        readers.read_access_log: Form(lambda inner: build_any_of(OFF, LOG, inner), lambda _: "off"),
        admin.read_admin: Form(
            lambda inner: build_any_of(build_words(admin.UNIX), ADDRESS, inner), lambda _: admin.UNIX
        ),
        readers.read_endpoint: Form(lambda inner: build_any_of(ENDPOINT, inner)),
        compression.read_media_type: Form(
            always(build_text(rf"(?i:{compression.MEDIA_TYPE.pattern})", "application/json"))
        ),
        compression.read_compress: Form(
            lambda inner: build_any_of(build_words("on", True), OFF, inner), lambda _: "off"
        ),
        rewrites.read_base: Form(always(build_text(rf"(?!.*/\.\.?(/|$)){rewrites.BASE.pattern}", "/api"))),
        rewrites.read_value: Form(always(build_text(rewrites.VALUE.pattern))),
        rewrites.read_request_field: Form(always(build_text(parsers.FIELD_NAME.pattern, "Cookie"))),
        rewrites.read_set_request_field: Form(always(build_text(parsers.FIELD_NAME.pattern))),
        rewrites.read_response_field: Form(always(build_text(parsers.FIELD_NAME.pattern, "Server"))),
        rewrites.read_set_response_field: Form(always(build_text(parsers.FIELD_NAME.pattern))),
        rewrites.read_redirect_target: Form(
            always(build_text(f"https|(?!$){rewrites.WHERE.pattern}", "https", "https://www.example.com/*"))
        ),
        rewrites.read_redirect: Form(
            lambda inner: build_any_of(build_text(f"https|(?!$){rewrites.WHERE.pattern}"), inner)
        ),
        rewrites.read_redirect_status: Form(lambda inner: inner, int),
        rewrites.read_fixed_status: Form(always(build_number(200, 599)), int),
        rewrites.read_content: Form(always({"type": "string"})),
        readers.read_key_field: Form(always(build_text(readers.KEY_FIELD.pattern, "X-API-Key"))),
        readers.read_key_fields: Form(lambda inner: build_any_of(inner["items"], {**inner, "minItems": 1}), ", ".join),
        readers.read_parameter: Form(
            always(build_text(readers.PARAMETER.pattern, "none", "api_key")), lambda _: "none"
        ),
        readers.read_stripped: Form(always(build_text(readers.STRIPPED.pattern, "X-Internal-*"))),
        readers.read_strip_exception: Form(always(build_text(readers.STRIPPED.pattern, "X-HTTP-Method-Override"))),
        issuers.read_jwks: Form(
            always(build_text(r"\S+", "https://id.example.com/.well-known/jwks.json", "keys.jwks"))
        ),
        issuers.read_texts: Form(lambda inner: build_any_of(inner["items"], {**inner, "minItems": 1}), list),
        issuers.read_auth: Form(
            always(
                build_any_of(
                    build_words("key", *get_args(routes.RouteAuth)),
                    {"type": "array", "items": {"enum": list(issuers.TAKEN)}, "minItems": 1},
                )
            )
        ),
        directory_settings.read_public_key: Form(always(build_text("ed25519:[A-Za-z0-9+/]{43}="))),
        directory_settings.read_trust: Form(lambda inner: build_any_of(inner["items"], inner), list),
        directory_settings.read_cache_key: Form(lambda inner: build_any_of({"type": "string"}, inner), lambda _: None),
    }
)


def build_edge_schema() -> Schema:
    """Make the JSON Schema of edge.yaml and of what it includes, draft 2020-12."""
    return build_schema("edge.yaml", settings.EdgeFile, MODELS, ELSEWHERE)
