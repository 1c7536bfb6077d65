"""What each header field is to the edge: one literal table a direction, and what a configuration adds to it."""

from enum import IntEnum, auto
from typing import Final

from edgeproxy.config.edge.proxy_fields import create_matcher, is_proxy_field
from edgeproxy.edge.http1.grammar import TOKEN
from edgeproxy.edge.http1.security_fields import BITS, PLACES
from edgeproxy.edge.http1.stamps import STAMPS


class Kind(IntEnum):
    """What is to be done with a field. Those without a remark are read by the rule of their name."""

    MALFORMED = auto()
    """Not a field name."""
    PASS = auto()
    """Forwarded as it came, unless Connection names it."""
    HOP = auto()
    """For one connection only (RFC 9110 section 7.6.1): not forwarded."""
    STAMP = auto()
    """Set by the edge alone: dropped, whoever sent it."""
    ORIGIN = auto()
    """Services believe it of a proxy in front of them: passes when a trusted proxy says it, else dropped."""
    FORWARDED_FOR = auto()
    FORWARDED_PROTO = auto()
    FORWARDED_HOST = auto()
    REQUEST_ID = auto()
    HOST = auto()
    LENGTH = auto()
    CODING = auto()
    CONNECTION = auto()
    UPGRADE = auto()
    TE = auto()
    EXPECT = auto()
    VIA = auto()
    MAX_FORWARDS = auto()
    BEARER = auto()
    """Authorization of the scheme Bearer, where keys may come in it."""
    CREDENTIALS = auto()
    """Authorization of another scheme: the upstream's affair, so it is forwarded."""
    API_KEY = auto()
    COOKIE = auto()
    """Where a key may come in a cookie."""
    PROTOCOLS = auto()
    """Sec-WebSocket-Protocol, where a key may come in it."""
    PROXY_CREDENTIALS = auto()
    """Proxy-Authorization: the edge asks for none, so it is somebody else's; it goes where credentials go."""
    TRACEPARENT = auto()
    TRACESTATE = auto()
    RATE = auto()
    """An upstream's own RateLimit fields, kept apart: the edge's replace them where a rate policy applied."""
    SECURITY = auto()
    """Passed on; those that are missing may be added (security_fields.py)."""
    PLACE = auto()
    """Names a place of the service: passed on, and on some routes changed."""
    DATE = auto()
    """Passed on; where it is missing it is added (RFC 9110 section 6.6.1)."""


REQUEST: Final[dict[bytes, Kind]] = {
    b"host": Kind.HOST,
    b"content-length": Kind.LENGTH,
    b"transfer-encoding": Kind.CODING,
    b"connection": Kind.CONNECTION,
    b"upgrade": Kind.UPGRADE,
    b"te": Kind.TE,
    b"expect": Kind.EXPECT,
    b"via": Kind.VIA,
    b"max-forwards": Kind.MAX_FORWARDS,
    b"keep-alive": Kind.HOP,
    b"proxy-connection": Kind.HOP,
    b"proxy-authorization": Kind.PROXY_CREDENTIALS,
    b"proxy-authenticate": Kind.HOP,
    b"proxy": Kind.HOP,  # No field of HTTP; servers that hand fields on as variables take it for HTTP_PROXY.
    b"trailer": Kind.HOP,
    b"authorization": Kind.CREDENTIALS,
    b"x-api-key": Kind.API_KEY,
    b"traceparent": Kind.TRACEPARENT,
    b"tracestate": Kind.TRACESTATE,
    b"x-request-id": Kind.REQUEST_ID,
    b"x-forwarded-for": Kind.FORWARDED_FOR,
    b"x-forwarded-proto": Kind.FORWARDED_PROTO,
    b"x-forwarded-host": Kind.FORWARDED_HOST,
    b"x-forwarded-port": Kind.ORIGIN,
    b"x-real-ip": Kind.ORIGIN,
    b"forwarded": Kind.ORIGIN,
    **{name.lower(): Kind.STAMP for name in STAMPS},
}
"""Request fields that are more than a line to pass on. Their other spellings never pass at all."""

AUTHORIZATION: Final = b"authorization"

KEY_FIELDS: Final = (b"x-api-key", AUTHORIZATION)
"""Where keys come unless a configuration says otherwise."""

FOLDED: Final = bytes(each if chr(each).isalnum() and each < 128 else ord("-") for each in range(256))
"""Servers that hand fields on as variables (CGI, WSGI, PHP) cannot tell X_Customer.Id from X-Customer-Id."""

