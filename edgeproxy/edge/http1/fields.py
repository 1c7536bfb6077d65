"""The meaning of each header field to the edge: a literal table for each direction, and the additions of a
configuration.
"""

from enum import IntEnum, auto
from typing import Final

from edgeproxy.config.edge.proxy_fields import create_matcher, is_proxy_field
from edgeproxy.config.edge.stamps import STAMPS
from edgeproxy.edge.http1.grammar import TOKEN
from edgeproxy.edge.http1.security_fields import BITS, PLACES


class FieldKind(IntEnum):
    """The kinds of fields, by the edge's treatment of them. A kind without a remark is read by the rule of its name."""

    MALFORMED = auto()
    """Not a field name."""
    PASS = auto()
    """Forwarded unchanged, unless Connection names it."""
    HOP = auto()
    """A field of one connection only (RFC 9110 section 7.6.1): not forwarded."""
    STAMP = auto()
    """Set by the edge alone: dropped, whatever its sender."""
    ORIGIN = auto()
    """Services believe it of a proxy in front of them: passes if a trusted proxy says it, else dropped."""
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
    """Authorization of the scheme Bearer, if keys may come in it."""
    CREDENTIALS = auto()
    """Authorization of another scheme: the upstream's affair, so it is forwarded."""
    BASIC = auto()
    """Authorization, if keys may come in it with the scheme Basic too."""
    API_KEY = auto()
    COOKIE = auto()
    """Cookie, if a key may come in one."""
    PROTOCOLS = auto()
    """Sec-WebSocket-Protocol, if a key may come in it."""
    PROXY_CREDENTIALS = auto()
    """Proxy-Authorization: the edge asks for none, so it is for another server, and goes where credentials go."""
    TRACEPARENT = auto()
    TRACESTATE = auto()
    RATE = auto()
    """An upstream's own RateLimit fields, kept apart: the edge's replace them if a rate policy applied."""
    SECURITY = auto()
    """Passed on; missing ones may be added (security_fields.py)."""
    PLACE = auto()
    """Names a place of the service: passed on, and on some routes changed."""
    DATE = auto()
    """Passed on; added if it is missing (RFC 9110 section 6.6.1)."""


REQUEST: Final[dict[bytes, FieldKind]] = {
    b"host": FieldKind.HOST,
    b"content-length": FieldKind.LENGTH,
    b"transfer-encoding": FieldKind.CODING,
    b"connection": FieldKind.CONNECTION,
    b"upgrade": FieldKind.UPGRADE,
    b"te": FieldKind.TE,
    b"expect": FieldKind.EXPECT,
    b"via": FieldKind.VIA,
    b"max-forwards": FieldKind.MAX_FORWARDS,
    b"keep-alive": FieldKind.HOP,
    b"proxy-connection": FieldKind.HOP,
    b"proxy-authorization": FieldKind.PROXY_CREDENTIALS,
    b"proxy-authenticate": FieldKind.HOP,
    b"proxy": FieldKind.HOP,  # No field of HTTP; servers that hand fields on as variables take it for HTTP_PROXY.
    b"trailer": FieldKind.HOP,
    b"authorization": FieldKind.CREDENTIALS,
    b"x-api-key": FieldKind.API_KEY,
    b"traceparent": FieldKind.TRACEPARENT,
    b"tracestate": FieldKind.TRACESTATE,
    b"x-request-id": FieldKind.REQUEST_ID,
    b"x-forwarded-for": FieldKind.FORWARDED_FOR,
    b"x-forwarded-proto": FieldKind.FORWARDED_PROTO,
    b"x-forwarded-host": FieldKind.FORWARDED_HOST,
    b"x-forwarded-port": FieldKind.ORIGIN,
    b"x-real-ip": FieldKind.ORIGIN,
    b"forwarded": FieldKind.ORIGIN,
    **{name.lower(): FieldKind.STAMP for name in STAMPS},
}
"""Request fields that are more than a line to pass on. Their other spellings never pass at all."""

AUTHORIZATION: Final = b"authorization"

KEY_FIELDS: Final = (b"x-api-key", AUTHORIZATION)
"""The fields for keys, unless a configuration says otherwise."""

FOLD_TABLE: Final = bytes(each if chr(each).isalnum() and each < 128 else ord("-") for each in range(256))
"""Servers that hand fields on as variables (CGI, WSGI, PHP) cannot tell X_Customer.Id from X-Customer-Id."""

