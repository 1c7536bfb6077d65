"""Policies before authentication: a route's conditions for requests before a key is read.

Most routes have no conditions, and no policy.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from edgeproxy.base import log
from edgeproxy.config.edge.routes import BASIC
from edgeproxy.edge import problem_codes
from edgeproxy.edge.errors import DirectResponseError, RejectedError
from edgeproxy.edge.http1.field_values import find_values
from edgeproxy.edge.limits.denial import compute_denial
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.proxy.routing.cors import ORIGIN, CrossOrigin, is_preflight
from edgeproxy.edge.proxy.routing.request_rules import Condition
from edgeproxy.edge.proxy.routing.rewriting import compute_location
from edgeproxy.edge.proxy.transport.network_filter import OF_PLACE, NetworkFilter, check_address

if TYPE_CHECKING:
    from edgeproxy.config.edge.routes import Route
    from edgeproxy.edge.http1.request import RequestHead
    from edgeproxy.edge.proxy.transport.address import Address, Addresses

LOG_SECONDS = 1.0
"""Seconds between two log lines about one rule."""


class PreAuthClient(Protocol):
    """The client of a request."""

    @property
    def address(self) -> "Address": ...


class PreAuthSnapshot(Protocol):
    """The configuration of a request."""

    @property
    def addresses(self) -> "Addresses": ...


class PreAuthRequest(Protocol):
    """The interface of a request to the policy, see `Exchange`."""

    method: bytes
    path: bytes
    request_line: bytes
    keep: bytes
    length: int
    head: "RequestHead"
    now: float

    @property
    def client(self) -> "PreAuthClient": ...
    @property
    def snapshot(self) -> "PreAuthSnapshot": ...

    def is_secure(self) -> bool:
        """Return whether the client uses TLS."""


class PreAuthPolicy:
    """The policy of one route. `cors`: None without CORS."""

    def __init__(
        self,
        settings: "Route",
        cors: CrossOrigin | None,
        rules: tuple[Condition, ...],
        count: Callable[[str, str], None],
    ) -> None:
        """`count` is called with each rule that matched a request, and the action taken."""
        self._cors = cors
        self._networks = None if settings.networks is None else NetworkFilter(settings.networks)
        self._rules, self._count = [(rule, create_limit(rule)) for rule in rules], count
        self._log = log.RateLimitedLog(LOG_SECONDS)
        self._redirect, self._respond = settings.redirect, settings.respond
        self._prefix = settings.prefix
        self.checks_password = settings.auth_mode == BASIC
        """True if a user's password is checked next, in place of a key."""

    def __bool__(self) -> bool:
        """Return whether the policy has any condition."""
        asks = (self._cors, self._redirect, self._respond, self._networks)
        return bool(self._rules) or self.checks_password or any(each is not None for each in asks)

    def admit(self, request: PreAuthRequest) -> None:
        """Raise RejectedError if a request is not admitted."""
        check_address(self._networks, request.client.address.text, OF_PLACE)
        for rule, limit in self._rules:
            if rule.matches(request):
                self._apply_rule(rule, limit, request)

    def answer(self, request: PreAuthRequest) -> None:
        """Raise DirectResponseError if the edge answers itself, and RejectedError if a page may not call."""
        if self._cors is not None:
            check_origin(self._cors, request)
        redirect, respond = self._redirect, self._respond
        if redirect is not None and not (redirect.to == "https" and request.is_secure()):
            place = compute_location(redirect, self._prefix, request.request_line, request.keep)
            raise DirectResponseError(redirect.status, "Redirected", fields=b"Location: %b\r\n" % place)
        if respond is not None:
            kind = f"Content-Type: {respond.type}\r\n".encode() if respond.body else b""
            raise DirectResponseError(
                respond.status, "A fixed answer", fields=kind, content=(respond.body or "").encode()
            )

    def _apply_rule(self, rule: Condition, limit: Rule | None, request: PreAuthRequest) -> None:
        """Apply a rule that matches a request. Raises RejectedError if the request does not pass."""
        name, action = rule.settings.name, rule.settings.action
        if action == "log":
            about = {"method": request.method.decode(), "path": request.path.decode("ascii", "backslashreplace")}
            self._log.info("a rule is about a request", name, client=request.client.address.text, **about)
        if limit is not None:
            policy = request.snapshot.addresses.get_rule_policy(limit, request.client.address)
            if policy.left(request.now) >= 1:
                policy.charge()
                self._count(name, "pass")
                return
            _, again = compute_denial(LimitSet((policy,)), request.now)
            self._count(name, "limit")
            fields = b"Retry-After: %d\r\n" % again
            raise RejectedError(429, f"Over the limit of the rule {name}", close=False, fields=fields)
        self._count(name, action)
        if action == "deny":
            raise RejectedError(403, f"Refused by the rule {name}", close=False, code=problem_codes.RULE_DENIED)


def create_limit(rule: Condition) -> Rule | None:
    """Return the rate limit of a rule for each address; None if it has none."""
    rate = rule.settings.rate
    return None if rate is None else Rule(rule.settings.name, rate.count, rate.seconds, scope="rule")


def check_origin(cors: CrossOrigin, request: PreAuthRequest) -> None:
    """Answer a preflight, which browsers send without a key. Refuse WebSockets of pages that may not call.

    Other requests of such a page go on, as in the Fetch standard: its browser does not show it the answer. A browser
    does show it the messages of a WebSocket (RFC 6455 section 10.2).
    """
    preflight = is_preflight(request)
    if not preflight and not request.head.upgrade:
        return
    origins = find_values(request.keep, ORIGIN)
    allowed = len(origins) == 1 and (cors.allows(origins[0]) or origins[0] == format_own_origin(request))
    if origins and not allowed:
        raise RejectedError(
            403, "Pages of this origin may not call here", close=False, code=problem_codes.ORIGIN_DENIED
        )
    if preflight:
        raise DirectResponseError(204, "A preflight", fields=cors.format_preflight_fields(request.keep))


def format_own_origin(request: PreAuthRequest) -> bytes:
    """Format the origin of pages of the requested host, as browsers write it (RFC 6454 section 6.2).

    In a chain of proxies the first one speaks with the client.
    """
    head = request.head
    host = (head.forwarded_host or head.authority or b"").partition(b",")[0].strip().lower()
    if request.is_secure():
        return b"https://" + host.removesuffix(b":443")
    return b"http://" + host.removesuffix(b":80")
