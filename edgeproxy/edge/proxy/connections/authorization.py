"""Authorization checks for another proxy's requests: keys, limits and counts apply as usual, and nothing is forwarded.

The proxy forwards the target as its client sent it, so the edge decides on that exact form. A setting of the listener
names the fields that state the request. Any other field could come from the client, who would then choose the request
to be checked.
"""

import re
from typing import TYPE_CHECKING, Final

from edgeproxy.config.edge.stamps import STAMPS
from edgeproxy.edge import problem_codes
from edgeproxy.edge.body_usage.prompts import UNKNOWN
from edgeproxy.edge.errors import DirectResponseError, RejectedError
from edgeproxy.edge.http1 import message, stamps
from edgeproxy.edge.http1.field_values import find_value, remove_field
from edgeproxy.edge.http1.fields import FOLD_TABLE, KEY_FIELDS, FieldKind, FieldRules
from edgeproxy.edge.http1.grammar import OWS, parse_field_name, parse_host
from edgeproxy.edge.http1.path import normalize_target
from edgeproxy.edge.http1.request_line import check_sizes, read_request_line
from edgeproxy.edge.proxy.connections.client import Client
from edgeproxy.edge.proxy.exchange.exchange import Exchange, Outcome
from edgeproxy.edge.proxy.exchange.forwarding import Refusal
from edgeproxy.edge.proxy.exchange.request_wait import Wait
from edgeproxy.edge.proxy.observation.exchange_states import AWAITS_CLAIMS, UNREAD, WAITING
from edgeproxy.edge.proxy.routing.basic_credentials import AUTHORIZATION
from edgeproxy.edge.proxy.routing.query_key import find_key

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.exchange.snapshot import HeadMeaning
    from edgeproxy.edge.proxy.routing.preauth_policy import PreAuthPolicy

PATH: Final = b"/v1/authorize"

ORIGINAL: Final = (b"x-original-method", b"x-original-uri")
"""The method and the target of the client's request, as the snippet for nginx states them."""

FORWARDED: Final = (b"x-forwarded-method", b"x-forwarded-uri")
"""The method and the target, as Traefik and Caddy state them."""

OVERWRITTEN: Final = frozenset(
    (*map(bytes.lower, STAMPS), b"x-request-id", *KEY_FIELDS, b"cookie", b"sec-websocket-protocol")
)
"""Fields of the answer that the service gets. The proxy overwrites or drops the client's fields in this spelling
only.
"""

