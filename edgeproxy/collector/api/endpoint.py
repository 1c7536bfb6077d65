"""An endpoint of the collector: a row of its group's table, used for routing, checks and the description."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from edgeproxy.base.json_values import JsonObject, JsonValue
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.pseudonyms import Readers
from edgeproxy.collector.api.auth import CUSTOMER, GROUPS_OF_ROLES, Holder
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.config.collector.listeners import GROUPS

JSON, CSV, TEXT, BYTES = "application/json", "text/csv", "text/plain", "application/octet-stream"
JSON_LINES, PDF, HTML, ZIP = "application/x-ndjson", "application/pdf", "text/html", "application/zip"

ANYONE = None
"""Roles of a public endpoint, which needs no token."""
EDGE = frozenset({"edge"})
BEACON = frozenset({"beacon"})
SERVICE = frozenset({"service"})
AGGREGATES = frozenset({"aggregates", "admin"})
READERS = frozenset({"read", "support", "billing", "admin"})
SUPPORT = frozenset({"support", "admin"})
BILLING = frozenset({"billing", "admin"})
MONEY_READERS = frozenset({"support", "billing", "admin"})
ADMIN = frozenset({"admin"})
CHANGERS = frozenset({"support", "billing", "admin"})
"""Roles that may change some data manually."""
OWN = frozenset({CUSTOMER})
"""The role of customers. With other roles, it lets customers call the endpoint about their own data."""

EVERYWHERE = GROUPS
"""The listener groups of an endpoint that every listener serves."""
API_USERS = frozenset({"api", "customers"})
"""The listener groups of an endpoint for all users of the API."""


class Query(BaseModel):
    """The parameters of a query string. This model itself has none."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Nothing(BaseModel):
    """The body of an endpoint without a JSON body. The handler may read another kind of body."""


QueryT = TypeVar("QueryT", bound=Query, covariant=True)
BodyT = TypeVar("BodyT", bound=BaseModel, covariant=True)


@dataclass(frozen=True, slots=True)
class Call(Generic[QueryT, BodyT]):
    """A request that has passed all checks of its endpoint."""

    request: web.Request
    identity: Holder | None
    """The holder of the token; None at a public endpoint."""
    query: QueryT
    body: BodyT
    raw_body: bytes = b""
    """The bytes that `body` was parsed from."""
    path_parameters: Mapping[str, str] = field(default_factory=dict)
    inner_body: bytes | None = None
    """The bytes of a page's inner call; None: the HTTP request has the body."""

    @property
    def holder(self) -> Holder:
        """The holder of the token. Not for public endpoints."""
        assert self.identity is not None
        return self.identity

    @property
    def caller(self) -> Caller:
        """The caller for the audit log."""
        return self.request[CALLER]

    def path(self, name: str) -> str:
        """Return a parameter of the path."""
        return self.path_parameters[name]


AnyCall: TypeAlias = Call[Query, BaseModel]

CALLER = web.RequestKey("caller", Caller)
"""The caller of a request for the audit log, as far as it is identified yet."""
READ_VALUES = web.RequestKey("read_values", dict)
"""Values read by earlier calls of the requested page (database/read_once.py)."""
SHOWN_TO = web.RequestKey("shown_to", Readers)
"""The names that the reader of the answer sees instead of pseudonyms."""
CLIENT = web.RequestKey("client", str)
"""The complete client address. Access and rate limits depend on it."""


class Header(NamedTuple):
    """A header field that an endpoint reads."""

    schema: JsonObject
    description: str
    required: bool = False


class ChangeSemantics(NamedTuple):
    """Header fields and errors shared by all endpoints with one kind of change."""

    headers: Mapping[str, Header]
    response_headers: tuple[str, ...]
    errors: Mapping[int, str]


CREATE = ChangeSemantics(
    {
        "Idempotency-Key": Header(
            {"type": "string", "pattern": "^[!-~]{1,255}$"},
            "A unique text. Requests with the same text are carried out once.",
        )
    },
    ("ETag", "Idempotent-Replayed"),
    {
        409: "The request contradicts the current state, or the Idempotency-Key was sent with another request.",
        422: "A field is invalid.",
    },
)
"""An object is created, once per Idempotency-Key."""
UPDATE = ChangeSemantics(
    {
        "If-Match": Header(
            {"type": "string", "pattern": r'^(\*|"[0-9]{1,15}"|(W/)?"[!#-~]*")$'},
            "The ETag of the version to change. If the object has another version, nothing is changed.",
        )
    },
    ("ETag",),
    {
        409: "The request contradicts the current state.",
        412: "The object has changed since the version in If-Match.",
        422: "A field is invalid.",
    },
)
"""An object is changed if it still has the version that the caller has seen."""

