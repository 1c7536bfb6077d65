"""Who asks: keys, the customers behind them, and the route bindings that they may use.

A key is looked up by its SHA-256. What a look-up gave is remembered with the key itself, within a bound, for as long as
the configuration serves. A key that is in none of its files may be in the directory (key_lookup.py): then who has it is
a stranger until that is known.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.base import log
from edgeproxy.base.clock import EPOCH
from edgeproxy.config.allowance import (
    ANONYMOUS,
    apply_caps,
    apply_key_limits,
    compute_allowance,
    compute_effective_allowance,
    find_missing_reference,
)
from edgeproxy.config.certificate_names import CERTIFICATE, compute_certificate_digest
from edgeproxy.config.customers import Customer, Key
from edgeproxy.config.directory import KeyOwner, format_customer_lookup, parse_customer, parse_key
from edgeproxy.config.edge.auth import AUTHORIZATION
from edgeproxy.config.key_form import is_miswritten
from edgeproxy.edge.errors import RejectedCustomerError, RejectedError
from edgeproxy.edge.http1 import stamps
from edgeproxy.edge.http1.lines import RequestLines
from edgeproxy.edge.limits.route_limits import RouteLimits
from edgeproxy.edge.proxy.client_certificate import NONE as NO_CERTIFICATE
from edgeproxy.edge.proxy.labels import NO_LABEL
from edgeproxy.edge.proxy.network_filter import NetworkFilter
from edgeproxy.edge.proxy.route_binding import Route, RouteBinding
from edgeproxy.edge.proxy.router import create_no_route_error
from edgeproxy.edge.proxy.token_verifier import Claims, InvalidTokenError, TokenVerifier, is_token

if TYPE_CHECKING:
    from edgeproxy.config.allowance import Allowance
    from edgeproxy.config.customers import Flag
    from edgeproxy.config.edge.customer_store import Customers
    from edgeproxy.config.edge.settings import EdgeSettings
    from edgeproxy.edge.limits.route_limits import PolicyTables
    from edgeproxy.edge.proxy.client_certificate import ClientCertificate
    from edgeproxy.edge.proxy.key_lookup import KeyLookup
    from edgeproxy.edge.proxy.worker_metrics import WorkerMetrics

IDENTITIES_MAX = 16_384
"""Identities kept at hand. A customer's counts live in the table, so dropping an identity loses nothing."""

FOREVER, UNMET = float("inf"), float("-inf")

ACCEPTED_CREDENTIALS = {
    "required": ("key",),
    "optional": ("key", "jwt"),
}
"""What a route takes, by its `auth`; any other says so itself."""

CREDENTIAL_NAMES = {"key": "An API key", "jwt": "A token", "certificate": "A client certificate"}

UNCERTIFIED = "A client certificate is needed here"

STALE_SECONDS = 1.0
"""Seconds for which a stranger is still who they were while the supervisor is asked anew."""

LOG_SECONDS = 60.0
"""Seconds between two log lines about customers of the directory who cannot be served for the same reason."""


class TokenDigest(NamedTuple):
    """By which a token is remembered among keys: equal to nothing that can be sent as a key, as it is not bytes."""

    sha256: bytes


class RouteBindings(dict[Route, RouteBinding]):
    """An identity's binding on each route, made when first used.

    What it may not use raises RejectedError every time.
    """

    def __init__(self, make: Callable[[Route], RouteBinding]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, route: Route) -> RouteBinding:
        self[route] = binding = self._make(route)
        return binding


class Identity:
    """One who asks. `valid_until` is edge time: after it, the identity must be looked up anew."""

    __slots__ = ("bindings", "valid_until")

    def __init__(self, make: Callable[[Route], RouteBinding], valid_until: float = FOREVER) -> None:
        self.bindings = RouteBindings(make)
        self.valid_until = valid_until


