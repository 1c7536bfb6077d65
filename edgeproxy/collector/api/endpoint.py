"""One endpoint of the collector: a row of its group's table, of which routing, checks and description are made."""

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
"""Roles of an endpoint that anyone may call, also without a token."""
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
"""Roles of which some may change something by hand."""
OWN = frozenset({CUSTOMER})
"""The role of customers, beside others: they may call the endpoint about what is theirs."""

EVERYWHERE = GROUPS
"""The listener groups of an endpoint that each listener serves."""
API_USERS = frozenset({"api", "customers"})
"""The listener groups of an endpoint that anyone may call who uses the API."""


class Query(BaseModel):
    """The parameters of a query string; this model itself allows none."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Nothing(BaseModel):
    """The body of an endpoint that takes no JSON: there is none, or the handler reads it."""


QueryT = TypeVar("QueryT", bound=Query, covariant=True)
BodyT = TypeVar("BodyT", bound=BaseModel, covariant=True)


@dataclass(frozen=True, slots=True)
class Call(Generic[QueryT, BodyT]):
    """A request that passed all checks of its endpoint."""

    request: web.Request
    identity: Holder | None
    """The holder of the token; None where anyone may call."""
    query: QueryT
    body: BodyT
    raw_body: bytes = b""
    """The bytes of which `body` was parsed."""
    path_parameters: Mapping[str, str] = field(default_factory=dict)
    inner_body: bytes | None = None
    """The bytes that a page sends with an inner call; None: the body is that of the request."""

    @property
    def holder(self) -> Holder:
        """The holder of the token, at an endpoint that is not for anyone."""
        assert self.identity is not None
        return self.identity

    @property
    def caller(self) -> Caller:
        """The caller, for the audit log."""
        return self.request[CALLER]

    def path(self, name: str) -> str:
        """Return a parameter of the path."""
        return self.path_parameters[name]


AnyCall: TypeAlias = Call[Query, BaseModel]

CALLER = web.RequestKey("caller", Caller)
"""The caller of a request, as far as it is known yet, as it is put on record."""
READ_VALUES = web.RequestKey("read_values", dict)
"""What calls of the page that is requested have read, for those that follow (database/read_once.py)."""
SHOWN_TO = web.RequestKey("shown_to", Readers)
"""Whose names the reader of the answer sees in the place of pseudonyms."""
CLIENT = web.RequestKey("client", str)
"""The whole address that a request is from, by which it is let in and limited."""


class Header(NamedTuple):
    """A header field that an endpoint reads."""

    schema: JsonObject
    description: str
    required: bool = False


class ChangeSemantics(NamedTuple):
    """The header fields and errors that endpoints of one kind of change have in common."""

    headers: Mapping[str, Header]
    response_headers: tuple[str, ...]
    errors: Mapping[int, str]


CREATE = ChangeSemantics(
    {
        "Idempotency-Key": Header(
            {"type": "string", "pattern": "^[!-~]{1,255}$"},
            "A unique text: the same request with the same one is carried out once.",
        )
    },
    ("ETag", "Idempotent-Replayed"),
    {
        409: "It contradicts what exists, or the Idempotency-Key was sent with another request.",
        422: "A field cannot be used.",
    },
)
"""Something is created, once for each Idempotency-Key."""
UPDATE = ChangeSemantics(
    {
        "If-Match": Header(
            {"type": "string", "pattern": r'^(\*|"[0-9]{1,15}"|(W/)?"[!#-~]*")$'},
            "The ETag of the version that is changed; another version is not changed.",
        )
    },
    ("ETag",),
    {
        409: "It contradicts what exists.",
        412: "It has changed since the version that If-Match names.",
        422: "A field cannot be used.",
    },
)
"""Something is changed, if it is of the version that the caller has seen."""

COMMON_ERRORS: Mapping[int, str] = {
    400: "The request cannot be read.",
    401: "The token is missing, unknown or expired, or shows no second factor where one is required.",
    403: "The token may not do this.",
    404: "The path names nothing that exists.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "A field cannot be used.",
    429: "Too many requests or changes; Retry-After says when to come back.",
    503: "The database or a service behind it is unavailable; try again.",
}
"""The meanings of error statuses that follow from the kind of an endpoint."""

HandlersT = TypeVar("HandlersT")


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[HandlersT, QueryT, BodyT]):
    """A method and a path, and all that is to be known of them."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    handler: Callable[[HandlersT, Call[QueryT, BodyT]], Awaitable[web.StreamResponse]]
    """A method of the group's handlers."""
    summary: str
    """A sentence in the imperative for readers of the description."""
    _: KW_ONLY
    roles: frozenset[str] | None
    """The roles that may call it, `customer` for what is the customer's own; None: anyone."""
    query: type[QueryT] = field(default=Query)  # type: ignore[assignment]
    body: type[BodyT] = field(default=Nothing)  # type: ignore[assignment]
    """The model of the JSON that is sent."""
    example: JsonValue = None
    """An example of the JSON that is sent, which a test sends."""
    response: object = None
    """The TypedDict of the JSON that comes with success; None: no JSON."""
    status: int = 200
    """The status of success."""
    may_be_200: bool = False
    """Whether the status is 200 where there was nothing to do, as it was done before."""
    request_media: Mapping[str, object] = field(default_factory=dict)
    """Media types that may be sent instead of a `body`, which the handler reads, and their types; bytes: binary."""
    response_media: tuple[str, ...] = ()
    """Media types beside JSON of the answer."""
    change: ChangeSemantics | None = None
    headers: Mapping[str, Header] = field(default_factory=dict)
    """Header fields that it reads, beside those of `change`."""
    response_headers: tuple[str, ...] = ()
    """Header fields of a success, beside those of `change`."""
    errors: Mapping[int, str] = field(default_factory=dict)
    """Statuses of errors and what they mean here, beside those that follow from its kind."""
    is_sensitive: bool = False
    """Whether it needs a second factor, or of a machine the configuration's leave."""
    rate: RequestRate | None = None
    """The rate limit of the endpoint; None: no limit of its own."""
    listener_groups: frozenset[str] = frozenset()
    """The groups of listeners that serve it, where anyone may call it; else they follow from its roles."""
    own: str | None = None
    """The way in which the handler restricts customers to their own data, where no path parameter does."""

    @property
    def operation_id(self) -> str:
        """The name of the operation in the description."""
        words = [word.strip("{}") for word in self.path.split("/") if word and word != "v1"]
        return "_".join([self.method.lower(), *words]).replace(".", "_").replace("-", "_")

    @property
    def is_change(self) -> bool:
        """Whether a customer or an operator changes something by it."""
        return self.method != "GET" and self.roles is not None and bool(self.roles & (CHANGERS | OWN))

    @property
    def groups(self) -> frozenset[str]:
        """The groups of listeners of which one must be served where it is served."""
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
        """The statuses of errors and what they mean, in the order of the statuses."""
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
        """Return the endpoint of a listener that serves these groups: for the roles alone that are served there."""
        if self.roles is None:
            return self
        return replace(self, roles=frozenset(role for role in self.roles if GROUPS_OF_ROLES[role] in groups))


AnyEndpoint: TypeAlias = Endpoint[Any, Any, Any]
