"""The requests that a limit, a quota, a cap or a meter names: by their routes, and by the scopes that these ask for.

A part of the configuration that names neither is of all requests. One that names both is of those that either names.
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
        description="[Routes whose requests it is of](limits.md#routes): names, or patterns such as `chat-*`. By "
        "default all; of a quota, a cap or a budget the routes that feed its meter.",
    ),
]
HeldScopes = Annotated[
    tuple[Scope, ...],
    Field(default=(), description="Scopes: it is of the requests of each route that asks for one of them, too."),
]


class Selecting(Protocol):
    """A part of the configuration that names requests."""

    @property
    def routes(self) -> tuple[str, ...]:
        """Names of routes, and patterns of such."""

    @property
    def scopes(self) -> tuple[str, ...]:
        """Scopes that routes ask for."""


class SelectableRoute(Protocol):
    """A route, as far as it matters for which limits name it."""

    @property
    def label(self) -> str:
        """The name of the route in usage and metrics."""

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes that a key must have."""

    @property
    def response_usage(self) -> object:
        """The way in which bodies of its answers state usage; None where none is read."""


def is_of_all(part: Selecting) -> bool:
    """Return whether a part names no requests, and so is of all."""
    return not (part.routes or part.scopes)


class RouteSelector:
    """The routes of a configuration, among which parts of it, and of the directory, name some.

    `routes`: None where the names of parts are known to be right. `report` is called with a name that no route has.
    """

    def __init__(
        self, routes: Sequence[SelectableRoute] | None = None, report: Callable[[str], None] | None = None
    ) -> None:
        self._routes, self._report = routes, report

    def selects(self, part: Selecting, route: SelectableRoute) -> bool:
        """Return whether a part is of the requests of this route.

        A part of the directory may name a route that was renamed here. Then it is of all requests: a limit that holds
        too much is noticed, and one that holds nothing is not.
        """
        if is_of_all(part) or names_route(part, route):
            return True
        unknown = None if self._routes is None else find_unknown_route(part, self._routes)
        if unknown is not None and self._report is not None:
            self._report(unknown)
        return unknown is not None


ANY_ROUTES: Final = RouteSelector()
"""A selector for parts whose names are known to be right."""


def names_route(part: Selecting, route: SelectableRoute) -> bool:
    """Return whether a part names this route, by itself or by a scope."""
    if not route.scopes.isdisjoint(part.scopes):
        return True
    return any(matches_pattern(pattern, route.label) for pattern in part.routes)


def find_unknown_route(part: Selecting, routes: Iterable[SelectableRoute]) -> str | None:
    """Find the first route or scope that a part names and no route has, such as `route chat`."""
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
    """Return whether a pattern is of the label of a route: `*` stands for any characters, none included."""
    if "*" not in pattern:
        return pattern == label
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), label, re.DOTALL) is not None
