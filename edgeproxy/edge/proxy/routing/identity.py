"""Identities: keys, tokens and certificates, their customers, and the route bindings that these may use.

A key is looked up by its SHA-256. The resulting identity is cached by the key itself, up to a bound, while the
configuration serves. A key that is in none of its files may be in the directory (key_lookup.py). Then its identity is
unresolved until the owner is known.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.base.clock import EPOCH
from edgeproxy.base.short_names import shorten_name
from edgeproxy.config.allowance import (
    find_missing_reference,
)
from edgeproxy.config.certificate_names import CERTIFICATE, compute_certificate_digest
from edgeproxy.config.customers import Customer, Key
from edgeproxy.config.directory import KeyOwner, find_raise_end, format_customer_lookup, parse_customer, parse_key
from edgeproxy.config.edge.customer_store import HeldKey
from edgeproxy.config.key_form import is_miswritten
from edgeproxy.edge import problem_codes
from edgeproxy.edge.errors import RejectedError, UnidentifiedError
from edgeproxy.edge.proxy.routing.access import RouteAccess, list_accepted_credentials
from edgeproxy.edge.proxy.routing.binding import Route, RouteBinding
from edgeproxy.edge.proxy.routing.identity_memory import IdentityMemory, RouteBindings
from edgeproxy.edge.proxy.routing.token_verifier import Claims, InvalidTokenError, TokenVerifier, is_token
from edgeproxy.edge.proxy.transport.client_certificate import NO_CERTIFICATE

if TYPE_CHECKING:
    from edgeproxy.config.edge.customer_store import Customers
    from edgeproxy.config.edge.settings import EdgeSettings
    from edgeproxy.edge.limits.route_limits import PolicyTables
    from edgeproxy.edge.proxy.metering.worker_metrics import WorkerMetrics
    from edgeproxy.edge.proxy.routing.key_lookup import KeyLookup
    from edgeproxy.edge.proxy.transport.client_certificate import ClientCertificate

FOREVER, UNRESOLVED = float("inf"), float("-inf")

INDEX_BUCKETS = 4096
"""Buckets of the index by customer: some 24 identities in each, if 100,000 customers are cached."""

UNCERTIFIED = "A client certificate is needed here"

STALE_SECONDS = 1.0
"""While the supervisor is asked again, an identity of the directory remains valid for this many seconds."""


class TokenDigest(NamedTuple):
    """The cache key of a token among API keys. It is not bytes, so it equals no key that a client can send."""

    sha256: bytes


class Identity(RouteBindings):
    """The customer who sends a request. `valid_until` is edge time; after it, the identity must be looked up again."""

    __slots__ = ("valid_until",)

    def __init__(self, make: Callable[..., RouteBinding], valid_until: float = FOREVER) -> None:
        """`make` is that of RouteBindings."""
        RouteBindings.__init__(self, make)  # Cheaper than `super`.
        self.valid_until = valid_until


class KeylessIdentity(Identity):
    """The identity of all senders without a known customer. A flood of invented keys gets one refusal each time."""

    __slots__ = ("_refusals",)

    def __init__(self, make: Callable[[Route, RouteBindings], RouteBinding], valid_until: float = FOREVER) -> None:
        super().__init__(make, valid_until)
        self._refusals: dict[Route, UnidentifiedError] = {}

    def bind(self, route: Route, now: float | None = None) -> RouteBinding:
        """Return the binding on this route, as RouteBindings does. Raises UnidentifiedError if it needs a key."""
        refusal = self._refusals.get(route)
        if refusal is not None:
            raise refusal.with_traceback(None)  # Else each sender would add frames to those of the previous one.
        try:
            return RouteBindings.bind(self, route, now)
        except UnidentifiedError as error:
            self._refusals[route] = error
            raise


class KeyHolder(Identity):
    """An identity by a key of the files: a CustomerKey too. It has the key itself, so its digest takes no memory."""

    __slots__ = ("_secret", "subject", "terms")

    def __init__(self, make: Callable[..., RouteBinding], secret: bytes, subject: bytes, terms: Key) -> None:
        """`secret` is the key itself."""
        RouteBindings.__init__(self, make)
        expires = terms.expires
        self.valid_until = FOREVER if expires is None else expires - EPOCH
        self._secret, self.subject, self.terms = secret, subject, terms

    @property
    def customer(self) -> str:
        """The customer's name, as text."""
        return self.subject.decode()

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the key."""
        return hashlib.sha256(self._secret).digest()


class UnresolvedIdentity(Identity):
    """An identity by a key that is in none of the files. `valid_until` is UNRESOLVED until its owner is known."""

    __slots__ = ("digest", "expires", "owner", "raised_until", "secret")

    def __init__(self, secret: bytes | TokenDigest, digest: bytes) -> None:
        super().__init__(_raise_unresolved, UNRESOLVED)
        self.secret, self.digest = secret, digest
        self.owner: KeyOwner | None = None
        self.expires = FOREVER
        """Edge time."""
        self.raised_until = FOREVER
        """The end of a temporary raise of the owner's limits, in edge time. The bindings include it until then."""

    def set_owner(self, owner: KeyOwner, now: float) -> None:
        """Set the owner as of edge time `now`. The caller replaces bindings with older limits."""
        end = find_raise_end(owner.customer)
        self.owner = owner
        self.raised_until = FOREVER if end is None or end - EPOCH <= now else end - EPOCH

    def is_bound_to(self, owner: KeyOwner, now: float) -> bool:
        """Return whether the bindings belong to this owner and are current at edge time `now`."""
        return self.owner == owner and now < self.raised_until


