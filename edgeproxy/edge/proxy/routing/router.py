"""Routing: the host first, then the exact path, then the longest prefix.

`/v1/*` is also the route of `/v1`, unless another route has exactly that path. Routes without a host apply to every
host, after the routes of that host. Routes may have wildcard segments, and conditions about the request: only a host
with such routes pays for them (`ConditionalSite`). The matched path is exactly the path that will be forwarded
(edge/http1/path.py), so no request can be routed as one path and served as another.
"""

from collections.abc import Collection, Iterable, Mapping
from itertools import count
from typing import Generic, Never, Protocol, TypeVar, Union

from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.routing.conditions import Conditions, RoutedRequest


class Routable(Protocol):
    """The interface of a route to the router; `path` ends with `/*` if it is a prefix.

    `conditions` is None if the route has none. A route with `is_flagged` does not exist for every client, so errors do
    not reveal its methods.
    """

    @property
    def host(self) -> bytes | None: ...
    @property
    def path(self) -> bytes: ...
    @property
    def methods(self) -> frozenset[bytes] | None: ...
    @property
    def conditions(self) -> Conditions | None: ...
    @property
    def is_flagged(self) -> bool: ...


R = TypeVar("R", bound=Routable)
RouteT = TypeVar("RouteT", bound=Routable, covariant=True)


class Site(Generic[RouteT]):
    """The routes of one host: layers, the more specific host's first."""

    __slots__ = ("_layers", "_own_layers")

    def __init__(self, layers: "Iterable[_Layer[RouteT]]") -> None:
        self._layers = self._own_layers = tuple(layers)

    def put_first(self, layer: "_Layer[RouteT] | None") -> None:
        """Match the routes of this layer before all others; None: match only the site's own."""
        self._layers = self._own_layers if layer is None else (layer, *self._own_layers)

    def match(self, path: bytes, method: bytes, request: RoutedRequest) -> RouteT:
        """Return the route for this path and method. Only a `ConditionalSite` looks at `request`.

        Raises RejectedError(404), or 405 if other methods have a route.
        """
        routes = _find_routes(self._layers, path)
        if routes is None:
            raise create_no_route_error()
        if isinstance(routes, list):
            return _select_by_method(routes, method)
        methods = routes.methods
        if methods is None or method in methods:
            return routes
        return _select_by_method([routes], method)

    def find_nearest(self, path: bytes, method: bytes, request: RoutedRequest) -> "RouteT | None":
        """Return the route whose CORS settings apply to a refused request; None if there is none.

        That is the requested route, or else the first one of its path, with any method, that exists for every client.
        """
        try:
            return self.match(path, method, request)
        except RejectedError:
            routes = self._find(path, request)
        listed = routes if isinstance(routes, list) else [] if routes is None else [routes]
        return next((route for route in listed if not route.is_flagged), None)

    def _find(self, path: bytes, request: RoutedRequest) -> "_Entry[RouteT] | None":
        return _find_routes(self._layers, path)


class ConditionalSite(Site[RouteT]):
    """The routes of a host whose routes, or those of a wider host, have wildcard segments or conditions.

    A route whose conditions a request does not meet is no route of that request.
    """

    __slots__ = ("_trees",)

    def __init__(self, layers: "Iterable[PathTree[RouteT]]") -> None:
        super().__init__(())
        self._trees = tuple(layers)

    def match(self, path: bytes, method: bytes, request: RoutedRequest) -> RouteT:
        """Return the route for this path, method and request. Raises as `Site.match`."""
        routes = self._find(path, request)
        if routes is None:
            raise create_no_route_error()
        return _select_by_method(routes, method)

    def _find(self, path: bytes, request: RoutedRequest) -> "list[RouteT] | None":
        # The only layer is the one of `put_first`: all other routes are in the trees.
        if self._layers and (first := _find_routes(self._layers, path)) is not None:
            return first if isinstance(first, list) else [first]
        for number, tree in zip(count(1), self._trees):
            matched = [
                (routes, is_name) for each, is_name in tree.list_routes(path) if (routes := _meet(each, request))
            ]
            # As in `_create_layer`: `/v1` of a wider host comes before the name of `/v1/*` here.
            is_alone = len(matched) == 1 and matched[0][1]
            if is_alone and any(_meet(wider.exact.get(path, []), request) for wider in self._trees[number:]):
                continue
            if matched:
                return matched[0][0]
        return None


