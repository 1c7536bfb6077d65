"""An endpoint of the collector: a row of its group's table, used for routing, checks and the description."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property, partial
from types import MappingProxyType, UnionType
from typing import ClassVar, Generic, Literal, NamedTuple, TypeAlias, TypeVar, Union, get_args, get_origin

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from edgeproxy.base.json_values import JsonObject, JsonValue
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.pseudonyms import Readers
from edgeproxy.collector.api.auth import CUSTOMER, GROUPS_OF_ROLES, Holder
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.responses import Result
from edgeproxy.config.collector.listeners import GROUPS

JSON, CSV, TEXT, BYTES = "application/json", "text/csv", "text/plain", "application/octet-stream"
JSON_LINES, PDF, HTML, ZIP = "application/x-ndjson", "application/pdf", "text/html", "application/zip"

ANYONE = frozenset({"anyone"})
"""The roles of a public endpoint, which needs no token."""
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
    errors: ClassVar[Mapping[int, str]] = MappingProxyType({})
    """Error statuses that follow from the parameters, with their meanings."""


class Nothing(BaseModel):
    """The body of an endpoint without a JSON body. The handler may read another kind of body."""


QueryT = TypeVar("QueryT", bound=Query, covariant=True)
BodyT = TypeVar("BodyT", bound=BaseModel, covariant=True)


@dataclass(frozen=True, slots=True)
class Call(Generic[QueryT, BodyT]):
    """A request that has passed all checks of its endpoint."""

    endpoint: "Endpoint"
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

Handler: TypeAlias = Callable[..., Awaitable[object]]
"""A method of a group's class. It takes the call and, if it is a transaction, the connection."""
HandlerT = TypeVar("HandlerT", bound=Handler)