class TokenHolder(UnresolvedIdentity):
    """An identity by an issuer's token.

    `secret` is the token's digest, the key in the cache. `digest` asks the supervisor for the customer by name.
    """

    __slots__ = ("claims", "token")

    def __init__(self, token: bytes, digest: TokenDigest) -> None:
        super().__init__(digest, b"")
        self.token: bytes = token
        """Empty once the token is verified."""
        self.claims: Claims | None = None


class CertificateHolder(UnresolvedIdentity):
    """An identity by a certificate whose name is in none of the files. The certificate belongs to the connection."""

    __slots__ = ()


class CustomerIndex:
    """The cached identities of directory customers, so that a change of some customers needs no pass over all.

    Identities share buckets, which take less memory than a dictionary by name. Buckets are sets, because a customer may
    have tens of thousands of tokens, and the removal from a list takes time in proportion.
    """

    def __init__(self) -> None:
        self._buckets: defaultdict[int, set[UnresolvedIdentity]] = defaultdict(set)

    def add(self, identity: UnresolvedIdentity) -> None:
        """Add an identity whose owner is known."""
        assert identity.owner is not None
        self._buckets[hash(identity.owner.name) % INDEX_BUCKETS].add(identity)

    def remove(self, identity: Identity) -> None:
        """Remove an identity, if it is here. Its owner must be settled before its next use, and all its bindings: they
        are not cached, so no change reaches them.
        """
        if isinstance(identity, UnresolvedIdentity):
            identity.valid_until = UNRESOLVED
            if identity.owner is not None:
                self._buckets[hash(identity.owner.name) % INDEX_BUCKETS].discard(identity)
                identity.owner = None

    def find_identities(self, customers: Collection[str]) -> Iterator[UnresolvedIdentity]:
        """Yield the identities of these customers."""
        for number in {hash(name) % INDEX_BUCKETS for name in customers}:
            for identity in self._buckets.get(number, ()):
                if find_name(identity) in customers:
                    yield identity

    def clear(self) -> None:
        """Remove all identities."""
        self._buckets.clear()


def find_name(identity: UnresolvedIdentity) -> str | None:
    """Return the customer of an identity that was unresolved, or None if it is still unknown."""
    return None if identity.owner is None else identity.owner.name