RESPONSE: Final[dict[bytes, Kind]] = {
    b"content-length": Kind.LENGTH,
    b"transfer-encoding": Kind.CODING,
    b"connection": Kind.CONNECTION,
    b"upgrade": Kind.UPGRADE,
    b"keep-alive": Kind.HOP,
    b"proxy-connection": Kind.HOP,
    b"proxy-authenticate": Kind.HOP,
    b"proxy-authentication-info": Kind.HOP,
    b"te": Kind.HOP,
    b"trailer": Kind.HOP,
    b"x-request-id": Kind.STAMP,
    b"ratelimit": Kind.RATE,
    b"ratelimit-policy": Kind.RATE,
    b"ratelimit-limit": Kind.RATE,
    b"ratelimit-remaining": Kind.RATE,
    b"ratelimit-reset": Kind.RATE,
    **dict.fromkeys(BITS, Kind.SECURITY),
    **dict.fromkeys(PLACES, Kind.PLACE),
    b"date": Kind.DATE,
}
"""Response fields that are more than a line to pass on. The last three RateLimit fields are those of earlier drafts."""

FRESH: Final = frozenset(
    (
        *(Kind.TRACEPARENT, Kind.TRACESTATE, Kind.REQUEST_ID, Kind.STAMP, Kind.ORIGIN),
        *(Kind.FORWARDED_FOR, Kind.FORWARDED_PROTO, Kind.FORWARDED_HOST, Kind.CREDENTIALS, Kind.API_KEY),
        *(Kind.COOKIE, Kind.PROTOCOLS),
        Kind.PROXY_CREDENTIALS,
    )
)
"""Kinds of request lines that are new each time, or nobody's key until proven: not remembered by line."""

NEVER_NAMED: Final = frozenset(name for name, kind in REQUEST.items() if kind in (Kind.HOST, Kind.LENGTH, Kind.ORIGIN))
"""Fields that stay though Connection names them, or a client could take them from under the upstream. The stamps
need no mention here: they are added after Connection has been heeded."""

NOT_IN_TRAILERS: Final = frozenset(
    (
        *REQUEST,
        *RESPONSE,
        # Request modifiers,
        *(b"cache-control", b"pragma", b"range", b"if-match", b"if-none-match", b"if-range"),
        *(b"if-modified-since", b"if-unmodified-since"),
        # authentication,
        *(b"cookie", b"set-cookie", b"www-authenticate", b"authentication-info"),
        # how the content is to be read,
        *(b"content-encoding", b"content-type", b"content-range", b"content-location"),
        # and what must be known before the content comes.
        *(b"accept-ranges", b"age", b"expires", b"location", b"retry-after", b"vary"),
    )
)
"""Names that are dropped from trailer sections (RFC 9110 section 6.5.1)."""


class FieldRules:
    """What request fields are to one configuration.

    `keys`: the fields in which API keys come, in lower case; the first of them that a request has holds its key.
    `cookie`: the name of the cookie in which one may come. `protocols`: whether one may come as a WebSocket's
    subprotocol. `strip`: names, and prefixes with `*` at their end, that pass from trusted proxies only, beside those
    of config/edge/proxy_fields.py; `strip_except`: those of the latter that pass from everybody. All in lower case.
    """

    def __init__(
        self,
        keys: tuple[bytes, ...] = KEY_FIELDS,
        *,
        cookie: bytes | None = None,
        protocols: bool = False,
        strip: tuple[str, ...] = (),
        strip_except: tuple[str, ...] = (),
    ) -> None:
        self.keys, self.cookie, self.protocols = keys, cookie, protocols
        self._table = {name: kind for name, kind in REQUEST.items() if name not in KEY_FIELDS}
        self._table |= {name: Kind.CREDENTIALS if name == AUTHORIZATION else Kind.API_KEY for name in keys}
        if cookie is not None:
            self._table[b"cookie"] = Kind.COOKIE
        if protocols:
            self._table[b"sec-websocket-protocol"] = Kind.PROTOCOLS
        self._is_stripped, self._is_excepted = create_matcher(strip), create_matcher(strip_except)

    def kind(self, name: bytes) -> Kind:
        """The kind of a request's field; the name as it was sent."""
        kind = _kind(name, self._table)
        if kind is not Kind.PASS:
            return kind
        folded = name.lower().translate(FOLDED)
        rule = self._table.get(folded) or (Kind.ORIGIN if self._is_origin(folded.decode("ascii")) else None)
        if rule is None:
            return Kind.PASS
        return rule if folded == name.lower() else Kind.HOP

    def _is_origin(self, name: str) -> bool:
        return self._is_stripped(name) or (is_proxy_field(name) and not self._is_excepted(name))


def response_kind(name: bytes) -> Kind:
    """The kind of a response's field; the name as it was sent."""
    return _kind(name, RESPONSE)


def _kind(name: bytes, table: dict[bytes, Kind]) -> Kind:
    if not name or name.translate(None, TOKEN):
        return Kind.MALFORMED
    return table.get(name.lower(), Kind.PASS)
