"""Well-formed paths that are refused: paths that could bypass a route, and paths that the configuration rejects."""

import re
from typing import TYPE_CHECKING

from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1.grammar import TARGET
from edgeproxy.edge.http1.path import ESCAPED_SLASH, list_readings

if TYPE_CHECKING:
    from edgeproxy.config.edge.paths import Paths
    from edgeproxy.edge.proxy.routing.binding import Route
    from edgeproxy.edge.proxy.routing.conditions import RoutedRequest
    from edgeproxy.edge.proxy.routing.router import Site


class PathRules:
    """The rules of a configuration about paths."""

    __slots__ = ("rejected", "usual_line")

    def __init__(self, settings: "Paths") -> None:
        self.rejected = tuple(part.encode() for part in settings.reject)
        usual = TARGET.translate(None, b"".join(part for part in self.rejected if len(part) == 1))
        path, query = re.escape(usual.replace(b"?", b"")), re.escape(usual)
        self.usual_line = re.compile(rb"([A-Z-]+) (/[%b]*)(\?[%b]*)? HTTP/1\.1\r\n" % (path, query)).match
        """Matches the request line at the start of a head, and returns its method, path and query.

        Their bytes need no further check, except for escapes and dot segments, which are always checked. None for any
        other line.
        """

    def check(self, path: bytes, method: bytes, site: "Site[Route]", request: "RoutedRequest") -> None:
        """Raise RejectedError(400) for a normalized path that is rejected, or that belongs to another route when
        unescaped.
        """
        for part in self.rejected:
            if part in path:
                raise RejectedError(400, f"The path has {part.decode()}, which is not accepted here")
        if ESCAPED_SLASH in path:
            check_slashes(path, method, site, request)


def check_slashes(path: bytes, method: bytes, site: "Site[Route]", request: "RoutedRequest") -> None:
    """Raise RejectedError(400) if a server that unescapes slashes would take the path for another route's.

    Otherwise the users of one route could reach, through it, the paths that another route guards.
    """
    try:
        route = site.match(path, method, request)
    except RejectedError:
        return  # The router reports this later, after the address is charged.
    for reading in list_readings(path):
        if find_route(reading, method, site, request) is not route:
            raise RejectedError(400, "The path has an escaped slash, and would be another route's with a plain one")


def find_route(path: bytes, method: bytes, site: "Site[Route]", request: "RoutedRequest") -> "Route | None":
    """Return the route that this path would take."""
    try:
        return site.match(path, method, request)
    except RejectedError:
        return None