OVERRIDES: Final = frozenset(
    (
        *(b"x-original-url", b"x-original-path", b"x-rewrite-url", b"x-override-url", b"x-replaced-path"),
        *(b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-host", b"x-http-host-override"),
        *(b"script-name", b"x-script-name", b"path-info", b"x-middleware-subrequest"),
    )
)
"""Fields that make some services serve a path, method or host other than the request's.

See config/edge/proxy_fields.py.
"""

STATING: Final = (b"x-forwarded-", b"x-original-")
"""Beginnings of the fields that state a request. Proxies overwrite or drop them in this spelling only."""

ODDLY_SPELLED: Final = rb"[0-9A-Za-z-]*+[^0-9A-Za-z\r:-][^\r:]*"
"""The pattern of names with a separator other than the hyphen, for example X_API_Key. Ordinary requests have none."""

UNSIGNED: Final = stamps.format_opening(b"X-Edge-Signature") + b"\r\n"

SEPARATORS: Final = {b"cookie": b"; "}
"""The bytes between the values of a field that was sent in several lines (RFC 9113 section 8.2.3); a comma by
default.
"""

GRANTED: Final = DirectResponseError(200, "Granted")
"""The answer for an admitted request."""


def compile_suspects(foreign: tuple[bytes, ...]) -> re.Pattern[bytes]:
    """Compile the pattern of heads that may have a field of `foreign`, an override, or a name with an odd separator."""
    return re.compile(rb"\r\n(?:%b):" % b"|".join((ODDLY_SPELLED, *foreign, *OVERRIDES)), re.IGNORECASE)


def check_fields(head: bytes, foreign: tuple[bytes, ...], rules: FieldRules) -> None:
    """Raise RejectedError(400) if a head has a field that is not trustworthy and that the proxy passes on.

    These are: fields of another kind of proxy; fields that override the checked request, unless `strip_except` has
    them; and stamps, key fields and proxy fields in another spelling. Services that fold both spellings (WSGI, CGI)
    would take the latter for the real ones.
    """
    overwritten = OVERWRITTEN.union(rules.keys)
    for line in head.split(b"\r\n")[1:]:
        name = parse_field_name(line)
        folded = name.translate(FOLD_TABLE)
        if name in foreign:
            detail = f"{name.title().decode()} is not how requests are stated here, see the listener's authorize"
            raise RejectedError(400, detail, close=False)
        if folded in overwritten and name != folded:
            raise RejectedError(400, f"{folded.title().decode()} may not be sent in another spelling", close=False)
        if folded.startswith(STATING) and name != folded:
            raise RejectedError(400, "A field of a proxy may not be sent in another spelling", close=False)
        if folded in OVERRIDES and rules.classify(name) is not FieldKind.PASS:
            raise RejectedError(400, f"{folded.title().decode()} may not override what is decided on", close=False)


class AuthorizationCheck(Exchange):
    """A check of another proxy's request. A subclass knows the fields that one kind of proxy uses for that request."""

    answers_preflights = False

    __slots__ = ("own_method",)

    foreign: tuple[bytes, ...]
    """The fields of the other kinds of proxies. Here they come from a client, or from a proxy of the wrong kind that
    passes its client's fields on.
    """
    suspects: re.Pattern[bytes]
    """The pattern of heads that `check_fields` may refuse. Most heads do not match and need no further check."""

    def parse_statement(self, target: bytes) -> tuple[bytes, bytes]:
        """Return the method and the target of the request. `target` is the received target of the check itself.

        Raises RejectedError if the proxy does not state each exactly once.
        """
        raise NotImplementedError

    def read_request(self, data: bytes, end: int, seen: "HeadMeaning | None" = None) -> None:
        """Read the request that the check states. Its client is the one named by the proxy."""
        self.own_method = b""
        if not self.client.trusted:
            raise RejectedError(403, "Only trusted proxies may ask here", code=problem_codes.ADDRESS_DENIED)
        super().read_request(data, end, seen)
        self.own_method = self.method
        if self.suspects.search(data, 0, end):
            check_fields(data[:end], self.foreign, self.snapshot.lines.rules)
        method, target = self.parse_statement(data.split(b" ", 2)[1])
        line = b"%b %b HTTP/1.1" % (method, target)
        check_sizes(len(line), 0, self.snapshot.head_limits)
        request = read_request_line(line)
        if request.authority is not None:
            raise RejectedError(400, "The target of the request is a path, with its query", close=False)
        path = target.partition(b"?")[0]
        if normalize_target(request.target).partition(b"?")[0] != path:
            # The proxy forwards the path unchanged. A service that normalizes it would serve a path that was not
            # checked.
            raise RejectedError(400, "The path is not in its normal form, in which alone it is decided on", close=False)
        self.method, self.path = request.method, path
        self.request_line = b"%b %b HTTP/1.1\r\n" % (self.method, target)
        query_key = self.snapshot.query_key
        if query_key is not None and find_key(self.request_line, query_key) is not None:
            raise RejectedError(400, "A key in the query would go on to the service: send it in a field", close=False)
        self.snapshot.paths.check(self.path, self.method, self.site, self)

    def ask_policy(self, policy: "PreAuthPolicy") -> None:
        """Apply only the conditions. The proxy handles redirects, fixed answers and preflights itself."""
        policy.admit(self)

    def proceed(self, data: bytes, end: int) -> Outcome:
        """Only admit the request. It counts as if answered with 200, and holds no concurrency."""
        refusing = self.admit()
        if refusing is UNREAD:
            # The body goes to the service and does not pass here.
            self.wait = self.wait or Wait(self)
            self.wait.prompt = UNKNOWN
            return self.proceed(data, end)
        if refusing is not None:
            return self.suspend(AWAITS_CLAIMS, data, end) if refusing is WAITING else refusing
        self.get_request_id()
        assert self.binding is not None
        for counter in self.binding.find_counters(200):
            counter.add(1)
        if self.limit_set is not None:
            self.charge_reported(b"")
            self.settle_limits(200)
        return GRANTED

    def format_own_response(self, reason: Refusal, *, close: bool) -> bytes:
        """Format the answer to the check: 200 with the customer's stamps, or the reason of the refusal."""
        request_method = self.method
        if reason is not GRANTED:
            self.method = self.own_method  # The method of the check decides whether the answer has a body.
            answer = super().format_own_response(reason, close=close)
            self.method = request_method
            return answer
        lines = (self.format_stamp_lines(), self.format_unkeyed_lines(), self.format_rate_fields(), self.notes)
        fields = self.runtime.date_line + b"".join(lines)
        self.status = 200
        self.log_end()
        return message.format_response(200, fields, close=close, head_only=self.own_method == b"HEAD")

    def format_stamp_lines(self) -> bytes:
        """Format the lines of every stamp and of the request id.

        A stamp without a value is sent empty, so that the proxy overwrites the client's value.
        """
        binding, snapshot = self.binding, self.snapshot
        assert binding is not None
        request_id, signature = self.get_request_id(), UNSIGNED
        if snapshot.sign is not None:
            signature = snapshot.sign(request_id, binding, self.now, self.request_line, None)
        return b"%b%bX-Request-Id: %b\r\n" % (stamps.append_empty(binding.stamps), signature, request_id)

    def format_unkeyed_lines(self) -> bytes:
        """Format the lines of every field that may hold a key, with the rest for the service: empty if nothing is
        left.
        """
        snapshot, route = self.snapshot, self.route
        assert route is not None
        is_forwarding = snapshot.forwards_key(route)
        lines = (self.credentials if is_forwarding else self.head.unkeyed) + self.keep
        if route.users is not None and not is_forwarding:
            lines = remove_field(lines, AUTHORIZATION)
        rests = dict.fromkeys((*KEY_FIELDS, *snapshot.lines.rules.keys, b"cookie", b"sec-websocket-protocol"), b"")
        for line in lines.split(b"\r\n"):
            name = parse_field_name(line)
            if name in rests:
                rest = line.partition(b":")[2].strip(OWS)
                rests[name] = rests[name] + SEPARATORS.get(name, b", ") + rest if rests[name] else rest
        return b"".join([b"%b: %b\r\n" % (name.title(), rest) for name, rest in rests.items()])


class FieldsAuthorization(AuthorizationCheck):
    """A check at /v1/authorize, with the request in two fields."""

    __slots__ = ()
    fields: tuple[bytes, bytes]

    def parse_statement(self, target: bytes) -> tuple[bytes, bytes]:
        """Return the values of the two fields. The proxy overwrites the client's fields of these names."""
        if self.path != PATH:
            raise RejectedError(404, "Questions are asked at /v1/authorize", close=False)
        method, uri = (find_value(self.keep, name) for name in self.fields)
        if not method or not uri:
            names = " and ".join(name.title().decode() for name in self.fields)
            raise RejectedError(400, f"{names} state the request, each once", close=False)
        return method, uri


class OriginalAuthorization(FieldsAuthorization):
    """A check of nginx, whose Host is the client's."""

    __slots__ = ()
    fields, foreign, suspects = ORIGINAL, FORWARDED, compile_suspects(FORWARDED)


class ForwardedAuthorization(FieldsAuthorization):
    """A check of Traefik or Caddy: the client's host is in X-Forwarded-Host."""

    __slots__ = ()
    fields, foreign, suspects = FORWARDED, ORIGINAL, compile_suspects(ORIGINAL)

    def parse_statement(self, target: bytes) -> tuple[bytes, bytes]:
        """Return the values of the two fields, and set the site from the stated host."""
        statement = super().parse_statement(target)
        authority = self.head.forwarded_host
        host = None if authority is None else parse_host(authority)
        if host is None:
            raise RejectedError(400, "X-Forwarded-Host states the host of the request, once", close=False)
        self.site = self.snapshot.router.find_site(host)
        return statement


class PathAuthorization(AuthorizationCheck):
    """A check of Envoy, with its client's method and host, and /v1/authorize before the path."""

    __slots__ = ()
    foreign, suspects = (*ORIGINAL, *FORWARDED), compile_suspects(ORIGINAL + FORWARDED)

    def parse_statement(self, target: bytes) -> tuple[bytes, bytes]:
        """Return the check's method, and the rest of its target."""
        if not target.startswith(PATH + b"/"):
            raise RejectedError(404, "Questions are asked at /v1/authorize, followed by the path", close=False)
        return self.method, target[len(PATH) :]


class OriginalProxy(Client):
    """The connection of a proxy that states requests in X-Original-Method and X-Original-URI."""

    __slots__ = ()
    exchange_type = OriginalAuthorization


class ForwardedProxy(Client):
    """The connection of a proxy that states requests in X-Forwarded-Method, X-Forwarded-Uri and X-Forwarded-Host."""

    __slots__ = ()
    exchange_type = ForwardedAuthorization


class PathProxy(Client):
    """The connection of a proxy that states requests in its own request line."""

    __slots__ = ()
    exchange_type = PathAuthorization


CLIENTS: Final[dict[str | None, type[Client]]] = {
    None: Client,
    "original": OriginalProxy,
    "forwarded": ForwardedProxy,
    "path": PathProxy,
}
"""The class of a listener's connections, by its setting `authorize`."""
