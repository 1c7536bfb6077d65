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
    from edgeproxy.config.people import People
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
    """The people of a configuration, under its settings. `policies` are those of a customer under these limits."""

    def __init__(
        self,
        settings: "Settings",
        people: "People",
        policies: Callable[[str, tuple["Limit", ...]], tuple["Policy", ...]],
        counts: "Counts",
    ) -> None:
        self._people = people
        self._policies = policies
        self._counts = counts
        self._tiers, self._meters = settings.tiers, settings.meters
        self._signed = settings.stamp_secret is not None
        self._forwarding = {name for name, upstream in settings.upstreams.items() if upstream.forward_key}
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
        key = self._people.key(hashlib.sha256(secret).digest())
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

    def retire(self) -> "OrderedDict[bytes, Identity]":
        """Nobody is looked up here any more: let go of everything. What look-ups gave is left to the caller.

        Identities hold the directory, for their lanes. It holds them no longer, so that the memory of all is free as
        soon as the last request of them is over, and nobody has to search for it.
        """
        known, self._known = self._known, OrderedDict()
        del self._people, self.nobody, self.unknown, self.expired
        return known

    def _lane(self, key: "Key", route: Route) -> Lane:
        """The lane of a key's customer; raises Refused(403) where the route asks for scopes that the key lacks."""
        if route.auth == "none":
            return self._anonymous(route)
        if not route.scopes <= (key.scopes or frozenset()):
            self._counts.auth_failure("scope")
            missing = ", ".join(sorted(route.scopes - (key.scopes or frozenset())))
            raise Refused(403, f"The API key lacks the scope {missing}", close=False)
        customer = self._people.customer(key.customer)
        tier = customer.tier
        limits = self._tiers[tier].limits if customer.limits is None else customer.limits
        policies = self._policies(key.customer, limits)
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
        has_tier = ANONYMOUS in self._tiers
        tier = ANONYMOUS if has_tier else NOBODY
        stamps = b"X-Customer-Tier: anonymous\r\n" if has_tier else b""
        return self._make(route, NOBODY, tier, (), stamps)

    def _make(self, route: Route, customer: str, tier: str, policies: tuple["Policy", ...], stamps: bytes) -> Lane:
        anonymous = customer == NOBODY
        return Lane(
            route,
            customer,
            tier,
            policies,
            self._region + stamps,
            self._counts,
            self._meters,
            by_address=anonymous,
            # `auth: none` means that the edge has no business with credentials: they are the upstream's.
            forwards_key=anonymous or route.service.name in self._forwarding,
            signed=self._signed,
        )
