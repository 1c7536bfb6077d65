"""An endpoint of the collector, as `endpoints.py` lists them: routing, who may call it, the checks of what is sent and
the OpenAPI description are all made of this.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.api.auth import CUSTOMER, GROUPS_OF_ROLES, Holder
from edgeproxy.collector.api.request_limits import Often
from edgeproxy.config.collector.listeners import GROUPS

JSON, CSV, TEXT, BYTES = "application/json", "text/csv", "text/plain", "application/octet-stream"
JSON_LINES = "application/x-ndjson"

ANYONE = None
"""Whoever asks, also without a token."""
EDGE = frozenset({"edge"})
BEACON = frozenset({"beacon"})
SERVICE = frozenset({"service"})
READERS = frozenset({"read", "support", "billing", "admin"})
SUPPORT = frozenset({"support", "admin"})
BILLING = frozenset({"billing", "admin"})
MONEY_READERS = frozenset({"support", "billing", "admin"})
ADMIN = frozenset({"admin"})
CHANGERS = frozenset({"support", "billing", "admin"})
"""Roles of which some may change something by hand."""
OWN = frozenset({CUSTOMER})
"""Beside others: customers may, as far as it is theirs."""


EVERYWHERE = GROUPS
"""The groups of what each listener answers."""
API_USERS = frozenset({"api", "customers"})
"""The groups of what anyone may ask who uses the API."""


class Query(BaseModel):
    """The parameters of a query string, none unless a model says so."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Nothing(BaseModel):
    """No JSON is sent: there is no body, or its handler reads it."""


Q = TypeVar("Q", bound=Query)
B = TypeVar("B", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, B]):
    """A request that passed all that its endpoint asks for."""

    request: web.Request
    known: Holder | None
    """Who calls; None where anyone may."""
    query: Q
    body: B
    sent: bytes = b""
    """The body as it came, of which `body` was made."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The parameters of the path."""
    given: bytes | None = None
    """The body of a call from inside; None: it is that of the request."""

    @property
    def holder(self) -> Holder:
        """Who calls an endpoint that is not for anyone."""
        assert self.known is not None
        return self.known

    @property
    def caller(self) -> Caller:
        """Who calls, for the audit log."""
        return self.request[CALLER]

    def path(self, name: str) -> str:
        """Return a parameter of the path."""
        return self.names[name]


CALLER = web.RequestKey("caller", Caller)
"""Who makes a request, as far as that is known yet."""

Handler = Callable[[Call[Q, B]], Awaitable[web.StreamResponse]]


class HeadField(NamedTuple):
    """A field of the head that an endpoint reads."""

    schema: dict[str, Any]
    description: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Q, B]):
    """A method and a path, and all that is to be known of them."""

    method: str
    path: str
    roles: frozenset[str] | None
    """Who may call it: roles, with `customer` for what is the customer's own; None: anyone."""
    handler: Handler[Q, B]
    about: str
    """What it does: a sentence for who reads the description."""
    answers: Any = None
    """The JSON that comes with success: a TypedDict, which the description shows; None: none."""
    query: type[Q] = field(default=Query)  # type: ignore[assignment]
    sends: type[B] = field(default=Nothing)  # type: ignore[assignment]
    """The model of the JSON that is sent."""
    media: tuple[str, ...] = ()
    """What else than JSON may be sent: the handler reads it."""
    gives: tuple[str, ...] = ()
    """What else than JSON may be answered."""
    status: int = 200
    """The status of success."""
    again: bool = False
    """Whether it answers 200 where there was nothing to do, as it was done before."""
    sensitive: bool = False
    """Whether a second factor is asked for, or that the configuration lets the machine do it by name."""
    fields: Mapping[str, HeadField] = field(default_factory=dict)
    """Fields of the head that it reads."""
    shows: tuple[str, ...] = ()
    """Fields of the head that a success has beside the usual ones."""
    refuses: tuple[int, ...] = ()
    """Statuses of refusals beside those that any endpoint of its kind has."""
    often: Often | None = None
    """How often it may be asked; as often as one likes where nothing is said."""
    serve: frozenset[str] = frozenset()
    """The groups of listeners that answer it, of what anyone may call; else its roles say it."""
    own: str | None = None
    """How the handler keeps a customer to what is theirs, where no parameter of the path says whose it is."""

    @property
    def name(self) -> str:
        """What the description calls it."""
        words = [word.strip("{}") for word in self.path.split("/") if word and word != "v1"]
        return "_".join([self.method.lower(), *words]).replace(".", "_").replace("-", "_")

    @property
    def is_change(self) -> bool:
        """Whether a customer or an operator changes something by it."""
        return self.method != "GET" and self.roles is not None and bool(self.roles & (CHANGERS | OWN))

    @property
    def groups(self) -> frozenset[str]:
        """The groups of listeners of which one must be served where it is answered."""
        return self.serve if self.roles is None else frozenset(map(GROUPS_OF_ROLES.__getitem__, self.roles))

    def narrow(self, groups: Collection[str]) -> "Endpoint[Q, B]":
        """Return what it is at a listener with these groups: for the roles alone that are served there."""
        if self.roles is None:
            return self
        return replace(self, roles=frozenset(role for role in self.roles if GROUPS_OF_ROLES[role] in groups))

    @property
    def statuses(self) -> frozenset[int]:
        """The statuses with which it may refuse."""
        statuses = {*self.refuses, 400, 503}
        if self.roles is not None:
            statuses |= {401, 403}
        if "{" in self.path:
            statuses.add(404)
        if self.sends is not Nothing:
            statuses |= {413, 415, 422}
        if self.often is not None or self.is_change:
            statuses.add(429)
        return frozenset(statuses)
