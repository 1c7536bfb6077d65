"""The values of the variables that a route's `rewrite.request.set` may have (docs/edge/rewrites.md#variables)."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from edgeproxy.config.edge.rewrites import HEADER
from edgeproxy.edge.http1.field_values import find_values
from edgeproxy.edge.proxy.exchange.response_relay import FORWARDED_HOST
from edgeproxy.edge.proxy.metering.labels import NO_LABEL

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.exchange.response_relay import ResponseRelay
    from edgeproxy.edge.proxy.routing.binding import RouteBinding


def compute_variable(exchange: "ResponseRelay", binding: "RouteBinding", name: str) -> bytes:
    """Return the value of a variable for a request; empty if there is none. The lines of a header are joined."""
    if name.startswith(HEADER):
        return b", ".join(find_values(exchange.keep, name.removeprefix(HEADER).lower().encode()))
    return FINDERS[name](exchange, binding)


def _find_host(exchange: "ResponseRelay", _: "RouteBinding") -> bytes:
    return next(iter(find_values(exchange.keep, FORWARDED_HOST)), b"")


def _format_label(label: str) -> bytes:
    return b"" if label == NO_LABEL else label.encode()


FINDERS: Final[Mapping[str, Callable[["ResponseRelay", "RouteBinding"], bytes]]] = MappingProxyType(
    {
        "client.address": lambda exchange, _: exchange.client.address.text.encode(),
        "request.host": _find_host,
        "request.method": lambda exchange, _: exchange.method,
        "request.path": lambda exchange, _: exchange.path,
        "request.id": lambda exchange, _: exchange.get_request_id(),
        "request.scheme": lambda exchange, _: b"https" if exchange.is_secure() else b"http",
        "customer.id": lambda _, binding: _format_label(binding.customer),
        "customer.tier": lambda _, binding: _format_label(binding.tier),
        "user.name": lambda _, binding: binding.user.encode(),
        "route.name": lambda _, binding: binding.route.label.encode(),
    }
)
"""The value of each variable but headers."""