@dataclass(frozen=True)
class Endpoint:
    """An endpoint. It is the decorator of its handler, a method of its group's class.

    The types of the handler state the query, the body and the answer: a TypedDict or a Result of one, or a response
    if the answer is no JSON. The docstring of the handler is the summary.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    _: KW_ONLY
    roles: frozenset[str] = frozenset()
    """The roles that may call it; `customer` for a customer's own data; ANYONE: public. Empty: those of the group."""
    example: JsonValue = None
    """An example of the request's JSON. A test sends it."""
    status: int = 200
    """The status of success."""
    may_be_200: bool = False
    """True if the status is 200 when there is nothing to do, because it was done before."""
    request_media: Mapping[str, object] = field(default_factory=dict)
    """Media types accepted instead of JSON, with their types (bytes: binary). The handler reads such a body."""
    response_media: tuple[str, ...] = ()
    """Media types of the answer other than JSON."""
    change: ChangeSemantics | None = None
    hides: str | None = None
    """The field of the answer that a dry run leaves out."""
    headers: Mapping[str, Header] = field(default_factory=dict)
    """Header fields that it reads, in addition to those of `change`."""
    response_headers: tuple[str, ...] = ()
    """Header fields of a success, in addition to those of `change`."""
    errors: Mapping[int, str] = field(default_factory=dict)
    """Error statuses with their meanings here, in addition to the statuses of its kind and of its group."""
    is_sensitive: bool = False
    """True if it needs a second factor or, for a machine, permission in the configuration."""
    rate: RequestRate | None = None
    """The rate limit of the endpoint; None: the one of its group, if it has one."""
    listener_groups: frozenset[str] = frozenset()
    """The listener groups of a public endpoint. For other endpoints they follow from the roles."""
    own: str | None = None
    """The way the handler restricts customers to their own data, if neither the path nor `customer` of the query does.

    The framework compares a path's parameters with the customer, and handlers the query's.
    """
    handler: Handler = None  # type: ignore[assignment]
    """The decorated method."""
    group: str = ""
    """The name of its group."""

    def __call__(self, handler: HandlerT) -> HandlerT:
        """Make a method the handler of this endpoint. The method itself is not changed."""
        vars(handler)[ENDPOINT] = replace(self, handler=handler)
        return handler

    @cached_property
    def _types(self) -> tuple[tuple[object, ...], object]:
        """The types of the handler's parameters, and the type of its answer."""
        types = dict(self.handler.__annotations__)
        answer = types.pop("return")
        return tuple(types.values()), answer

    @cached_property
    def query(self) -> type[Query]:
        """The model of the query string."""
        query: type[Query] = get_args(self._types[0][0])[0]
        return query

    @cached_property
    def body(self) -> type[BaseModel]:
        """The model of the request's JSON; Nothing: no JSON."""
        body: type[BaseModel] = get_args(self._types[0][0])[1]
        return body

    @cached_property
    def response(self) -> object:
        """The TypedDict of a successful answer's JSON; None: no JSON."""
        answer = self._types[1]
        choices = get_args(answer) if get_origin(answer) in (Union, UnionType) else (answer,)
        kinds = [get_args(kind)[0] if get_origin(kind) is Result else kind for kind in choices]
        return next((kind for kind in kinds if not is_response(kind)), None)

    @cached_property
    def is_transaction(self) -> bool:
        """True if the handler takes a connection: it runs in one transaction, also as a dry run."""
        return len(self._types[0]) > 1

    @cached_property
    def summary(self) -> str:
        """A sentence in the imperative, and more if it needs more."""
        return " ".join((self.handler.__doc__ or "").split())

    @property
    def operation_id(self) -> str:
        """The name of the operation in the description."""
        words = [word.strip("{}") for word in self.path.split("/") if word and word != "v1"]
        return "_".join([self.method.lower(), *words]).replace(".", "_").replace("-", "_")

    @property
    def is_public(self) -> bool:
        """True if anyone may call it, without a token."""
        return self.roles == ANYONE

    @property
    def is_change(self) -> bool:
        """True if a customer or an operator changes data with it."""
        return self.method != "GET" and bool(self.roles & (CHANGERS | OWN))

    @property
    def groups(self) -> frozenset[str]:
        """The listener groups. A listener serves the endpoint if it serves one of them."""
        return self.listener_groups if self.is_public else frozenset(map(GROUPS_OF_ROLES.__getitem__, self.roles))

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
        if not self.is_public:
            statuses |= {401, 403}
        if "{" in self.path:
            statuses.add(404)
        if self.rate is not None or self.is_change:
            statuses.add(429)
        of_body = {status: COMMON_ERRORS[status] for status in (413, 415, 422) if self.body is not Nothing}
        of_change = self.change.errors if self.change else {}
        meanings = {**self.query.errors, **of_body, **of_change, **self.errors}
        return {status: meanings.get(status) or COMMON_ERRORS[status] for status in sorted(statuses | meanings.keys())}

    def complete(
        self, group: str, roles: frozenset[str], rate: RequestRate | None, errors: Mapping[int, str]
    ) -> "Endpoint":
        """Return the endpoint with the defaults of its group. The words of `change` go before the group's."""
        of_change = self.change.errors if self.change else {}
        others = {status: meaning for status, meaning in errors.items() if status not in of_change}
        return replace(
            self, group=group, roles=self.roles or roles, rate=self.rate or rate, errors={**others, **self.errors}
        )

    def narrow(self, groups: Collection[str]) -> "Endpoint":
        """Return the endpoint for a listener with these groups, limited to the roles that the listener serves."""
        if self.is_public:
            return self
        return replace(self, roles=frozenset(role for role in self.roles if GROUPS_OF_ROLES[role] in groups))


get, post, put, patch, delete = (
    partial(Endpoint, "GET"),
    partial(Endpoint, "POST"),
    partial(Endpoint, "PUT"),
    partial(Endpoint, "PATCH"),
    partial(Endpoint, "DELETE"),
)
ENDPOINT = "endpoint"
"""The attribute of a handler that has its endpoint."""


def is_response(kind: object) -> bool:
    """Return True if a type is one of complete responses."""
    return isinstance(kind, type) and issubclass(kind, web.StreamResponse)


def list_endpoints(handlers: type) -> list[Endpoint]:
    """List the endpoints of a class, in the order of its handlers."""
    return [vars(method)[ENDPOINT] for method in vars(handlers).values() if ENDPOINT in getattr(method, "__dict__", ())]