COMMON_ERRORS: Mapping[int, str] = {
    400: "The request cannot be read.",
    401: "The token is missing, unknown or expired, or lacks a required second factor.",
    403: "The token may not do this.",
    404: "The path names nothing that exists.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "A field is invalid.",
    429: "Too many requests or changes. Retry-After says when to try again.",
    503: "The database or a service behind it is unavailable; try again.",
}
"""The meanings of error statuses that follow from the kind of an endpoint."""

HandlersT = TypeVar("HandlersT")


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[HandlersT, QueryT, BodyT]):
    """An endpoint: method, path and all of its properties."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    handler: Callable[[HandlersT, Call[QueryT, BodyT]], Awaitable[web.StreamResponse]]
    """A method of the group's handlers."""
    summary: str
    """A sentence in the imperative for the API description."""
    _: KW_ONLY
    roles: frozenset[str] | None
    """The roles that may call it; `customer` for a customer's own data; None: public."""
    query: type[QueryT] = field(default=Query)  # type: ignore[assignment]
    body: type[BodyT] = field(default=Nothing)  # type: ignore[assignment]
    """The model of the request's JSON."""
    example: JsonValue = None
    """An example of the request's JSON. A test sends it."""
    response: object = None
    """The TypedDict of a successful answer's JSON; None: no JSON."""
    status: int = 200
    """The status of success."""
    may_be_200: bool = False
    """True if the status is 200 when there is nothing to do, because it was done before."""
    request_media: Mapping[str, object] = field(default_factory=dict)
    """Media types accepted instead of `body`, with their types (bytes: binary). The handler reads such a body."""
    response_media: tuple[str, ...] = ()
    """Media types of the answer other than JSON."""
    change: ChangeSemantics | None = None
    headers: Mapping[str, Header] = field(default_factory=dict)
    """Header fields that it reads, in addition to those of `change`."""
    response_headers: tuple[str, ...] = ()
    """Header fields of a success, in addition to those of `change`."""
    errors: Mapping[int, str] = field(default_factory=dict)
    """Error statuses with their meanings here, in addition to the statuses of its kind."""
    is_sensitive: bool = False
    """True if it needs a second factor or, for a machine, permission in the configuration."""
    rate: RequestRate | None = None
    """The rate limit of the endpoint; None: no rate limit of its own."""
    listener_groups: frozenset[str] = frozenset()
    """The listener groups of a public endpoint. For other endpoints they follow from the roles."""
    own: str | None = None
    """The way the handler restricts customers to their own data, if no path parameter does."""

    @property
    def operation_id(self) -> str:
        """The name of the operation in the description."""
        words = [word.strip("{}") for word in self.path.split("/") if word and word != "v1"]
        return "_".join([self.method.lower(), *words]).replace(".", "_").replace("-", "_")

    @property
    def is_change(self) -> bool:
        """True if a customer or an operator changes data with it."""
        return self.method != "GET" and self.roles is not None and bool(self.roles & (CHANGERS | OWN))

    @property
    def groups(self) -> frozenset[str]:
        """The listener groups. A listener serves the endpoint if it serves one of them."""
        return self.listener_groups if self.roles is None else frozenset(map(GROUPS_OF_ROLES.__getitem__, self.roles))

    @property
    def all_headers(self) -> Mapping[str, Header]:
        """The header fields that it reads."""
        return {**(self.change.headers if self.change else {}), **self.headers}

    @property
    def all_response_headers(self) -> tuple[str, ...]:
        """The header fields of a success."""
        return (*(self.change.response_headers if self.change else ()), *self.response_headers)

    @property
    def all_errors(self) -> Mapping[int, str]:
        """The error statuses with their meanings, in ascending order."""
        statuses = {400, 503}
        if self.roles is not None:
            statuses |= {401, 403}
        if "{" in self.path:
            statuses.add(404)
        if self.body is not Nothing:
            statuses |= {413, 415, 422}
        if self.rate is not None or self.is_change:
            statuses.add(429)
        own = {**(self.change.errors if self.change else {}), **self.errors}
        return {status: own.get(status) or COMMON_ERRORS[status] for status in sorted(statuses | own.keys())}

    def narrow(self, groups: Collection[str]) -> "Endpoint[HandlersT, QueryT, BodyT]":
        """Return the endpoint for a listener with these groups, limited to the roles that the listener serves."""
        if self.roles is None:
            return self
        return replace(self, roles=frozenset(role for role in self.roles if GROUPS_OF_ROLES[role] in groups))


AnyEndpoint: TypeAlias = Endpoint[Any, Any, Any]