RESPONSE: Final[dict[bytes, FieldKind]] = {
    b"content-length": FieldKind.LENGTH,
    b"transfer-encoding": FieldKind.CODING,
    b"connection": FieldKind.CONNECTION,
    b"upgrade": FieldKind.UPGRADE,
    b"keep-alive": FieldKind.HOP,
    b"proxy-connection": FieldKind.HOP,
    b"proxy-authenticate": FieldKind.HOP,
    b"proxy-authentication-info": FieldKind.HOP,
    b"te": FieldKind.HOP,
    b"trailer": FieldKind.HOP,
    b"x-request-id": FieldKind.STAMP,
    b"ratelimit": FieldKind.RATE,
    b"ratelimit-policy": FieldKind.RATE,
    b"ratelimit-limit": FieldKind.RATE,
    b"ratelimit-remaining": FieldKind.RATE,
    b"ratelimit-reset": FieldKind.RATE,
    **dict.fromkeys(BITS, FieldKind.SECURITY),
    **dict.fromkeys(PLACES, FieldKind.PLACE),
    b"date": FieldKind.DATE,
}
"""Response fields that are more than a line to pass on. The last three RateLimit fields are from earlier drafts."""

UNCACHED: Final = frozenset(
    (
        *(FieldKind.TRACEPARENT, FieldKind.TRACESTATE, FieldKind.REQUEST_ID, FieldKind.STAMP, FieldKind.ORIGIN),
        *(FieldKind.FORWARDED_FOR, FieldKind.FORWARDED_PROTO, FieldKind.FORWARDED_HOST),
        *(FieldKind.COOKIE, FieldKind.PROTOCOLS, FieldKind.PROXY_CREDENTIALS),
    )
)
"""Kinds of request lines that are new each time: not remembered by line."""

PROTECTED_FIELDS: Final = frozenset(
    name for name, kind in REQUEST.items() if kind in (FieldKind.HOST, FieldKind.LENGTH, FieldKind.ORIGIN)
)
"""Fields that stay though Connection names them; otherwise a client could take them away from the upstream. The stamps
need no mention here: they are added after Connection has been heeded.
"""

NOT_IN_TRAILERS: Final = frozenset(
    (
        *REQUEST,
        *RESPONSE,
        # Request modifiers,
        *(b"cache-control", b"pragma", b"range", b"if-match", b"if-none-match", b"if-range"),
        *(b"if-modified-since", b"if-unmodified-since"),
        # authentication,
        *(b"cookie", b"set-cookie", b"www-authenticate", b"authentication-info"),
        # the reading of the content,
        *(b"content-encoding", b"content-type", b"content-range", b"content-location"),
        # and what must be known before the content comes.
        *(b"accept-ranges", b"age", b"expires", b"location", b"retry-after", b"vary"),
    )
)
"""Names that are dropped from trailer sections (RFC 9110 section 6.5.1)."""


class FieldRules:
    """The kinds of request fields under one configuration.

    `keys`: the fields for API keys, in lower case; the first of them in a request holds its key. `cookie`: the name of
    the cookie that may hold one. `protocols`: whether one may come as a WebSocket's subprotocol. `basic`: whether one
    may come in Authorization with the scheme Basic. `strip`: names, and prefixes with `*` at their end, that pass from
    trusted proxies only, beside the names in config/edge/proxy_fields.py. `strip_except`: the names of that file that
    pass from every peer. All are in lower case.
    """

    def __init__(
        self,
        keys: tuple[bytes, ...] = KEY_FIELDS,
        *,
        cookie: bytes | None = None,
        protocols: bool = False,
        basic: bool = False,
        strip: tuple[str, ...] = (),
        strip_except: tuple[str, ...] = (),
    ) -> None:
        self.keys, self.cookie, self.protocols = keys, cookie, protocols
        self._table = {name: kind for name, kind in REQUEST.items() if name not in KEY_FIELDS}
        authorization = FieldKind.BASIC if basic else FieldKind.CREDENTIALS
        self._table |= {name: authorization if name == AUTHORIZATION else FieldKind.API_KEY for name in keys}
        if cookie is not None:
            self._table[b"cookie"] = FieldKind.COOKIE
        if protocols:
            self._table[b"sec-websocket-protocol"] = FieldKind.PROTOCOLS
        self._is_stripped, self._is_excepted = create_matcher(strip), create_matcher(strip_except)

    def classify(self, name: bytes) -> FieldKind:
        """Return the kind of a request's field; the name is in its sent spelling."""
        kind = _classify(name, self._table)
        if kind is not FieldKind.PASS:
            return kind
        folded = name.lower().translate(FOLD_TABLE)
        rule = self._table.get(folded) or (FieldKind.ORIGIN if self._is_origin(folded.decode("ascii")) else None)
        if rule is None:
            return FieldKind.PASS
        return rule if folded == name.lower() else FieldKind.HOP

    def _is_origin(self, name: str) -> bool:
        return self._is_stripped(name) or (is_proxy_field(name) and not self._is_excepted(name))


def classify_response_field(name: bytes) -> FieldKind:
    """Return the kind of a response's field; the name is in its sent spelling."""
    return _classify(name, RESPONSE)


def _classify(name: bytes, table: dict[bytes, FieldKind]) -> FieldKind:
    if not name or name.translate(None, TOKEN):
        return FieldKind.MALFORMED
    return table.get(name.lower(), FieldKind.PASS)