class PathTree(Generic[RouteT]):
    """The routes of one host by the segments of their paths."""

    __slots__ = ("_root", "exact")

    def __init__(self, routes: "Iterable[RouteT]") -> None:
        self.exact: dict[bytes, list[RouteT]] = {}
        """The routes of paths without wildcards."""
        self._root: _Node[RouteT] = _Node()
        for route in sorted(routes, key=_rank):
            *segments, last = route.path[1:].split(b"/")
            node = self._root
            for segment in (*segments, *(() if last == b"*" else (last,))):
                node = node.add(segment)
            (node.below if last == b"*" else node.here).append(route)
            if last != b"*" and b"*" not in segments:
                self.exact.setdefault(route.path, []).append(route)

    def list_routes(self, path: bytes) -> "list[tuple[list[RouteT], bool]]":
        """List the routes of each matching path, the most specific path first; True beside the name of a prefix.

        A tree has as many nodes as its paths have segments, and each is visited once at most.
        """
        matched: list[tuple[list[RouteT], bool]] = []
        if path.startswith(b"/"):
            self._root.visit(path[1:].split(b"/"), 0, matched)
        return matched


class _Node(Generic[RouteT]):
    """A beginning of paths: the routes that end here, and all that follows."""

    __slots__ = ("any", "below", "here", "literals")

    def __init__(self) -> None:
        self.here: list[RouteT] = []
        self.below: list[RouteT] = []
        """The routes of the prefix that ends here."""
        self.literals: dict[bytes, _Node[RouteT]] = {}
        self.any: _Node[RouteT] | None = None
        """The node behind a wildcard segment."""

    def add(self, segment: bytes) -> "_Node[RouteT]":
        """Return the node behind a segment, a new one if needed."""
        if segment != b"*":
            return self.literals.setdefault(segment, _Node())
        self.any = self.any or _Node()
        return self.any

    def visit(self, segments: list[bytes], position: int, matched: "list[tuple[list[RouteT], bool]]") -> None:
        """Append the routes of the rest of a path: a literal segment before a wildcard, and a prefix last."""
        if position == len(segments):
            matched.append((self.here, False))
            matched.append((self.below, True))
            return
        segment = segments[position]
        if (literal := self.literals.get(segment)) is not None:
            literal.visit(segments, position + 1, matched)
        if self.any is not None and segment:
            self.any.visit(segments, position + 1, matched)
        matched.append((self.below, False))


def _meet(routes: list[RouteT], request: RoutedRequest) -> list[RouteT]:
    """Return the routes whose conditions a request meets."""
    return [route for route in routes if route.conditions is None or route.conditions.matches(request)]


def _rank(route: Routable) -> tuple[int, int]:
    return (0, 0) if route.conditions is None else route.conditions.rank


def _is_conditional(routes: Iterable[Routable]) -> bool:
    return any(route.conditions is not None or b"/*/" in route.path for route in routes)


NO_SITE: Site[Never] = Site(())
"""The site of a request without a Host, until it is known."""


