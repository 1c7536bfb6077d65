"""The requests that a limit, quota, cap or meter selects, by their routes and by the scopes that routes require.

A part of the configuration that names neither selects all requests. One that names both selects the requests of either.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Annotated, Final, Protocol

from pydantic import Field

from edgeproxy.config.field_types import RoutePattern, Scope

HeldRoutes = Annotated[
    tuple[RoutePattern, ...],
    Field(
        default=(),
        description="[Routes that it applies to](limits.md#routes): names, or patterns such as `chat-*`. By default "
        "all; for a quota, a cap or a budget, the routes that feed its meter.",
    ),
]
HeldScopes = Annotated[
    tuple[Scope, ...],
    Field(default=(), description="Scopes: it also applies to each route that requires one of these scopes."),
]


class Selecting(Protocol):
    """A part of the configuration that selects requests."""

    @property
    def routes(self) -> tuple[str, ...]:
        """Names of routes, and patterns of names."""

    @property
    def scopes(self) -> tuple[str, ...]:
        """Scopes that routes require."""


class SelectableRoute(Protocol):
    """A route, with the properties that selections use."""

    @property
    def label(self) -> str:
        """The name of the route in usage and metrics."""

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes that a key must have."""

    @property
    def response_usage(self) -> object:
        """The format of usage in the bodies of its answers. None: they are not read."""


def is_of_all(part: Selecting) -> bool:
    """Return whether a part selects all requests."""
    return not (part.routes or part.scopes)


class RouteSelector:
    """The routes of a configuration. Parts of it and of the directory select some of them.

    `routes`: None if the names in parts are known to be valid. `report` is called with each name that no route has.
    """

    def __init__(
        self, routes: Sequence[SelectableRoute] | None = None, report: Callable[[str], None] | None = None
    ) -> None:
        self._routes, self._report = routes, report

    def selects(self, part: Selecting, route: SelectableRoute) -> bool:
        """Return whether a part selects the requests of this route.

        A part of the directory may name a route that was renamed here. Then it selects all requests, because people
        notice a limit that refuses too much, and do not notice one that refuses nothing.
        """
        if is_of_all(part) or names_route(part, route):
            return True
        unknown = None if self._routes is None else find_unknown_route(part, self._routes)
        if unknown is not None and self._report is not None:
            self._report(unknown)
        return unknown is not None


ANY_ROUTES: Final = RouteSelector()
"""A selector for parts whose names are known to be valid."""


def names_route(part: Selecting, route: SelectableRoute) -> bool:
    """Return whether a part names this route, directly or by a scope."""
    if not route.scopes.isdisjoint(part.scopes):
        return True
    return any(matches_pattern(pattern, route.label) for pattern in part.routes)


def find_unknown_route(part: Selecting, routes: Iterable[SelectableRoute]) -> str | None:
    """Return the first route or scope that a part names and no route has, in the form `route chat`."""
    routes = tuple(routes)
    for pattern in part.routes:
        if not any(matches_pattern(pattern, route.label) for route in routes):
            return f"route {pattern}"
    for scope in part.scopes:
        if not any(scope in route.scopes for route in routes):
            return f"route with the scope {scope}"
    return None


@lru_cache(4096)
def matches_pattern(pattern: str, label: str) -> bool:
    """Return whether a pattern matches the label of a route. `*` matches any characters, including none."""
    if "*" not in pattern:
        return pattern == label
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), label, re.DOTALL) is not None
