"""Authorization of requests to the admin listener. Pure."""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edgeproxy.base.bearer import InvalidTokenError, Tokens
from edgeproxy.config.addresses import is_loopback
from edgeproxy.config.edge.admin import Admin

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that are answered at an address without a token."""
LOCAL = "local"
"""The caller at a loopback address without tokens: any process on this host."""
ANYONE = "-"
"""The caller of an open path."""


class AdminRequest(NamedTuple):
    """The parts of a request that decide whether it is authorized."""

    path: str
    hosts: Sequence[str]
    """The values of its `Host` fields."""
    origin: str | None
    authorization: str | None
    local: str
    """The local IP address of the connection."""


class AdminRefusedError(Exception):
    """The request is refused with this status, a reason, and further fields."""

    def __init__(self, status: int, why: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, why)
        self.status = status
        self.why = why
        self.headers = dict(headers or {})


def identify_caller(request: AdminRequest, admin: Admin, now: float) -> str:
    """Return the name of the caller at the Unix second `now`. Raises AdminRefusedError.

    Pages of other sites and names that resolve to this host (DNS rebinding) may not act for an operator. A browser
    sends a page's requests only with its Origin or its own Host.
    """
    if request.origin is not None:
        raise AdminRefusedError(403, "requests of web pages are not answered here")
    if len(request.hosts) > 1 or not all(is_known_host(host, admin, request.local) for host in request.hosts):
        raise AdminRefusedError(421, "Host is neither this address nor one of admin.hosts")
    if request.path in OPEN_PATHS:
        return ANYONE
    if not admin.tokens and is_loopback(request.local):
        return LOCAL
    try:
        return Tokens(admin.tokens).holder(request.authorization, now).label
    except InvalidTokenError as error:
        raise AdminRefusedError(401, str(error), {"WWW-Authenticate": error.challenge}) from None


def is_known_host(host: str, admin: Admin, local: str) -> bool:
    """Return whether a `Host` field names the listener: by the connection's local address, the configured one, or a
    configured name.

    The port is ignored, because it may be published as another one.
    """
    name = strip_port(host).lower().removesuffix(".")
    known = {local, *admin.hosts}
    if admin.address is not None:
        known.add(admin.address.host)
    if is_loopback(local):
        known.add("localhost")
    return name in known


def strip_port(host: str) -> str:
    """Return the host of a `Host` field, in canonical form without brackets for an IPv6 address; empty if it is
    malformed.
    """
    if host.startswith("["):
        host = host[1:].partition("]")[0]
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            return ""
    name, _, port = host.partition(":")
    return name if not port or port.isdecimal() else ""
