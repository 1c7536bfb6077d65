"""The conditions of a route about fields and the query of a request. Most routes have none."""

from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote_to_bytes

from edgeproxy.config.edge.conditions import ANY
from edgeproxy.edge.http1.field_values import find_values
from edgeproxy.edge.proxy.routing.cors import HEADERS, RequestWithFields, is_preflight

if TYPE_CHECKING:
    from collections.abc import Mapping


class RoutedRequest(RequestWithFields, Protocol):
    """The interface of a request to conditions, see `Exchange`."""

    @property
    def request_line(self) -> bytes: ...


class Conditions:
    """The conditions of one route: each name with the accepted values, or None if any value is accepted."""

    __slots__ = ("_fields", "_parameters", "rank")

    def __init__(self, headers: "Mapping[str, tuple[str, ...]]", query: "Mapping[str, tuple[str, ...]]") -> None:
        self._fields = {name.lower().encode(): _encode(values) for name, values in headers.items()}
        self._parameters = {name.encode(): _encode(values) for name, values in query.items()}
        self.rank = -len(self._fields), -len(self._parameters)
        """The order among routes of one path: the lowest goes first."""

    def __bool__(self) -> bool:
        """Return whether there is any condition."""
        return bool(self._fields or self._parameters)

    def matches(self, request: RoutedRequest) -> bool:
        """Return whether a request meets all conditions."""
        return self._match_fields(request) and self._match_parameters(request.request_line)

    def _match_fields(self, request: RoutedRequest) -> bool:
        if not self._fields:
            return True
        # If a field holds the key, its other values are in `unkeyed` instead of `keep`.
        lines = request.head.unkeyed + request.keep
        announced: frozenset[bytes] = frozenset()
        if is_preflight(request):
            # A browser sends a preflight without the fields of the request that it asks about.
            listed = b",".join(find_values(lines, HEADERS)).lower().split(b",")
            announced = frozenset(name.strip() for name in listed)
        for name, accepted in self._fields.items():
            values = find_values(lines, name)
            if not values:
                if name not in announced:
                    return False
            elif accepted is not None and b", ".join(values) not in accepted:
                return False
        return True

    def _match_parameters(self, line: bytes) -> bool:
        if not self._parameters:
            return True
        # The first question mark of a request line begins the query, and the last space ends it.
        _, question, query = line.partition(b"?")
        values: dict[bytes, list[bytes]] = {name: [] for name in self._parameters}
        for pair in query.rpartition(b" ")[0].split(b"&") if question else ():
            name, _, value = pair.partition(b"=")
            of_name = values.get(_decode(name))
            if of_name is not None and pair:
                of_name.append(_decode(value))
        return all(
            values[name] if accepted is None else len(values[name]) == 1 and values[name][0] in accepted
            for name, accepted in self._parameters.items()
        )


def _encode(values: tuple[str, ...]) -> frozenset[bytes] | None:
    return None if ANY in values else frozenset(value.encode() for value in values)


def _decode(text: bytes) -> bytes:
    """Decode a name or value of a query, as forms write them (URL Standard, section 5.1)."""
    return unquote_to_bytes(text.replace(b"+", b" "))
