"""Routes: the upstream of each request, and the requirements for it."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from edgeproxy.config import parsers
from edgeproxy.config.edge import readers
from edgeproxy.config.edge.basic_users import BasicAuth
from edgeproxy.config.edge.compression import Compress, read_compress
from edgeproxy.config.edge.conditions import HeaderConditions, QueryConditions
from edgeproxy.config.edge.cors import Cors
from edgeproxy.config.edge.error_bodies import Errors, read_errors
from edgeproxy.config.edge.fallback import Fallback, read_fallback
from edgeproxy.config.edge.issuers import RouteAuth, read_auth
from edgeproxy.config.edge.response_usage import ResponseUsage, read_response_usage
from edgeproxy.config.edge.rewrites import Redirect, Respond, Rewrite, read_redirect
from edgeproxy.config.edge.timeouts import RouteTimeouts
from edgeproxy.config.field_types import Count, Name, Scope, Switch
from edgeproxy.config.limits import Limit
from edgeproxy.config.networks import Networks
from edgeproxy.config.part import FieldMark, Part

Protocol = Annotated[str, BeforeValidator(readers.read_protocol)]


class RouteLimit(Limit):
    """A limit of a route, in addition to the customer's."""

    name: Annotated[Name, FieldMark.FILLED] = Field(
        description="Label in the RateLimit fields. By default the route's name, else a name made from its path, such "
        "as `v1-orders`; then `<name>-2` and so on."
    )
    scope: Literal["customer", "key", "ip", "route", "customer_route"] = Field(
        default="customer_route",
        description="Requests that share the limit: those of a customer on this route (`customer_route`), all on the "
        "route (`route`), or as in tiers. Clients without a key are identified by their address.",
    )


OwnCors = Annotated[
    Annotated[Cors, Tag(parsers.GIVEN)] | Annotated[Literal["off"], Tag(parsers.OFF[0])],
    Discriminator(parsers.get_union_tag),
    BeforeValidator(parsers.read_or_off),
]


BASIC = "basic"
"""The mode of `auth` for users with passwords."""
OwnAuth = Annotated[
    Annotated[RouteAuth, Tag("word")] | Annotated[BasicAuth, Tag(parsers.GIVEN)],
    Discriminator(lambda value: "word" if isinstance(value, str) else parsers.GIVEN),
    BeforeValidator(read_auth),
]


