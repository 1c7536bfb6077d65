"""End users: a route binding's limits for the user whom a request names, in a field or in its query.

The name is read from the upstream's message, so the counted user is the served user. It is stored nowhere: tables have
a digest (edge/limits/route_limits.py), metrics and logs have nothing.
"""

import re
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edgeproxy.base.lru_cache import LRUCache
from edgeproxy.config.end_users import EndUser
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.route_limits import END_USER_BYTES
from edgeproxy.edge.proxy.routing.query_key import find_key
from edgeproxy.edge.proxy.transport.address import AddressBinding
from edgeproxy.edge.proxy.transport.network_filter import OF_KEY, NetworkFilter, check_address

if TYPE_CHECKING:
    from edgeproxy.edge.body_usage.prompts import Prompt, PromptReader
    from edgeproxy.edge.limits.route_limits import RouteLimits
    from edgeproxy.edge.proxy.transport.address import Address

LIMIT_SETS_MAX = 8192
"""Cached limits of end users of a configuration, over all customers; the counts themselves are in the table."""
LINE_BORDERS = b" \t\r"
"""Bytes around a field's value in its line that do not belong to it."""
NAME_BYTES_MAX = 64
"""Bytes of a name that is cached in full; a longer name is cached as its digest."""


class RequestNames(NamedTuple):
    """The cache key of a request: the limits, the address if it counts, and the names."""

    limits: "RouteLimits"
    address: bytes
    names: tuple[bytes, ...]


LimitSetCache = LRUCache[RequestNames, LimitSet]


def create_limit_set_cache() -> LimitSetCache:
    """Create the cache that all bindings of a configuration share. Names that come once evict nothing from it."""
    return LRUCache(LIMIT_SETS_MAX)


class LimitedClient(Protocol):
    """The connection of a request."""

    @property
    def address(self) -> "Address":
        """Its address."""


class PromptedWait(Protocol):
    """A wait that may have read the body."""

    @property
    def prompt(self) -> "Prompt | None":
        """The content of the body that matters for limits; None while it was not read."""


class NamingRequest(Protocol):
    """A request that may name an end user."""

    keep: bytes
    request_line: bytes

    @property
    def wait(self) -> "PromptedWait | None":
        """Its wait, if it had one."""

    @property
    def client(self) -> LimitedClient:
        """The connection."""


class EndUserBinding(AddressBinding, Protocol):
    """A route binding whose requests do not share one limit set."""

    @property
    def end_users(self) -> "EndUserLimits | None":
        """The limits by end user, if any."""

    @property
    def prompts(self) -> "PromptReader | None":
        """The reader of bodies that state what requests reserve, if needed."""


def find_limit_set(request: NamingRequest, binding: EndUserBinding) -> LimitSet | None:
    """Return the limits of a request whose binding has no shared set; None if its body must be read first.

    Raises RejectedError if the address is not allowed, or if the request names two end users.
    """
    end_users = binding.end_users
    limit_set = request.client.address.get_limit_set(binding) if end_users is None else end_users.get_limit_set(request)
    if binding.prompts is None:
        return limit_set
    prompt = None if request.wait is None else request.wait.prompt
    return None if prompt is None else limit_set.with_request(prompt)


class EndUserLimits:
    """The limits of one route binding, including separate ones for each end user."""

    def __init__(self, limits: "RouteLimits", networks: NetworkFilter | None, cache: LimitSetCache) -> None:
        self._limits, self._networks, self._cache = limits, networks, cache
        self._readers = [create_reader(place) for place in limits.terms.name_places]

    def get_limit_set(self, request: NamingRequest) -> LimitSet:
        """Return the limits of the end user whom a request names, as `find_limit_set`."""
        address = request.client.address
        check_address(self._networks, address.text, OF_KEY)
        names = tuple([reader(request) for reader in self._readers])
        counted = address.subject if self._limits.terms.by_address else b""
        key = RequestNames(self._limits, counted, names)
        limit_set = self._cache[key]
        if limit_set is None:
            named = dict(zip(self._limits.terms.name_places, names, strict=True))
            limit_set = self._cache.store(key, self._limits.build_limit_set(counted, named))
        return limit_set


def create_reader(place: EndUser) -> Callable[[NamingRequest], bytes]:
    """Return a reader of the name in this place of a request. It returns an empty name if there is none."""
    kind, label = place.place
    if kind == "query":
        parameter = label.encode()
        # Forms write a space as a plus. If these were two names, a user with a space in the name would have several
        # limits.
        return lambda request: _shorten((find_key(request.request_line, parameter) or b"").replace(b"+", b" "))
    # The pattern takes the whole line, so that no value, not even one of spaces, makes it try more than once.
    field = re.compile(rb"(?im)^%b:(.*)$" % re.escape(label.encode()))

    def read_field(request: NamingRequest) -> bytes:
        values = field.findall(request.keep)
        if len(values) > 1:
            raise RejectedError(400, f"The field {label} is repeated", close=False)
        return _shorten(values[0].strip(LINE_BORDERS)) if values else b""

    return read_field


def _shorten(name: bytes) -> bytes:
    """Return the name, or its digest if it is long."""
    return name if len(name) <= NAME_BYTES_MAX else b"\0" + blake2b(name, digest_size=END_USER_BYTES).digest()
