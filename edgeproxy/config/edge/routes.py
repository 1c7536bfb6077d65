"""Routes: which requests go to which upstream, and what is asked of them."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from edgeproxy.config import parsers
from edgeproxy.config.edge import readers
from edgeproxy.config.edge.compression import Compress, read_compress
from edgeproxy.config.edge.cors import Cors
from edgeproxy.config.edge.issuers import read_auth
from edgeproxy.config.edge.rewrites import Redirect, Respond, Rewrite, read_redirect
from edgeproxy.config.edge.timeouts import RouteTimeouts
from edgeproxy.config.field_types import Count, Name, Scope
from edgeproxy.config.limits import Limit
from edgeproxy.config.networks import Networks
from edgeproxy.config.part import Part

Protocol = Annotated[str, BeforeValidator(readers.read_protocol)]


class RouteLimit(Limit):
    """One limit of a route, beside those of whoever asks."""

    name: Name
    """A label that clients see; by default the route's name, or one made of its path, then <name>-2 and so on."""
    scope: Literal["customer", "key", "ip", "route", "customer_route"] = "customer_route"
    """What shares the limit: the requests of a customer on the route, or as in tiers."""


OwnCors = Annotated[
    Annotated[Cors, Tag(parsers.GIVEN)] | Annotated[Literal["off"], Tag(parsers.OFF[0])],
    Discriminator(parsers.get_union_tag),
    BeforeValidator(parsers.read_or_off),
]
RouteAuth = Literal[
    "required",
    "optional",
    "none",
    "jwt",
    "certificate",
    "key or jwt",
    "key or certificate",
    "jwt or certificate",
    "key or jwt or certificate",
]
"""What a route wants of who asks, once read."""


class Route(Part):
    """Which requests go to which upstream."""

    name: Name | None = None
    """What usage and metrics call the route; by default host/path as written here."""
    host: Annotated[str, BeforeValidator(readers.read_host)] | None = None
    """The host that is asked for: exact, or *.suffix; by default any."""
    path: Annotated[str, BeforeValidator(readers.read_path)]
    """An exact path, or /v1/* for /v1 and all that begins with /v1/."""
    methods: Annotated[frozenset[Annotated[str, BeforeValidator(readers.read_method)]], Field(min_length=1)] | None = (
        None
    )
    """The methods of the route; by default all."""
    upstream: Name | None = None
    """Where its requests go; not where all of them are answered by a redirect or a fixed answer."""
    auth: Annotated[RouteAuth, BeforeValidator(read_auth)] = "required"
    """What is wanted: a key (required, or key), a token of an issuer (jwt), a client certificate (certificate), any of
    a list of these, a key or a token or nothing (optional), none. `none` does not look at credentials, and forwards
    them."""
    scopes: frozenset[Scope] = frozenset()
    """What a key must be allowed to do: all of these."""
    cost: Count = 1
    """How much a request counts for in the limits of who asks."""
    limits: tuple[RouteLimit, ...] = ()
    """Limits of this route, beside those of who asks."""
    flag: Name | None = None
    """The flag that one must have to see the route; for all others it does not exist."""
    timeouts: RouteTimeouts = RouteTimeouts()
    """How long its requests may take, where that is not what holds for its upstream."""
    networks: Networks | None = None
    """Who may come, beside what is said for all; by default everybody."""
    redirect: Annotated[Redirect, BeforeValidator(read_redirect)] | None = None
    """Where clients are sent instead: `https`, a URL, a path, or {to, status}."""
    respond: Respond | None = None
    """The answer to all requests, whoever asks."""
    rewrite: Rewrite = Rewrite()
    """What is changed in paths and fields on the way to the upstream and back."""
    compress: Annotated[Compress | None, BeforeValidator(read_compress)] = None
    """Which answers are compressed for clients that take it: `on`, or {algorithms, types, min_size}."""
    cors: OwnCors | None = None
    """Which pages of other origins may call the route, in place of what holds for all; `off`: none."""
    upgrade: tuple[Protocol, ...] = ("websocket",)
    """The protocols to which a connection may switch; none: it stays with HTTP."""

    @property
    def label(self) -> str:
        """What usage and metrics call the route: its name, or host/path as configured."""
        return self.name or f"{self.host or ''}{self.path}"

    @property
    def prefix(self) -> str | None:
        """`/v1/` of a route `/v1/*`; None where the path is exact."""
        return self.path[:-1] if self.path.endswith("/*") else None
