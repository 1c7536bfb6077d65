"""Who asks: keys, the customers behind them, and the lanes that they may use.

A key is looked up by its SHA-256. What a look-up gave is remembered with the key itself, within a bound; one
`forget` of the worker drops this memory together with that of header blocks.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeproxy.clock import EPOCH
from edgeproxy.errors import Refused
from edgeproxy.http1.lines import vouch
from edgeproxy.proxy.lane import NOBODY, Lane, Route

if TYPE_CHECKING:
    from edgeproxy.config.models import Key, Limit, Settings
    from edgeproxy.limits.policies import Policy
    from edgeproxy.proxy.counts import Counts

REMEMBERED = 16_384
"""Identities kept at hand. A customer's counts live in the table, so dropping an identity loses nothing."""

FOREVER = float("inf")

ANONYMOUS = "anonymous"
"""The tier that holds requests without a key on open routes, by their address."""


class Lanes(dict[Route, Lane]):
    """An identity's lane on each route, made when first used. What it may not use raises Refused every time."""

    def __init__(self, make: Callable[[Route], Lane]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, route: Route) -> Lane:
        self[route] = lane = self._make(route)
        return lane


class Identity:
    """One who asks. `valid_until` is edge time: after it, the identity must be looked up anew."""

    __slots__ = ("lanes", "valid_until")

    def __init__(self, make: Callable[[Route], Lane], valid_until: float = FOREVER) -> None:
        self.lanes = Lanes(make)
        self.valid_until = valid_until


class Directory:
    """The people of a configuration."""

    def __init__(
        self,
        settings: "Settings",
        policies: Callable[[str, tuple["Limit", ...]], tuple["Policy", ...]],
        counts: "Counts",
    ) -> None:
        self._settings = settings
        self._policies = policies
        self._counts = counts
        self._keys: dict[bytes, Key] = {bytes.fromhex(key.sha256): key for key in settings.keys}
        self._known: OrderedDict[bytes, Identity] = OrderedDict()
        self._region = b"X-Edge-Region: %b\r\n" % settings.region.encode()
        self.nobody = Identity(lambda route: self._open(route, "missing", "An API key is needed here"))
        self.unknown = Identity(lambda route: self._open(route, "unknown", "The API key is not known"))
        self.expired = Identity(lambda route: self._open(route, "expired", "The API key has expired"))

    def resolve(self, secret: bytes | None, credentials: bytes) -> Identity:
        """The identity behind a key, or behind none; `unknown` itself where nobody has the key.

        `credentials` are the lines that the key came in.
        """
        if secret is None:
            return self.nobody
        known = self._known
        identity = known.get(secret)
        if identity is not None:
            known.move_to_end(secret)
            return identity
        key = self._keys.get(hashlib.sha256(secret).digest())
        if key is None:
            return self.unknown
        valid_until = FOREVER if key.expires is None else key.expires - EPOCH
        identity = known[secret] = Identity(lambda route: self._lane(key, route), valid_until)
        if len(known) > REMEMBERED:
            known.popitem(last=False)
        vouch(credentials)
        return identity

    def forget(self) -> None:
        """Drop what look-ups gave: the next request with a key is looked up anew."""
        self._known.clear()

    def _lane(self, key: "Key", route: Route) -> Lane:
        """The lane of a key's customer; raises Refused(403) where the route asks for scopes that the key lacks."""
        if route.auth == "none":
            return self._anonymous(route)
        if not route.scopes <= (key.scopes or frozenset()):
            self._counts.auth_failure("scope")
            missing = ", ".join(sorted(route.scopes - (key.scopes or frozenset())))
            raise Refused(403, f"The API key lacks the scope {missing}", close=False)
        tier = self._settings.customers[key.customer].tier
        policies = self._policies(key.customer, self._settings.limits_of(key.customer))
        stamps = b"X-Customer-Id: %b\r\nX-Customer-Tier: %b\r\n" % (
            key.customer.encode(),
            tier.encode(),
        )
        return self._make(route, key.customer, tier, policies, stamps)

    def _open(self, route: Route, reason: str, why: str) -> Lane:
        """The lane without a key that counts; raises Refused(401) where the route wants one."""
        # A route that asks for scopes asks for a key that has them, so `optional` leaves nobody out of it.
        keyless = route.auth == "optional" and reason == "missing" and not route.scopes
        if route.auth == "none" or keyless:
            return self._anonymous(route)
        self._counts.auth_failure(reason)
        challenge = 'Bearer realm="edgeproxy"' + ("" if reason == "missing" else ', error="invalid_token"')
        fields = f"WWW-Authenticate: {challenge}\r\n".encode()
        raise Refused(401, why, close=False, fields=fields)

    def _anonymous(self, route: Route) -> Lane:
        """The lane of those who need no key: held by address where there is a tier for them."""
        has_tier = ANONYMOUS in self._settings.tiers
        tier = ANONYMOUS if has_tier else NOBODY
        stamps = b"X-Customer-Tier: anonymous\r\n" if has_tier else b""
        return self._make(route, NOBODY, tier, (), stamps)

    def _make(self, route: Route, customer: str, tier: str, policies: tuple["Policy", ...], stamps: bytes) -> Lane:
        settings = self._settings
        anonymous = customer == NOBODY
        return Lane(
            route,
            customer,
            tier,
            policies,
            self._region + stamps,
            self._counts,
            settings.meters,
            by_address=anonymous,
            # `auth: none` means that the edge has no business with credentials: they are the upstream's.
            forwards_key=anonymous or settings.upstreams[route.service.name].forward_key,
            signed=settings.stamp_secret is not None,
        )
