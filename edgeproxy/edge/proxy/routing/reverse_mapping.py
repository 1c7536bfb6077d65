"""The way back of `strip` and `prefix`: paths in answers become the paths that clients request.

An upstream with rewritten paths does not know its clients' paths. Its own references are mapped as by nginx's
proxy_redirect and proxy_cookie_path and by Apache's ProxyPassReverse. Pure functions of answers and configuration.
"""

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from edgeproxy.edge.http1.grammar import OWS
from edgeproxy.edge.http1.security_fields import PLACES

if TYPE_CHECKING:
    from edgeproxy.config.edge.rewrites import Rewrite

PLACE: Final = re.compile(rb"(?:(?:(https?):)?//([^/?#]*))?(/[^?#]*)?([?#].*)?", re.IGNORECASE)
"""The pattern of a reference that begins with a scheme, an authority or a path from the root. Other references are
relative and right unchanged.
"""

ODD: Final = re.compile(rb"[\x00-\x20\x7f\\]")
"""Bytes that a reference cannot have. Browsers drop some of them, and take others for a slash."""

REFRESH: Final = re.compile(rb"([0-9.]+[ \t]*[;,][ \t]*(?:url[ \t]*=[ \t]*)?(['\"]?))(.*)", re.IGNORECASE)
"""Seconds, and a URL, which may be in quotes."""

PORTS: Final = {b"http": b":80", b"https": b":443"}


class ReverseMapping:
    """The mapping of one route: its clients' paths begin with `public`, and its upstream's with `inner`."""

    __slots__ = ("_cookies", "_inner", "_locations", "_public")

    def __init__(self, public: str, inner: str, *, locations: bool = True, cookies: bool = True) -> None:
        self._public, self._inner = public.encode(), inner.encode()
        self._locations = locations
        self._cookies = cookies and bool(public)
        """True if cookies are mapped. Without `public`, clients would send them for more paths than now, maybe to other
        services.
        """

    def __bool__(self) -> bool:
        """Return whether it changes anything."""
        return self._public != self._inner and (self._locations or self._cookies)

    def apply(self, lines: bytes, authority: bytes | None, own: Collection[bytes]) -> bytes:
        """Return the head of an answer, without its blank line, for the client.

        `authority` is the one that the client requested; `own` are the authorities of the edge's requests to the
        service.
        """
        return b"".join([self._map_line(line, authority, own) + b"\r\n" for line in lines.split(b"\r\n")[:-1]])

    def _map_line(self, line: bytes, authority: bytes | None, own: Collection[bytes]) -> bytes:
        name, _, value = line.partition(b":")
        field = name.lower()
        if field not in PLACES:
            return line
        value = value.strip(OWS)
        if field == b"set-cookie":
            mapped = self.map_cookie(value) if self._cookies else value
        elif not self._locations:
            mapped = value
        elif field == b"refresh":
            mapped = self.map_refresh(value, authority, own)
        else:
            mapped = self.map_reference(value, authority, own)
        return line if mapped == value else b"%b: %b" % (name, mapped)

    def map_reference(self, value: bytes, requested: bytes | None, own: Collection[bytes]) -> bytes:
        """Return the mapped reference. A reference to another host stays unchanged."""
        match = PLACE.fullmatch(value)
        if match is None or ODD.search(value):
            return value
        scheme, authority, path, rest = match.groups()
        before = b""
        if authority is not None:
            port = PORTS.get((scheme or b"").lower(), b"")
            named = _remove_port(authority, port)
            if requested is not None and named == _remove_port(requested, port):
                before = value[: match.end(2)]
            elif named not in [_remove_port(each, port) for each in own]:
                return value
        elif path is None:
            return value
        mapped = self.map_path(path or b"/")
        return value if mapped is None else before + mapped + (rest or b"")

    def map_path(self, path: bytes) -> bytes | None:
        """Return an upstream's path as clients request it; None if they cannot.

        A service may know its public path and send that. If a path fits both readings, the longer beginning wins.
        """
        public, inner = self._public, self._inner
        is_inner = _is_below(path, inner)
        if public and _is_below(path, public) and not (is_inner and len(inner) > len(public)):
            return path
        if not is_inner:
            return None
        rest = path[len(inner) :]
        # With two slashes at its beginning it would name a host.
        return public + rest if public else b"/" + rest.lstrip(b"/")

    def map_refresh(self, value: bytes, authority: bytes | None, own: Collection[bytes]) -> bytes:
        """Return the mapped value of Refresh."""
        match = REFRESH.fullmatch(value)
        if match is None:
            return value
        before, quote, place = match.groups()
        place, quote, behind = place.partition(quote) if quote else (place, b"", b"")
        return before + self.map_reference(place, authority, own) + quote + behind

    def map_cookie(self, value: bytes) -> bytes:
        """Return the mapped value of Set-Cookie.

        A cookie that must have the root path keeps it (RFC 6265bis 4.1.3.2).
        """
        if value[:7].lower() == b"__host-":
            return value
        first, *attributes = value.split(b";")
        return b";".join([first, *map(self._map_attribute, attributes)])

    def _map_attribute(self, attribute: bytes) -> bytes:
        name, _, value = attribute.partition(b"=")
        path = value.strip(OWS)
        if name.strip(OWS).lower() != b"path" or not path.startswith(b"/"):
            return attribute
        # A path for the whole service, or more, becomes the path of everything that clients reach of it.
        mapped = self._public if _is_below(self._inner, path.rstrip(b"/")) else self.map_path(path)
        return attribute if mapped is None else b"%b=%b" % (name, mapped)


SAME: Final = ReverseMapping("", "")
"""The mapping of a route that changes no path."""


def create_reverse_mapping(rewrite: "Rewrite", base: str) -> ReverseMapping | None:
    """Return the mapping of a route of a prefix; None if there is nothing to map. `base` as for a Rewriter.

    A regular expression has no way back.
    """
    if rewrite.regex is not None:
        return None
    inner = base + (rewrite.prefix or "")
    made = ReverseMapping(rewrite.strip or "", inner, locations=rewrite.locations, cookies=rewrite.cookies)
    return made or None


def _is_below(path: bytes, prefix: bytes) -> bool:
    return path == prefix or path.startswith(prefix + b"/")


def _remove_port(authority: bytes, port: bytes) -> bytes:
    return authority.lower().removesuffix(port)