class UnresolvedIdentity(Identity):
    """One with a key that is in none of the files. `valid_until` is UNMET until it is known who that is."""

    __slots__ = ("credentials", "digest", "expires", "person", "secret")

    def __init__(self, secret: bytes | TokenDigest, digest: bytes, credentials: bytes) -> None:
        super().__init__(_raise_unresolved, UNMET)
        self.secret, self.digest, self.credentials = secret, digest, credentials
        self.person: KeyOwner | None = None
        self.expires = FOREVER
        """Edge time."""


class TokenHolder(UnresolvedIdentity):
    """One with a token of an issuer. `secret` is the token's digest, by which it is remembered, and `digest` what the
    supervisor is asked: for the customer by name."""

    __slots__ = ("claims", "token")

    def __init__(self, token: bytes, digest: TokenDigest, credentials: bytes) -> None:
        super().__init__(digest, b"", credentials)
        self.token: bytes = token
        """Empty once it is verified."""
        self.claims: Claims | None = None


class CertificateHolder(UnresolvedIdentity):
    """One with a certificate whose name is in none of the files; the connection has it, and no request."""

    __slots__ = ()


def find_name(identity: UnresolvedIdentity) -> str | None:
    """Who a stranger turned out to be."""
    return None if identity.person is None else identity.person.name


def _raise_unresolved(route: Route) -> RouteBinding:
    raise AssertionError("a stranger has no route bindings before it is known who that is")


