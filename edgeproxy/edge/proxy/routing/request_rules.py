"""Rules about single requests, as far as they apply to requests of one route."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from edgeproxy.edge.http1.field_values import find_values
from edgeproxy.edge.http1.path import list_readings

if TYPE_CHECKING:
    from edgeproxy.config.edge.rules import RequestRule
    from edgeproxy.edge.http1.request import RequestHead


class InspectedRequest(Protocol):
    """The interface of a request to rules, see `Exchange`."""

    method: bytes
    path: bytes
    keep: bytes
    length: int
    head: "RequestHead"


class Condition:
    """The requests that a rule matches."""

    def __init__(self, settings: "RequestRule") -> None:
        self.settings = settings
        path = settings.path
        self._exact = path.encode() if path is not None and not path.endswith("/*") else None
        self._prefix = path[:-1].encode() if path is not None and path.endswith("/*") else b""
        self._methods = None if settings.methods is None else frozenset(name.encode() for name in settings.methods)
        self._field = None if settings.field is None else settings.field.lower().encode()
        self._contains = (settings.contains or "").lower().encode()

    def matches(self, request: InspectedRequest) -> bool:
        """Return whether the rule matches a request."""
        settings = self.settings
        if settings.path is not None and not self._matches_path(request.path):
            return False
        if self._methods is not None and request.method not in self._methods:
            return False
        if settings.larger is not None and not (request.length > settings.larger or request.head.chunked):
            return False
        if self._field is None:
            return True
        # If a cookie holds the key, the other cookies are in `unkeyed` instead of `keep`.
        values = find_values(request.head.unkeyed + request.keep, self._field)
        return any(self._contains in value.lower() for value in values)

    def _matches_path(self, path: bytes) -> bool:
        """Return whether this is the rule's path, or some server may take it for that one."""
        exact = self._exact
        paths = (path, *list_readings(path))
        if exact is None:
            return any((path + b"/").startswith(self._prefix) for path in paths)
        return exact in paths


def select_conditions(rules: "Iterable[RequestRule]", path: str) -> tuple[Condition, ...]:
    """Return the rules that may match requests on a route with this path."""
    return tuple(Condition(rule) for rule in rules if rule.path is None or paths_overlap(rule.path, path))


def paths_overlap(one: str, other: str) -> bool:
    """Return whether some path may match both. `/v1/*` matches `/v1` too, as in the router."""
    if "/*/" in other:
        return True  # A route with wildcards may lead to any path, and `Condition` compares the path itself.
    if one.endswith("/*") and other.endswith("/*"):
        return one[:-1].startswith(other[:-1]) or other[:-1].startswith(one[:-1])
    if one.endswith("/*"):
        return f"{other}/".startswith(one[:-1])
    return one == other or (other.endswith("/*") and f"{one}/".startswith(other[:-1]))