class Router(Generic[R]):
    """All routes of a configuration, by host."""

    def __init__(self, routes: Iterable[R]) -> None:
        by_host: dict[bytes | None, list[R]] = {None: []}
        routes = list(routes)
        for route in routes:
            by_host.setdefault(route.host, []).append(route)
        # "*.a.example.com" before "*.example.com": the longer suffix is more specific.
        hosts = [host for host in by_host if host is not None]
        self._suffixes = sorted((host[1:] for host in hosts if host.startswith(b"*.")), key=len, reverse=True)
        wider: dict[bytes | None, list[bytes | None]] = {None: []}
        for host in hosts:
            own = host.removeprefix(b"*")
            suffixes = [suffix for suffix in self._suffixes if own.endswith(suffix) and own != suffix]
            wider[host] = [*(b"*" + suffix for suffix in suffixes), None]
        # Each layer is created once, though the wider ones belong to many sites.
        layers = {
            host: _create_layer(listed, {route.path for each in wider[host] for route in by_host[each]})
            for host, listed in by_host.items()
        }
        trees = {host: PathTree(listed) for host, listed in by_host.items()} if _is_conditional(routes) else {}
        sites: dict[bytes | None, Site[R]] = {}
        for key in by_host:
            names = key, *wider[key]
            if any(_is_conditional(by_host[each]) for each in names):
                sites[key] = ConditionalSite([trees[each] for each in names])
            else:
                sites[key] = Site([layers[each] for each in names])
        self._anywhere = sites[None]
        self._sites = tuple(sites.values())
        self._exact: dict[bytes, Site[R]] = {}
        self._by_suffix: dict[bytes, Site[R]] = {}
        for name in hosts:
            own = name.removeprefix(b"*")
            (self._exact if own == name else self._by_suffix)[own] = sites[name]

    def put_first(self, routes: Iterable[R]) -> None:
        """Match these routes before all others, at any host, until the next call. Sites stay the same objects."""
        first = list(routes)
        layer = _create_layer(first, ()) if first else None
        for site in self._sites:
            site.put_first(layer)

    def find_site(self, host: bytes | None) -> Site[R]:
        """Return the site of a host; `host` in lower case, without port and trailing dot, or None if none was sent."""
        if host is not None:
            site = self._exact.get(host)
            if site is not None:
                return site
            for suffix in self._suffixes:
                if host.endswith(suffix):
                    return self._by_suffix[suffix]
        return self._anywhere


def create_no_route_error() -> RejectedError:
    """Return the error of a path without a route, or without a route for this client."""
    return RejectedError(404, "No route leads here", close=False)


_Entry = Union[R, list[R]]  # noqa: UP007 - a generic alias
_Layer = tuple[Mapping[bytes, _Entry[R]], Mapping[bytes, _Entry[R]], tuple[int, ...]]


def _find_routes(layers: "tuple[_Layer[R], ...]", path: bytes) -> "_Entry[R] | None":
    """Find the routes of a path: the routes of the most specific host that has any."""
    for exact, prefixes, lengths in layers:
        routes = exact.get(path) if exact else None
        if routes is not None:
            return routes
        for length in lengths:
            routes = prefixes.get(path[:length])
            if routes is not None:
                return routes
    return None


def _create_layer(routes: Iterable[R], elsewhere: Collection[bytes]) -> _Layer[R]:
    """Create (exact paths, prefixes, the prefixes' lengths with the longest first); several methods of a path are in a
    list.

    `elsewhere`: the paths of the routes of wider hosts. A route `/v1` there comes before the route `/v1/*` here, unless
    another prefix here covers it.
    """
    exact: dict[bytes, list[R]] = {}
    prefixes: dict[bytes, list[R]] = {}
    for route in routes:
        if route.path.endswith(b"/*"):
            prefixes.setdefault(route.path[:-1], []).append(route)
        else:
            exact.setdefault(route.path, []).append(route)
    for prefix, of_prefix in prefixes.items():
        name = prefix[:-1]
        if name and (name not in elsewhere or any(name.startswith(around) for around in prefixes)):
            exact.setdefault(name, of_prefix)
    lengths = tuple(sorted({len(prefix) for prefix in prefixes}, reverse=True))
    return _unwrap_single(exact), _unwrap_single(prefixes), lengths


def _unwrap_single(paths: dict[bytes, list[R]]) -> dict[bytes, _Entry[R]]:
    """Replace the list of a path by its route if there is only one, which is the usual case on the request path."""
    return {path: routes[0] if len(routes) == 1 else routes for path, routes in paths.items()}


def _select_by_method(routes: list[R], method: bytes) -> R:
    """Return the route of this path that takes `method`.

    The first that names it goes first. A route without methods takes all methods that no other names.
    """
    anything = None
    allowed: set[bytes] = set()
    for route in routes:
        if route.methods is None:
            anything = anything or route
        elif method in route.methods:
            return route
        elif not route.is_flagged:
            allowed |= route.methods
    if anything is not None:
        return anything
    if not allowed:
        raise create_no_route_error()
    allow = b", ".join(sorted(allowed))
    raise RejectedError(405, "The method is not allowed here", close=False, fields=b"Allow: %b\r\n" % allow)