class Route(Part):
    """A route: it leads requests to an upstream.

    Routes with an exact `host` go first, then routes with a suffix, then routes for any host. Among these an exact path
    wins, then the longest path that ends in `/*`. `/v1/*` includes `/v1`, with the same key, limits and counts, as in
    Envoy and Traefik; the service gets the path unchanged. If a route has the path `/v1`, all requests for it go to
    that route, whatever its methods, even if it is for any host. A request that matches no route gets 404, before its
    key is looked up.

    `/users/*/orders` has one segment, which is not empty, between the two. Paths are compared segment by segment: a
    literal one goes before `*`, and `*` before a final `/*`.

    ```yaml
    upstreams:
      api: {endpoints: ["http://10.0.0.5:9001"]}
      beta: {endpoints: ["http://10.0.0.6:9001"]}
    routes:
      - {path: /v1/*, upstream: api}
      - {name: beta, path: /v1/*, headers: {X-Version: [beta, next]}, upstream: beta}
      - {name: preview, path: /v1/*, query: {preview: "1"}, upstream: beta}
      - {path: /users/*/orders, methods: [GET], upstream: api}
    ```

    A route whose `headers` or `query` a request does not meet is no route of that request: the next one is tried. Among
    routes of one host and path, one that names the request's method goes first, then the one with more `headers`,
    then the one with more `query` parameters, then the first in this list.

    Conditions choose a route; they do not guard it, because the client writes the fields and the query. Give all routes
    of one path and upstream the same `auth`, `scopes` and `networks`, and guard by a path or an upstream of its own.
    Routes of one host and path share metrics, limits by name and patterns of routes unless each has a `name`.
    """

    name: Name | None = Field(
        default=None,
        description="Name in usage and metrics. Set a name before you change a path, so that the counts go on. By "
        "default host and path as written.",
    )
    host: Annotated[str, BeforeValidator(readers.read_host)] | None = Field(
        default=None, description="Host of the request, without a port: exact, or `*.SUFFIX`. By default any."
    )
    path: Annotated[str, BeforeValidator(readers.read_route_path)] = Field(
        description="`/v1/orders`, or `/v1/*` for `/v1` and all below it. `*` elsewhere is one segment: "
        "`/users/*/orders`."
    )
    methods: Annotated[frozenset[Annotated[str, BeforeValidator(readers.read_method)]], Field(min_length=1)] | None = (
        Field(
            default=None,
            description="Methods of the route. A request with another one gets 405. All except `CONNECT` and `TRACE` "
            "are [forwarded](compatibility.md#methods). By default all.",
        )
    )
    headers: HeaderConditions = Field(
        default={},
        description="Fields that a request must have, each with this value or one of a list; `*` is any value. Names "
        "are compared in any case, values exactly. Several lines of a field are one value, joined with `, `. A "
        "[preflight](browsers.md) meets the fields that it announces. Fields that the edge sets or removes, and those "
        "that may hold keys, are refused.",
    )
    query: QueryConditions = Field(
        default={},
        description="Parameters that the query must have, each with this value or one of a list; `*` is any value, "
        "and an empty text matches `?a` and `?a=`. Percent-encoding and `+` are decoded. A repeated parameter meets "
        "only `*`, because servers differ in the value that they take.",
    )
    upstream: Name | None = Field(
        default=None,
        description="Upstream of the route. Required, unless a [`redirect`](#routesredirect) or "
        "[`respond`](#routesrespond) answers all requests.",
    )
    fallback: Annotated[Fallback, BeforeValidator(read_fallback)] | None = Field(
        default=None,
        description="[Second upstream](upstreams.md#fallback), used if the first one fails. By default none.",
    )
    auth: OwnAuth = Field(
        default="required",
        description="Credentials that the route accepts: a key (`required` or `key`), a [token of an issuer](jwt.md), "
        "a [client certificate](tls.md#customers-by-certificate), or any in a list. `optional` accepts requests with "
        "or without a key or token; `none` ignores credentials, and forwards them. `{basic: FILE}` accepts [users with "
        "passwords](access.md#users-with-passwords) in place of customers.",
    )
    challenge: Literal["key", "basic"] = Field(
        default="key",
        description="Scheme in the `WWW-Authenticate` of a 401: the scheme of keys, or `basic`, for clients that send "
        "a name and a password when they are asked. Browsers then show a form. Needs [`auth.basic`](#auth).",
    )
    scopes: frozenset[Scope] = Field(
        default=frozenset(), description="Scopes that a key must have: all of these, else 403."
    )
    cost: Count = Field(
        default=1,
        description="Number of requests that one request counts as in the customer's limits. Use more for an expensive "
        "route. In the route's own limits each request counts once.",
    )
    limits: tuple[RouteLimit, ...] = Field(
        default=(), description="Limits of this route, in addition to the customer's. A request must fit all of them."
    )
    flag: Name | None = Field(
        default=None,
        description="One of [`flags`](#flagsname). Customers without the flag get 404. By default everybody sees the "
        "route.",
    )
    timeouts: RouteTimeouts = Field(
        default=RouteTimeouts(),
        description="Timeouts that replace the upstream's. Use longer ones for reports and long polling.",
    )
    networks: Networks | None = Field(
        default=None,
        description="Networks that may use the route, in addition to the rules at the top. Other networks get 403 "
        "before their key is looked up. By default all.",
    )
    redirect: Annotated[Redirect, BeforeValidator(read_redirect)] | None = Field(
        default=None, description="Redirect of clients: `https`, or a target."
    )
    respond: Respond | None = Field(default=None, description="Fixed answer to all requests.")
    rewrite: Rewrite = Field(default=Rewrite(), description="Changes of paths and fields.")
    compress: Annotated[Compress | None, BeforeValidator(read_compress)] = Field(
        default=None, description="[Compression](compression.md) of answers, for clients that accept it."
    )
    response_usage: Annotated[ResponseUsage, BeforeValidator(read_response_usage)] | None = Field(
        default=None,
        description="[Usage that answers state](ai.md), such as tokens: `openai`, `anthropic`, `gemini`, `json`, or a "
        "mapping. The edge asks upstreams of such a route for uncompressed answers.",
    )
    cors: OwnCors | None = Field(
        default=None,
        description="Pages of other origins that may call this route. It replaces `cors` at the top. `off`: the edge "
        "adds nothing, and upstreams may. Routes with the same host and path must have the same value.",
    )
    errors: Annotated[Errors, BeforeValidator(read_errors)] | None = Field(
        default=None,
        description="[Bodies of errors](errors.md) from the edge itself: `problem`, `openai`, `anthropic`, or a "
        "mapping. By default the format of `response_usage` if it is `openai` or `anthropic`, else `errors` at the "
        "top.",
    )
    isolation_headers: Switch = Field(
        default=False,
        description="Adds to answers of the upstream the fields of `security_headers` at the top, and "
        "[`Permissions-Policy`, `Cross-Origin-Opener-Policy` and "
        "`Cross-Origin-Resource-Policy`](security-headers.md). A field that the upstream has set stays. For APIs, and "
        "for pages that need no camera, open no windows of other origins and are loaded by no other origin.",
    )
    upgrade: tuple[Protocol, ...] = Field(
        default=("websocket",),
        description="Protocols that a connection may [switch](compatibility.md#upgrades) to, such as `[websocket, "
        "SPDY/3.1]`; `[]`: none.",
    )

    @property
    def auth_mode(self) -> str:
        """The accepted credentials as a word: `auth`, or `basic` for users with passwords."""
        return self.auth if isinstance(self.auth, str) else BASIC

    @property
    def label(self) -> str:
        """The route's name in usage and metrics: its `name`, or host and path as configured."""
        return self.name or f"{self.host or ''}{self.path}"

    @property
    def prefix(self) -> str | None:
        """The prefix: `/v1/` for the path `/v1/*`. None: the path is exact."""
        return self.path[:-1] if self.path.endswith("/*") else None