def _create_open_identity(access: RouteAccess) -> Identity:
    """Create an identity that has no customer. It does not refer to a directory, so a retired one leaves no cycle."""
    return Identity(lambda route, who: access.bind_anonymous(route))


def _raise_unresolved(route: Route, who: Identity) -> RouteBinding:
    raise AssertionError("a stranger has no route bindings before it is known who that is")


class Directory:
    """The customers of a configuration, under its settings.

    `tables` count their requests. `key_lookup` knows the customers of the directory.
    """

    def __init__(
        self,
        settings: "EdgeSettings",
        customers: "Customers",
        tables: "PolicyTables",
        metrics: "WorkerMetrics",
        key_lookup: "KeyLookup | None" = None,
    ) -> None:
        self._customers = customers
        self._metrics = metrics
        self._access = RouteAccess(settings, tables, metrics, key_lookup)
        self._tiers, self._meters = settings.tiers, settings.meters
        self._key_lookup = None if settings.directory is None else key_lookup
        self._ttl = 0.0 if settings.directory is None else settings.directory.ttl
        self.closes_revoked = settings.directory is None or settings.directory.revoked == "close"
        """True if the revocation of a key ends its open requests."""
        self._issuers: TokenVerifier | None = None
        if settings.issuers and key_lookup is not None:
            self._issuers = TokenVerifier(settings.issuers, key_lookup.issuer_keys, key_lookup.request_issuer_keys)
        self._certificate_name = settings.auth.certificate
        self._index = index = CustomerIndex()
        remembered = settings.limits.remembered
        self._identities: IdentityMemory[bytes | TokenDigest, Identity] = IdentityMemory(remembered, index.remove)
        self._certificate_identities: IdentityMemory[str, Identity] = IdentityMemory(remembered, index.remove)
        """Identities by certificates, keyed by the names in them, apart from everything that can be sent as a key."""
        self._bind_key = self._bind_held_key
        """One object for all identities. It refers to this directory, until `retire`."""
        self._users: dict[str, Identity] = {}
        """Identities by the names of users with passwords. There are no more than in the files."""
        self.recalled = self.looked_up = 0
        """Cached and uncached keys since the last count, for heads that were not cached as a whole."""
        self._create_identities(settings)

    def count_lookups(self) -> None:
        """Count the key look-ups since the last call."""
        memories = self._identities, self._certificate_identities
        self._metrics.count_identities(self.recalled, self.looked_up, sum(memory.evicted for memory in memories))
        self.recalled = self.looked_up = 0
        for memory in memories:
            memory.evicted = 0

    def _create_identities(self, settings: "EdgeSettings") -> None:
        """Create the identities of senders without a known customer."""
        # The query or a certificate may hold a key, and must be checked in each request. Until then a sender without a
        # key line is not known to be anonymous, so that identity is never valid.
        certifying = any("certificate" in route.auth for route in settings.routes)
        until = UNRESOLVED if certifying or settings.auth.query is not None else FOREVER
        missing = f"An API key is needed here. {settings.auth.key_instructions}"
        self.anonymous = KeylessIdentity(
            lambda route, who: self._access.bind_without_key(
                route, "missing", missing if list_accepted_credentials(route) != ("certificate",) else UNCERTIFIED
            ),
            until,
        )
        self.uncertified = self._create_keyless("unknown", "The client certificate names nobody who is known here")
        self.outdated = self._create_keyless("expired", "The client certificate has expired")
        self.unknown = self._create_keyless("unknown", "The API key is not known")
        self.expired = self._create_keyless("expired", "The API key has expired")
        self.browsers = _create_open_identity(self._access)
        """The identity of preflights that services answer."""
        self.unverified = Identity(_raise_unresolved, UNRESOLVED)
        """The identity of senders on a route with users, until their password is verified."""

    def _create_keyless(self, reason: problem_codes.KeyFault, why: str) -> KeylessIdentity:
        """Create the identity of senders who are refused wherever a key is needed. `reason` is the metric's label."""
        return KeylessIdentity(lambda route, who: self._access.bind_without_key(route, reason, why))

    def resolve(self, secret: bytes | None) -> Identity:
        """Return the identity behind a key, or the anonymous identity for None.

        Return `unknown` if the key has no owner, and an UnresolvedIdentity if the supervisor may know the owner.
        """
        if secret is None:
            return self.anonymous
        known = self._identities
        identity = known.get(secret)
        if identity is not None:
            identity.is_recent = True
            self.recalled += 1
            return identity
        self.looked_up += 1
        if secret.startswith(CERTIFICATE):
            return self.unknown
        digest = hashlib.sha256(secret).digest()
        if self._issuers is not None and is_token(secret):
            remembered = TokenDigest(digest)
            holder = known.get(remembered)
            if holder is None:
                return TokenHolder(secret, remembered)
            holder.is_recent = True
            return holder
        owner = self._customers.find_owner(digest)
        if owner is None:
            # A mistyped key is refused here, so that the supervisor need not look for it.
            unknown = self._key_lookup is None or is_miswritten(secret)
            return self.unknown if unknown else UnresolvedIdentity(secret, digest)
        identity = KeyHolder(self._bind_key, secret, *owner)
        known.remember(secret, identity)
        return identity

    def _bind_held_key(self, route: Route, key: KeyHolder) -> RouteBinding:
        """Return the binding of a key from the files. Raises RejectedError as `bind`."""
        return self._access.bind_held(key, self._customers.get_customer_of(key.subject), route, key.binding)

    def find_successor(self, key: KeyHolder, route: Route) -> UnresolvedIdentity | RejectedError | None:
        """Return the refusal of a key from the files of an earlier configuration.

        Return None if its customer may send requests, or an UnresolvedIdentity if the supervisor may know the key.
        """
        held = self._customers.find_key(key.digest)
        if held is None and self._key_lookup is not None:
            return UnresolvedIdentity(TokenDigest(key.digest), key.digest)
        if held is not None and self._customers.get_customer_of(held.subject).paused is None:
            return None
        try:
            if held is None:
                self.unknown.bind(route)
            else:
                self._access.bind(held, self._customers.get_customer_of(held.subject), route)
        except RejectedError as error:
            return error.with_traceback(None)
        return None

    def resolve_certificate(self, certificate: "ClientCertificate", now: float) -> Identity:
        """Return the identity behind a client's certificate at edge time `now`."""
        if certificate is NO_CERTIFICATE:
            return self.anonymous
        name = certificate.names.get(self._certificate_name)
        if name is None:
            return self.uncertified
        if certificate.expires - EPOCH <= now:
            return self.outdated
        known = self._certificate_identities
        known_as = shorten_name(name)
        identity = known.get(known_as)
        if identity is not None:
            identity.is_recent = True
            return identity
        digest = compute_certificate_digest(name)
        key = self._customers.find_key(digest)
        if key is not None:
            customer = self._customers.get_customer_of(key.subject)
            valid_until = FOREVER if key.terms.expires is None else key.terms.expires - EPOCH
            identity = Identity(
                lambda route, who: self._access.bind(key, customer, route, "certificate", latest=who.binding),
                valid_until,
            )
        elif self._key_lookup is None:
            return self.uncertified
        else:
            identity = CertificateHolder(b"", digest)
        known.remember(known_as, identity)
        return identity

    def get_user(self, name: str) -> Identity:
        """Return the identity of a user whose password is verified."""
        identity = self._users.get(name)
        if identity is None:
            identity = self._users[name] = Identity(lambda route, who: self._access.bind_anonymous(route, name))
        return identity

    def refresh(self, identity: Identity, route: Route, now: float) -> Identity | None:
        """Refresh an identity that is not valid at edge time `now`, on this route.

        Return None if its owner must be looked up.
        """
        key_lookup = self._key_lookup
        if identity is self.anonymous:
            return identity
        if isinstance(identity, TokenHolder):
            return self.anonymous if route.auth == "none" else self._refresh_token(identity, now)
        if not isinstance(identity, UnresolvedIdentity) or key_lookup is None:
            return self.expired
        if route.auth == "none":
            return self.anonymous
        self._require_valid(key_lookup.validity.last, now)
        unknown = self.uncertified if (certified := isinstance(identity, CertificateHolder)) else self.unknown
        known = key_lookup.find_owner(identity.digest)
        if known is None:
            if not key_lookup.is_unknown(identity.digest):
                return None
            # The directory that is out of date may have the key by now.
            self._require_valid(key_lookup.validity.first, now)
            self._drop_owner(identity)
            return unknown
        person, at = known
        assert person is not None
        valid_until = self._require_valid(key_lookup.validity.get(person.residency), now)
        if self._customers.has_customer(person.name):
            return unknown  # The files' description of a customer is complete, so the directory's is not used.
        before = None if certified else self._identities.get(identity.secret)
        if isinstance(before, UnresolvedIdentity) and before.owner == person:
            identity = before
        if not identity.is_bound_to(person, now):
            self._index.remove(identity)
            self._resolve_identity(identity, person, now)
            if not certified:
                self._identities.remember(identity.secret, identity)
            # A certificate's identity may have been dropped while its request waited.
            if identity.memory is not None:
                self._index.add(identity)
        if identity.expires <= now:
            return self.expired
        left = at + self._ttl - monotonic()
        if left <= 0:
            key_lookup.look_up(identity.digest, is_known=True)
            left = STALE_SECONDS
        identity.valid_until = min(now + left, identity.expires, identity.raised_until, valid_until)
        return identity

    def _drop_owner(self, identity: UnresolvedIdentity) -> None:
        """Free the bindings of an identity whose key was removed. Cached heads may still have the identity."""
        if identity.owner is not None:
            self._index.remove(identity)
            if self._identities.get(identity.secret) is identity:
                self._identities.forget(identity.secret)
            identity.replace_bindings(_raise_unresolved)

    def _require_valid(self, valid_until: float, now: float) -> float:
        """Return the end of validity of a directory. Raises RejectedError(503) if it is too old at edge time `now`."""
        if valid_until <= now:
            self._metrics.count_auth_failure("stale")
            why = "What this edge knows of its customers is too old to be believed"
            raise RejectedError(
                503, why, close=False, fields=b"Retry-After: 10\r\n", code=problem_codes.CUSTOMER_DATA_UNAVAILABLE
            )
        return valid_until

    def _refresh_token(self, holder: TokenHolder, now: float) -> Identity | None:
        """Return the identity of a token; None if the supervisor must be asked for the customer."""
        assert self._issuers is not None
        claims = holder.claims
        if claims is None:
            try:
                claims = holder.claims = self._issuers.verify(holder.token)
            except InvalidTokenError as error:
                return self._create_keyless("token", str(error))
            holder.token, holder.digest = b"", format_customer_lookup(claims.customer)
            holder.expires = claims.expires - EPOCH
        if holder.expires <= now:
            return self._create_keyless("expired", "The token has expired")
        until, key_lookup = holder.expires, self._key_lookup
        person: KeyOwner | None = None
        if key_lookup is not None and not self._customers.has_customer(claims.customer):
            validity = key_lookup.validity
            self._require_valid(validity.last, now)
            known = key_lookup.find_owner(holder.digest)
            if known is None and not key_lookup.is_unknown(holder.digest):
                return None
            person = None if known is None else known.owner
            valid_until = validity.first if person is None else validity.get(person.residency)
            self._require_valid(valid_until, now)
            until = min(until, now + (STALE_SECONDS if person is None else self._ttl), valid_until)
        owner = person or KeyOwner(claims.customer, "", "")
        if not holder.is_bound_to(owner, now):
            self._index.remove(holder)
            holder.set_owner(owner, now)
            holder.replace_bindings(lambda route, who: self._bind_token(claims, person, route, now + EPOCH))
            self._identities.remember(holder.secret, holder)
            self._index.add(holder)
        holder.valid_until = min(until, holder.raised_until)
        return holder

    def _bind_token(self, claims: "Claims", person: KeyOwner | None, route: Route, at: float) -> RouteBinding:
        """Return the binding of the customer that a token names, at the Unix second `at`.

        The customer comes from the files, or else from the directory (`person`), or else the token states its tier.
        Raises RejectedError as `bind_directory_customer`.
        """
        terms = Key(sha256=claims.subject, customer=claims.customer, scopes=claims.scopes)
        key = HeldKey(bytes.fromhex(terms.sha256), claims.customer.encode(), terms)
        if self._customers.has_customer(claims.customer):
            customer = self._customers.get_customer(claims.customer)
        elif person is not None:
            try:
                customer = parse_customer(person.customer, at)
            except ValueError:
                return self._access.bind_directory_customer(person, None, route, at)
        elif claims.tier is not None and claims.tier in self._tiers:
            customer = Customer(tier=claims.tier)
        else:
            self._metrics.count_auth_failure("unserved")
            raise RejectedError(
                403,
                "The token names neither a customer nor a tier that is known here",
                close=False,
                code=problem_codes.CUSTOMER_UNKNOWN,
            )
        if claims.id is not None and claims.id in customer.revoked:
            return self._access.bind_without_key(route, "revoked", "The token was revoked")
        if find_missing_reference(customer, self._tiers, self._meters) is not None and person is not None:
            return self._access.bind_directory_customer(person, key, route, at)
        residency = "" if person is None else person.residency
        return self._access.bind(key, customer, route, "jwt", claims.names, residency)

    def _resolve_identity(self, identity: UnresolvedIdentity, person: KeyOwner, now: float) -> None:
        """Settle the owner of an identity at edge time `now`."""
        identity.set_owner(person, now)
        identity.expires = FOREVER
        key: HeldKey | None = None
        try:
            key = HeldKey(identity.digest, person.name.encode(), parse_key(person, identity.digest))
        except ValueError:
            pass  # The binding reports it to each request.
        by = "certificate" if isinstance(identity, CertificateHolder) else "key"
        identity.replace_bindings(
            lambda route, who: self._access.bind_directory_customer(
                person, key, route, now + EPOCH, by, latest=who.binding
            )
        )
        if key is not None and key.terms.expires is not None:
            identity.expires = key.terms.expires - EPOCH

    def forget_customers(self, customers: Collection[str] | None) -> None:
        """Refresh the identities of these customers before their next use.

        None: forget all identities that are not in the files. Their tokens are verified again.
        """
        if customers is not None:
            for identity in self._index.find_identities(customers):
                identity.valid_until = UNRESOLVED
            return
        known = self._identities
        for secret in [secret for secret, who in known.items() if isinstance(who, UnresolvedIdentity)]:
            known.forget(secret)
        for who in self._certificate_identities.values():
            if isinstance(who, UnresolvedIdentity):
                who.valid_until = UNRESOLVED

    def refresh_flags(self) -> None:
        """Drop all bindings, because the customers' flags must be settled again."""
        self._access.forget_terms()
        self.anonymous.clear_bindings()
        self._identities.clear_bindings()
        self._certificate_identities.clear_bindings()
        self._users.clear()

    def retire(self) -> "IdentityMemory[bytes | TokenDigest, Identity]":
        """Release everything: this directory serves no more look-ups. Return the identities to the caller.

        Identities refer to the directory through their route bindings. The directory no longer refers to them, so all
        memory is free when the last request ends, without the garbage collector.
        """
        known, self._identities = self._identities, IdentityMemory(0, self._index.remove)
        self._index.clear()
        self._certificate_identities.clear()
        self._users.clear()
        del self._bind_key
        del (
            self._customers,
            self.anonymous,
            self.unknown,
            self.expired,
            self.uncertified,
            self.outdated,
            self.unverified,
        )
        return known