class Directory:
    """The customers of a configuration, under its settings. `tables` are those in which their requests are counted;
    `key_lookup` knows who else there is."""

    def __init__(
        self,
        settings: "EdgeSettings",
        customers: "Customers",
        tables: "PolicyTables",
        metrics: "WorkerMetrics",
        key_lookup: "KeyLookup | None" = None,
        *,
        lines: RequestLines,
    ) -> None:
        self._customers = customers
        self._lines = lines
        self._tables = tables
        self._metrics = metrics
        self._tiers, self._meters, self._flags = settings.tiers, settings.meters, settings.flags
        self._edge_region = settings.region
        self._signed = settings.stamp_secret is not None
        self._queried = settings.auth.query is not None
        self._forwarding = {name for name, upstream in settings.upstreams.items() if upstream.forward_key}
        self._known: OrderedDict[bytes | TokenDigest, Identity] = OrderedDict()
        self._key_lookup = None if settings.directory is None else key_lookup
        self.closes_revoked = settings.directory is not None and settings.directory.revoked == "close"
        """Whether what is under way for a key ends when the key is revoked."""
        self._ttl = 0.0 if settings.directory is None else settings.directory.ttl
        self._issuers: TokenVerifier | None = None
        if settings.issuers and key_lookup is not None:
            self._issuers = TokenVerifier(settings.issuers, key_lookup.issuer_keys, key_lookup.hurry)
        self._log = log.RateLimitedLog(LOG_SECONDS)
        self._ways = settings.auth.key_instructions
        bearer = any(field.lower() == AUTHORIZATION for field in settings.auth.fields)
        self._scheme = "Bearer" if bearer else "ApiKey"
        missing = f"An API key is needed here. {self._ways}"
        self._named_by = settings.auth.certificate
        self._certified: OrderedDict[str, Identity] = OrderedDict()
        """Those with certificates, by the names in them: apart from all that can be sent as a key."""
        # A key may be in the query, at which one has to look each time: nobody is nobody before that. So with
        # certificates.
        certifying = any("certificate" in route.auth for route in settings.routes)
        until = UNMET if certifying or settings.auth.query is not None else FOREVER
        self.anonymous = Identity(
            lambda route: self._bind_without_key(
                route, "missing", missing if list_accepted_credentials(route) != ("certificate",) else UNCERTIFIED
            ),
            until,
        )
        self.uncertified = Identity(
            lambda route: self._bind_without_key(
                route, "unknown", "The client certificate names nobody who is known here"
            )
        )
        self.outdated = Identity(
            lambda route: self._bind_without_key(route, "expired", "The client certificate has expired")
        )
        self.unknown = Identity(lambda route: self._bind_without_key(route, "unknown", "The API key is not known"))
        self.expired = Identity(lambda route: self._bind_without_key(route, "expired", "The API key has expired"))

    def resolve(self, secret: bytes | None, credentials: bytes) -> Identity:
        """The identity behind a key, or behind none; `unknown` itself where nobody has the key, and a Stranger where
        others than the files may know it.

        `credentials` are the lines that the key came in.
        """
        if secret is None:
            return self.anonymous
        known = self._known
        identity = known.get(secret)
        if identity is not None:
            known.move_to_end(secret)
            return identity
        if is_miswritten(secret) or secret.startswith(CERTIFICATE):
            return self.unknown
        digest = hashlib.sha256(secret).digest()
        if self._issuers is not None and is_token(secret):
            remembered = TokenDigest(digest)
            holder = known.get(remembered)
            return TokenHolder(secret, remembered, credentials) if holder is None else holder
        key = self._customers.find_key(digest)
        if key is None:
            return self.unknown if self._key_lookup is None else UnresolvedIdentity(secret, digest, credentials)
        valid_until = FOREVER if key.expires is None else key.expires - EPOCH
        identity = Identity(
            lambda route: self._bind(key, self._customers.get_customer(key.customer), route), valid_until
        )
        self._remember(secret, identity, credentials)
        return identity

    def certified(self, certificate: "ClientCertificate", now: float) -> Identity:
        """The identity behind a client's certificate at edge time `now`."""
        if certificate is NO_CERTIFICATE:
            return self.anonymous
        name = certificate.names.get(self._named_by)
        if name is None:
            return self.uncertified
        if certificate.expires - EPOCH <= now:
            return self.outdated
        known = self._certified
        identity = known.get(name)
        if identity is not None:
            known.move_to_end(name)
            return identity
        digest = compute_certificate_digest(name)
        key = self._customers.find_key(digest)
        if key is not None:
            customer = self._customers.get_customer(key.customer)
            valid_until = FOREVER if key.expires is None else key.expires - EPOCH
            identity = Identity(lambda route: self._bind(key, customer, route, "certificate"), valid_until)
        elif self._key_lookup is None:
            return self.uncertified
        else:
            identity = CertificateHolder(b"", digest, b"")
        known[name] = identity
        if len(known) > IDENTITIES_MAX:
            known.popitem(last=False)
        return identity

    def _remember(self, secret: bytes | TokenDigest, identity: Identity, credentials: bytes) -> None:
        known = self._known
        known[secret] = identity
        if len(known) > IDENTITIES_MAX:
            known.popitem(last=False)
        self._lines.pin_credentials(credentials)

    def refresh(self, identity: Identity, route: Route, now: float) -> Identity | None:
        """Who it is on this route whose identity is not valid at edge time `now`; None where that has to be asked."""
        key_lookup = self._key_lookup
        if identity is self.anonymous:
            return identity
        if isinstance(identity, TokenHolder):
            return self.anonymous if route.auth == "none" else self._refresh_token(identity, now)
        if not isinstance(identity, UnresolvedIdentity) or key_lookup is None:
            return self.expired
        if route.auth == "none":
            return self.anonymous
        if key_lookup.valid_until <= now:
            self._metrics.auth_failure("stale")
            why = "What this edge knows of its customers is too old to be believed"
            raise RejectedError(503, why, close=False, fields=b"Retry-After: 10\r\n")
        certified = isinstance(identity, CertificateHolder)
        unknown = self.uncertified if certified else self.unknown
        known = key_lookup.known(identity.digest)
        if known is None:
            return unknown if key_lookup.is_unknown(identity.digest) else None
        person, at = known
        assert person is not None
        if self._customers.has_customer(person.name):
            return unknown  # What the files say of a customer, they say whole.
        before = None if certified else self._known.get(identity.secret)
        if isinstance(before, UnresolvedIdentity) and before.person == person:
            identity = before
        if identity.person != person:
            self._resolve_identity(identity, person)
            if not certified:
                self._remember(identity.secret, identity, identity.credentials)
        if identity.expires <= now:
            return self.expired
        left = at + self._ttl - monotonic()
        if left <= 0:
            key_lookup.ask(identity.digest)
            left = STALE_SECONDS
        identity.valid_until = min(now + left, identity.expires, key_lookup.valid_until)
        return identity

    def _refresh_token(self, holder: TokenHolder, now: float) -> Identity | None:
        """Who it is that has a token; None where the supervisor has to be asked for the customer."""
        assert self._issuers is not None
        claims = holder.claims
        if claims is None:
            try:
                claims = holder.claims = self._issuers.verify(holder.token)
            except InvalidTokenError as error:
                why = str(error)
                return Identity(lambda route: self._bind_without_key(route, "token", why))
            holder.token, holder.digest = b"", format_customer_lookup(claims.customer)
            holder.expires = claims.expires - EPOCH
        if holder.expires <= now:
            return Identity(lambda route: self._bind_without_key(route, "expired", "The token has expired"))
        until, key_lookup = holder.expires, self._key_lookup
        person: KeyOwner | None = None
        if key_lookup is not None and not self._customers.has_customer(claims.customer):
            if key_lookup.valid_until <= now:
                self._metrics.auth_failure("stale")
                why = "What this edge knows of its customers is too old to be believed"
                raise RejectedError(503, why, close=False, fields=b"Retry-After: 10\r\n")
            known = key_lookup.known(holder.digest)
            if known is None and not key_lookup.is_unknown(holder.digest):
                return None
            person = None if known is None else known.person
            until = min(until, now + (STALE_SECONDS if person is None else self._ttl), key_lookup.valid_until)
        owner = person or KeyOwner(claims.customer, "", "")
        if holder.person != owner:
            holder.person = owner
            holder.bindings = RouteBindings(lambda route: self._token_binding(claims, person, route))
            self._remember(holder.secret, holder, holder.credentials)
        holder.valid_until = until
        return holder

    def _token_binding(self, claims: "Claims", person: KeyOwner | None, route: Route) -> RouteBinding:
        """The binding of the customer whom a token names: of the files, else the directory's (`person`), else one of
        whom nothing but the tier is known. Raises RejectedError as `_told_binding`."""
        key = Key(sha256=claims.subject, customer=claims.customer, scopes=claims.scopes)
        if self._customers.has_customer(claims.customer):
            customer = self._customers.get_customer(claims.customer)
        elif person is not None:
            try:
                customer = parse_customer(person.customer)
            except ValueError:
                return self._bind_directory_customer(person, None, route)
        elif claims.tier is not None and claims.tier in self._tiers:
            customer = Customer(tier=claims.tier)
        else:
            self._metrics.auth_failure("unserved")
            raise RejectedError(403, "The token names neither a customer nor a tier that is known here", close=False)
        if claims.id is not None and claims.id in customer.revoked:
            return self._bind_without_key(route, "revoked", "The token was revoked")
        if find_missing_reference(customer, self._tiers, self._meters) is not None and person is not None:
            return self._bind_directory_customer(person, key, route)
        return self._bind(key, customer, route, "jwt")

    def _resolve_identity(self, identity: UnresolvedIdentity, person: KeyOwner) -> None:
        """It is known who a stranger is."""
        identity.person, identity.expires = person, FOREVER
        key: Key | None = None
        try:
            key = parse_key(person, identity.digest)
        except ValueError:
            pass  # Which each request is told.
        by = "certificate" if isinstance(identity, CertificateHolder) else "key"
        identity.bindings = RouteBindings(lambda route: self._bind_directory_customer(person, key, route, by))
        if key is not None and key.expires is not None:
            identity.expires = key.expires - EPOCH

    def forget(self, customers: Collection[str] | None) -> None:
        """What was told of these customers is so no longer; None: of anybody who is not in the files."""
        known = self._known
        for secret, identity in tuple(known.items()):
            if isinstance(identity, UnresolvedIdentity) and (customers is None or find_name(identity) in customers):
                identity.valid_until = UNMET
                del known[secret]
        for identity in self._certified.values():
            if isinstance(identity, UnresolvedIdentity) and (customers is None or find_name(identity) in customers):
                identity.valid_until = UNMET

    def flags_changed(self) -> None:
        """Who has which flag is to be settled anew."""
        for identity in (self.anonymous, *self._known.values(), *self._certified.values()):
            identity.bindings.clear()

    def retire(self) -> "OrderedDict[bytes | TokenDigest, Identity]":
        """Nobody is looked up here any more: let go of everything. What look-ups gave is left to the caller.

        Identities hold the directory, for their route bindings. It holds them no longer, so that the memory of all is
        free as soon as the last request of them is over, and nobody has to search for it.
        """
        known, self._known = self._known, OrderedDict()
        self._certified.clear()
        del self._customers, self.anonymous, self.unknown, self.expired, self.uncertified, self.outdated
        return known

    def _bind_directory_customer(
        self, person: KeyOwner, key: "Key | None", route: Route, by: str = "key"
    ) -> RouteBinding:
        """Return the binding of a customer of the directory; raises RejectedError as `_binding`, and 503 where their
        limits are not known here: nobody is served without them. `key`: None where it is not understood."""
        if route.auth == "none":
            return self._bind_anonymous(route)
        try:
            customer = parse_customer(person.customer)
        except ValueError:
            key = None
        if key is None:
            why = "what is said of them is not understood by this version"
        elif (missing := find_missing_reference(customer, self._tiers, self._meters)) is not None:
            why = f"there is no {missing} here"
        else:
            return self._bind(key, customer, route, by)
        self._metrics.auth_failure("unserved")
        self._log.error("customers of the directory are refused", why, such_as=person.name)
        again = b"Retry-After: 30\r\n"
        raise RejectedError(503, "This edge does not know the plan of this customer", close=False, fields=again)

    def _bind(self, key: "Key", customer: "Customer", route: Route, by: str = "key") -> RouteBinding:
        """The route binding of a key's customer; raises RejectedError where it may not be used, and says why.

        404 where the route has a flag that the customer has not, 403 or 402 where the customer is paused, 403 where the
        route asks for scopes that the key lacks or the customer is not served in this region.
        """
        if route.auth == "none":
            return self._bind_anonymous(route)
        if by not in list_accepted_credentials(route):
            expected = " or ".join(CREDENTIAL_NAMES[each] for each in list_accepted_credentials(route))
            return self._bind_without_key(route, "unknown", f"{expected} is needed here")
        if route.settings.flag not in customer.flags:
            self._check_flag(route, customer.tier, key.customer)
        if customer.paused is not None:
            self._metrics.auth_failure("paused")
            raise self._create_rejection(customer.paused.status, customer.paused.why, key, customer)
        if not route.scopes <= (key.scopes or frozenset()):
            self._metrics.auth_failure("scope")
            missing = ", ".join(sorted(route.scopes - (key.scopes or frozenset())))
            what = "client certificate" if by == "certificate" else "API key"
            raise self._create_rejection(403, f"The {what} lacks the scope {missing}", key, customer)
        self._check_region(key, customer)
        tier = customer.tier
        flags = {} if self._key_lookup is None else self._key_lookup.flags
        allowance = apply_key_limits(
            apply_caps(compute_effective_allowance(self._tiers[tier], customer, flags), self._meters), key
        )
        digest = bytes.fromhex(key.sha256)
        limits = RouteLimits(self._tables, route.settings, allowance, self._meters, key.customer.encode(), digest)
        prefer = None if customer.regions is None else customer.regions.prefer
        networks = None if customer.networks is None else NetworkFilter(customer.networks)
        return self._create_binding(route, key.customer, tier, allowance, limits, prefer, networks)

    def _check_flag(self, route: Route, tier: str, customer: str | None) -> None:
        """Raise RejectedError(404) where a route has a flag, and this customer (None: nobody) of this tier has not."""
        name = route.settings.flag
        if name is None:
            return
        flag = self._flags.get(name)
        if flag is None and self._key_lookup is not None:
            flag = self._key_lookup.flags.get(name)
        if flag is None or not has_flag(name, flag, tier, customer):
            raise create_no_route_error()

    def _check_region(self, key: "Key", customer: "Customer") -> None:
        """Raise RejectedError(403) where the customer is not to be served in this region."""
        regions = customer.regions
        if regions is not None and regions.allow is not None and self._edge_region not in regions.allow:
            self._metrics.auth_failure("region")
            why = f"This customer is not served in the region {self._edge_region}"
            raise self._create_rejection(403, why, key, customer)

    def _create_rejection(self, status: int, why: str, key: "Key", customer: "Customer") -> RejectedError:
        return RejectedCustomerError(status, why, customer=key.customer, tier=customer.tier)

    def _bind_without_key(self, route: Route, reason: str, why: str) -> RouteBinding:
        """The route binding without a key;

        raises RejectedError: 401 where the route wants one, 404 where it has a flag.
        """
        # A route that asks for scopes asks for a key that has them, so `optional` leaves nobody out of it.
        keyless = route.auth == "optional" and reason == "missing" and not route.scopes
        if route.auth == "none" or keyless:
            return self._bind_anonymous(route)
        if route.settings.flag is not None:
            raise create_no_route_error()
        self._metrics.auth_failure(reason)
        challenge = f'{self._scheme} realm="edgeproxy"' + ("" if reason == "missing" else ', error="invalid_token"')
        fields = f"WWW-Authenticate: {challenge}\r\n".encode()
        raise RejectedError(401, why, close=False, fields=fields)

    def _bind_anonymous(self, route: Route) -> RouteBinding:
        """The route binding of those who need no key: held by address where there is a tier for them."""
        settings = self._tiers.get(ANONYMOUS)
        tier = NO_LABEL if settings is None else ANONYMOUS
        self._check_flag(route, tier, None)
        allowance = None if settings is None else compute_allowance(settings, None)
        limits = RouteLimits(self._tables, route.settings, allowance, self._meters, None)
        return self._create_binding(route, NO_LABEL, tier, allowance, limits)

    def _create_binding(
        self,
        route: Route,
        customer: str,
        tier: str,
        allowance: "Allowance | None",
        limits: RouteLimits,
        prefer: str | None = None,
        networks: NetworkFilter | None = None,
    ) -> RouteBinding:
        anonymous = customer == NO_LABEL
        who = stamps.StampValues(self._edge_region, None if anonymous else customer, None if tier == NO_LABEL else tier)
        return RouteBinding(
            route,
            customer,
            tier,
            limits,
            stamps.format_lines(who),
            self._metrics,
            self._meters,
            priority=0 if allowance is None else allowance.priority,
            message=None if allowance is None else allowance.message,
            prefer=prefer,
            # `auth: none` means that the edge has no business with credentials: they are the upstream's.
            forwards_key=anonymous or route.service.name in self._forwarding,
            is_stamped_per_request=self._signed or self._queried,
            networks=networks,
        )


def list_accepted_credentials(route: Route) -> tuple[str, ...]:
    """What a route takes."""
    return ACCEPTED_CREDENTIALS.get(route.auth) or tuple(route.auth.split(" or "))


def has_flag(name: str, flag: "Flag", tier: str, customer: str | None) -> bool:
    """Whether a customer (None: nobody) of this tier has a flag: by name, by tier, or in its share of all customers.

    The share is stable: a customer who is in one percent is in two.
    """
    if tier in flag.tiers:
        return True
    if customer is None:
        return False
    return customer in flag.customers or compute_share_position(name, customer) < flag.percent / 100


def compute_share_position(flag: str, customer: str) -> float:
    """Where a customer stands, from 0 to below 1, among all of them: by chance, for each flag another, and for ever."""
    digest = hashlib.blake2b(f"{flag}\0{customer}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
