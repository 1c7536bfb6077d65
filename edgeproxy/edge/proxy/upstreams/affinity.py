"""Affinity of an upstream: the endpoint for requests that belong together (docs/edge/affinity.md).

The choice is by rendezvous hashing (Thaler and Ravishankar 1998): each endpoint has a score for a value, and the
endpoint with the highest score gets its requests. So workers and edges agree without communication, and a removed
endpoint moves only its own values.
"""

import math
import re
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from edgeproxy.edge.http1.field_values import find_values
from edgeproxy.edge.http1.grammar import OWS
from edgeproxy.edge.proxy.metering.labels import NO_LABEL

if TYPE_CHECKING:
    from edgeproxy.config.edge.balancing import Balance

OWNERS_MAX: Final = 4096
"""Values whose endpoint a worker caches."""
NAME_BYTES: Final = 16
SCORE_BYTES: Final = 8
NAME: Final = re.compile(rb"[0-9a-f]{32}")
"""The name of an endpoint in a cookie."""


class Scored(Protocol):
    """An endpoint."""

    weight: int

    @property
    def origin(self) -> bytes:
        """The configured host and port, and the address. They are equal at all edges."""


class AddressedClient(Protocol):
    """The client of a request."""

    @property
    def address(self) -> "ClientAddress":
        """Its address."""


class ClientAddress(Protocol):
    """An address."""

    @property
    def text(self) -> str:
        """The address as text."""


class Request(Protocol):
    """A request for the choice of an endpoint."""

    keep: bytes

    @property
    def client(self) -> AddressedClient:
        """Its client."""


class AnsweredRequest(Request, Protocol):
    """A request that an endpoint has answered."""

    @property
    def endpoint(self) -> Scored | None:
        """The endpoint."""

    def is_secure(self) -> bool:
        """Return whether the client came over TLS."""


ScoredT = TypeVar("ScoredT", bound=Scored)


def find_owner(among: Sequence[ScoredT], value: bytes, secret: bytes) -> ScoredT:
    """Return the endpoint that has this value, by weight; `among` must not be empty."""
    # The origin decides between equal scores, so that all edges choose the same endpoint.
    return max(among, key=lambda endpoint: (_compute_score(endpoint, value, secret), endpoint.origin))


def _compute_score(endpoint: Scored, value: bytes, secret: bytes) -> float:
    """Return a score.

    Each endpoint has the highest score with a frequency proportional to its weight (Schindelhauer and Schomaker 2005).
    """
    digest = blake2b(value, digest_size=SCORE_BYTES, key=secret, person=compute_name(endpoint, b"")).digest()
    # Never 0, whose logarithm does not exist.
    share = (int.from_bytes(digest) + 1) / (1 << 64)
    return -endpoint.weight / math.log(share) if share < 1 else math.inf


def compute_name(endpoint: Scored, secret: bytes) -> bytes:
    """Return the 16 bytes that stand for an endpoint. With a secret, only its owner can compute them."""
    return blake2b(endpoint.origin, digest_size=NAME_BYTES, key=secret).digest()


def find_cookie(lines: bytes, name: bytes) -> bytes | None:
    """Return the value of the first cookie of this name in field lines (RFC 6265 section 4.2), or None."""
    for value in find_values(lines, b"cookie"):
        for pair in value.split(b";"):
            pair_name, equals, content = pair.partition(b"=")
            if equals and pair_name.strip(OWS) == name:
                return content.strip(OWS).strip(b'"')
    return None


class Affinity:
    """The affinity of one upstream, by its settings."""

    def __init__(self, settings: "Balance") -> None:
        self.secret = (settings.secret or "").encode()[:64]
        """The key of all hashes."""
        self.cookie = None if settings.cookie is None else settings.cookie.encode()
        """The cookie that the edge sets; None if a value of the request decides."""
        kind, _, name = (settings.hash or "").partition(" ")
        self._find = FINDERS.get(kind, _find_nothing)
        self._name = (name.lower() if kind == "header" else name).encode()

    def find_value(self, request: Request, customer: str) -> bytes | None:
        """Return 16 bytes that stand for the request's affinity value: an endpoint's name from the edge's cookie, or a
        digest.

        None: any endpoint may have the request.
        """
        if self.cookie is not None:
            return self._find_name(request)
        value = self._find(request, customer, self._name)
        return None if value is None else blake2b(value, digest_size=NAME_BYTES).digest()

    def _find_name(self, request: Request) -> bytes | None:
        assert self.cookie is not None
        value = find_cookie(request.keep, self.cookie)
        return bytes.fromhex(value.decode()) if value is not None and NAME.fullmatch(value) else None

    def format_missing_cookie(self, request: "AnsweredRequest") -> bytes:
        """Format the Set-Cookie line that brings the client back to the endpoint that answered.

        It is empty if the client's cookie names that endpoint already.
        """
        endpoint = request.endpoint
        name = None if endpoint is None else compute_name(endpoint, self.secret)
        if name is None or name == self._find_name(request):
            return b""
        attributes = b"; Path=/; HttpOnly; SameSite=Lax" + (b"; Secure" if request.is_secure() else b"")
        return b"Set-Cookie: %b=%b%b\r\n" % (self.cookie or b"", name.hex().encode(), attributes)


def _find_nothing(request: Request, customer: str, name: bytes) -> bytes | None:
    return None


def _find_address(request: Request, customer: str, name: bytes) -> bytes | None:
    return request.client.address.text.encode()


def _find_customer(request: Request, customer: str, name: bytes) -> bytes | None:
    return _find_address(request, customer, name) if customer == NO_LABEL else b"customer " + customer.encode()


def _find_header(request: Request, customer: str, name: bytes) -> bytes | None:
    return b", ".join(find_values(request.keep, name)) or None


def _find_cookie(request: Request, customer: str, name: bytes) -> bytes | None:
    return find_cookie(request.keep, name) or None


FINDERS: Final[dict[str, Callable[[Request, str, bytes], bytes | None]]] = {
    "address": _find_address,
    "customer": _find_customer,
    "header": _find_header,
    "cookie": _find_cookie,
}
