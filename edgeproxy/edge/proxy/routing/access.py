"""Access to routes: whether a customer may use a route, and the binding for it.

All refusals of access are decided here: by credentials, flags, pauses, scopes and regions, in that order.
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from edgeproxy.base import log
from edgeproxy.base.lru_cache import LRUCache
from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.config.allowance import (
    ANONYMOUS,
    apply_caps,
    apply_key_limits,
    compute_allowance,
    compute_effective_allowance,
    find_missing_reference,
)
from edgeproxy.config.customers import DirectoryKey, Key
from edgeproxy.config.directory import KeyOwner, parse_customer
from edgeproxy.config.edge.auth import AUTHORIZATION
from edgeproxy.config.edge.stamps import StampValues
from edgeproxy.config.selection import RouteSelector, is_of_all
from edgeproxy.edge import problem_codes
from edgeproxy.edge.counters.usage_key import qualify_customer
from edgeproxy.edge.errors import RejectedCustomerError, RejectedError, UnidentifiedError
from edgeproxy.edge.http1.stamps import format_lines
from edgeproxy.edge.limits.route_limits import NO_CLAIMS, LimitTerms, RouteLimits
from edgeproxy.edge.proxy.metering.labels import NO_LABEL
from edgeproxy.edge.proxy.routing.binding import BindingTerms, Route, RouteBinding, SortedMeters
from edgeproxy.edge.proxy.routing.end_users import create_limit_set_cache
from edgeproxy.edge.proxy.routing.flags import has_flag
from edgeproxy.edge.proxy.routing.router import create_no_route_error

if TYPE_CHECKING:
    from edgeproxy.config.allowance import Allowance
    from edgeproxy.config.customers import Customer
    from edgeproxy.config.edge.customer_store import CustomerKey
    from edgeproxy.config.edge.settings import EdgeSettings
    from edgeproxy.edge.limits.route_limits import PolicyTables
    from edgeproxy.edge.proxy.metering.worker_metrics import WorkerMetrics
    from edgeproxy.edge.proxy.routing.key_lookup import KeyLookup

ACCEPTED_CREDENTIALS = {
    "required": ("key",),
    "optional": ("key", "jwt"),
}
"""The credentials that a route accepts, by its `auth`. Any other value of `auth` lists them itself."""

CREDENTIAL_NAMES = {"key": "An API key", "jwt": "A token", "certificate": "A client certificate"}

NO_SCOPES = frozenset[str]()

SOMEBODY = "\0"
"""A placeholder for a customer's name. No name contains this character."""

TERMS_MAX = 4096
"""Cached terms of customers on routes, some KiB each."""

LOG_SECONDS = 60.0
"""Seconds between two log lines about directory customers that are refused for one reason."""


class RouteAccess:
    """The access of customers to a configuration's routes.

    `tables` count the requests of customers. `key_lookup` has the directory's flags.
    """

    def __init__(
        self, settings: "EdgeSettings", tables: "PolicyTables", metrics: "WorkerMetrics", key_lookup: "KeyLookup | None"
    ) -> None:
        self._tables = tables
        self._metrics = metrics
        self._tiers, self._meters, self._flags = settings.tiers, settings.meters, settings.flags
        self._has_fed_routes = not all(map(is_of_all, settings.meters.values()))
        self._edge_region = settings.region
        self._key_lookup = None if settings.directory is None else key_lookup
        self._stamps_each = settings.stamp_secret is not None or settings.auth.query is not None
        """True if each request's head is built individually: it is signed, or its query may hold a key."""
        self._forwarding = {name for name, upstream in settings.upstreams.items() if upstream.forward_key}
        bearer = any(field.lower() == AUTHORIZATION for field in settings.auth.fields)
        self._scheme = "Bearer" if bearer else "ApiKey"
        self._end_user_sets = create_limit_set_cache()
        self._terms: LRUCache[tuple[Route, int, str], BindingTerms] = LRUCache(TERMS_MAX)
        """Terms by route, customer settings and residency. The key is the settings object's id; the terms keep the
        object alive.
        """
        self._granted: LRUCache[tuple[Route, int, int], tuple[BindingTerms, Key]] = LRUCache(TERMS_MAX)
        """Terms by route, customer settings and key settings, of keys whose access to the route was granted. The keys
        are the ids of objects that the values keep alive.
        """
        self._log = log.RateLimitedLog(LOG_SECONDS)
        self._shapes: dict[object, object] = {}
        """One object for all terms with equal limits for a customer (`LimitTerms.describe_shared`) and equal stamps."""
        # Not a method of this object: the selector and this object would refer to each other and keep the old
        # configuration in memory.
        self._selector = RouteSelector(settings.routes, partial(_report_unknown_route, self._log))

    def bind_directory_customer(
        self,
        person: KeyOwner,
        key: "CustomerKey | None",
        route: Route,
        at: float,
        by: str = "key",
        latest: RouteBinding | None = None,
    ) -> RouteBinding:
        """Return the binding of a directory customer at the Unix second `at`. `key`: None if its record cannot be
        parsed. `latest` is that of `bind`.

        Raises RejectedError as `bind` does, and 503 if this edge does not know the customer's limits: no customer is
        served without limits.
        """
        if route.auth == "none":
            return self.bind_anonymous(route)
        try:
            customer = parse_customer(person.customer, at)
        except ValueError:
            key = None
        if key is None:
            why = "what is said of them is not understood by this version"
        elif (missing := find_missing_reference(customer, self._tiers, self._meters, key.terms)) is not None:
            why = f"there is no {missing} here"
        else:
            return self.bind(key, customer, route, by, residency=person.residency, latest=latest)
        self._metrics.count_auth_failure("unserved")
        self._log.error("customers of the directory are refused", why, such_as=person.name)
        again = b"Retry-After: 30\r\n"
        why = "This edge does not know the plan of this customer"
        raise RejectedError(503, why, close=False, fields=again, code=problem_codes.CUSTOMER_DATA_UNAVAILABLE)

    def bind_held(
        self, key: "CustomerKey", customer: "Customer", route: Route, latest: RouteBinding | None
    ) -> RouteBinding:
        """Return the binding of a key from the files, as `bind` does. Access is decided once for keys with equal
        settings.
        """
        own = key.terms
        place = (route, id(customer), id(own))
        granted = self._granted[place]
        if granted is not None:  # As long as it is cached, no other objects have these ids.
            return self._bind_terms(granted[0], key, latest=latest)
        binding = self.bind(key, customer, route, latest=latest)
        # A flag may depend on the customer's name.
        if route.auth != "none" and route.settings.flag is None and not own.limits:
            self._granted.admit(place, (binding.terms, own))
        return binding

    def bind(
        self,
        key: "CustomerKey",
        customer: "Customer",
        route: Route,
        by: str = "key",
        claims: Mapping[str, bytes] = NO_CLAIMS,
        residency: str = "",
        latest: RouteBinding | None = None,
    ) -> RouteBinding:
        """Return the route binding of a key's customer. Raises RejectedError with a reason if access is refused.

        `residency` is the customer's, or empty if it is the edge's own. `latest` is a binding of this key to another
        route; the new one shares its parts that are equal. 404 if the route has a flag that the customer
        lacks; 403 or 402 if the customer is paused; 403 if the key lacks a scope of the route, or if the customer is
        not served in this region.
        """
        if route.auth == "none":
            return self.bind_anonymous(route)
        if by not in list_accepted_credentials(route):
            expected = " or ".join(
                CREDENTIAL_NAMES[accepted_credential] for accepted_credential in list_accepted_credentials(route)
            )
            return self.bind_without_key(route, "unknown", f"{expected} is needed here")
        if route.is_flagged and route.settings.flag not in customer.flags:
            self._check_flag(route, customer.tier, key.customer, residency)
        if customer.paused is not None:
            self._metrics.count_auth_failure("paused")
            status, why = customer.paused.status, customer.paused.why
            code = problem_codes.CUSTOMER_PAUSED if status == 403 else None
            raise self._create_rejection(status, why, code, key, customer, residency)
        if route.scopes and not route.scopes <= (scopes := key.terms.scopes or NO_SCOPES):
            self._metrics.count_auth_failure("scope")
            missing = ", ".join(sorted(route.scopes - scopes))
            what = "client certificate" if by == "certificate" else "API key"
            why = f"The {what} lacks the scope {missing}"
            raise self._create_rejection(403, why, problem_codes.SCOPE_MISSING, key, customer, residency)
        if customer.regions is not None:
            self._check_region(key, customer, residency)
        return self._bind_terms(self._find_terms(route, key, customer, residency), key, claims, residency, latest)

    def _bind_terms(
        self,
        terms: BindingTerms,
        key: "CustomerKey",
        claims: Mapping[str, bytes] = NO_CLAIMS,
        residency: str = "",
        latest: RouteBinding | None = None,
    ) -> RouteBinding:
        """Return the binding of a key under these terms, as `bind` does."""
        if latest is not None and terms.shape is not None and latest.terms.shape is terms.shape:
            return _bind_alike(latest, terms, key, claims)
        subject = key.subject
        if terms.creates_plain_sets and not residency:
            return RouteBinding(terms, subject, None, terms.limits.create_plain_set(subject))
        limits = RouteLimits(terms.limits, subject, key, claims)
        if terms.fallback is None and not residency:
            return RouteBinding(terms, subject, limits)  # As `_create_binding` does for most of these.
        return self._create_binding(subject, terms, limits, residency)

    def forget_terms(self) -> None:
        """Drop the cached terms, because flags of the directory have changed."""
        self._terms.clear()
        self._granted.clear()
        self._shapes.clear()

    def _find_terms(self, route: Route, key: "CustomerKey", customer: "Customer", residency: str) -> BindingTerms:
        """Return the terms of a customer on a route.

        Customers with equal settings share them, but a key with limits of its own gets its own.
        """
        own = key.terms
        if own.limits or (isinstance(own, DirectoryKey) and own.budget is not None):
            return self._create_terms(route, key, customer, residency)
        place = (route, id(customer), residency)
        terms = self._terms[place]
        if terms is None or terms.customer is not customer:
            terms = self._terms.admit(place, self._create_terms(route, key, customer, residency))
        return terms

    def _create_terms(self, route: Route, key: "CustomerKey", customer: "Customer", residency: str) -> BindingTerms:
        flags = {} if self._key_lookup is None else self._key_lookup.flags.get(residency, {})
        allowance = compute_effective_allowance(self._tiers[customer.tier], customer, flags)
        allowance = apply_key_limits(apply_caps(allowance, self._meters), key.terms, flags)
        limits = LimitTerms(self._tables, route.settings, allowance, self._meters, self._selector)
        lines = self._split_stamps(SOMEBODY, customer.tier)
        return self._join_terms(route, customer, customer.tier, allowance, limits, lines)

    def _join_terms(
        self,
        route: Route,
        customer: "Customer | None",
        tier: str,
        allowance: "Allowance | None",
        limits: LimitTerms,
        lines: tuple[bytes, bytes],
    ) -> BindingTerms:
        """Return the terms on a route, and those on its second upstream. `customer`: None for requests without a
        key.
        """
        meters = self._sort_meters(route)
        shape: object = limits.describe_shared()
        if shape is not None:
            if len(self._shapes) >= TERMS_MAX:
                self._shapes.clear()
            shape = self._shapes.setdefault((shape, lines), (shape, lines))
        terms = None
        # The second upstream first: the terms of the first one refer to it.
        for each in (route,) if route.fallback is None else (route.fallback, route):
            terms = BindingTerms(
                each,
                customer,
                tier,
                allowance,
                limits,
                meters,
                lines,
                self._metrics,
                # `auth: none` means that the edge ignores credentials: they are meant for the upstream.
                forwards_key=(customer is None and each.users is None) or each.service.name in self._forwarding,
                is_stamped_per_request=self._stamps_each,
                end_user_sets=self._end_user_sets,
                fallback=terms,
                shape=shape,
            )
        assert terms is not None
        return terms

    def _split_stamps(self, customer: str | None, tier: str) -> tuple[bytes, bytes]:
        """Return the stamp lines before and after the customer's name, or all lines if there is no customer."""
        values = StampValues(self._edge_region, customer, None if tier == NO_LABEL else tier)
        before, _, after = format_lines(values).partition(SOMEBODY.encode())
        return before, after

    def _sort_meters(self, route: Route) -> SortedMeters:
        """Return the meters that requests of a route feed."""
        meters = self._meters
        if self._has_fed_routes:
            selects = self._selector.selects
            meters = {name: meter for name, meter in meters.items() if selects(meter, route.settings)}
        return SortedMeters(meters, route.settings.cost)

    def _check_flag(self, route: Route, tier: str, customer: str | None, residency: str = "") -> None:
        """Raise RejectedError(404) if the route has a flag that this customer (None: anonymous) of this tier lacks."""
        name = route.settings.flag
        if name is None:
            return
        flag = self._flags.get(name)
        if flag is None and self._key_lookup is not None:
            flag = self._key_lookup.flags.get(residency, {}).get(name)
        if flag is None or not has_flag(name, flag, tier, customer):
            raise create_no_route_error()

    def _check_region(self, key: "CustomerKey", customer: "Customer", residency: str) -> None:
        """Raise RejectedError(403) if the customer is not served in this region."""
        regions = customer.regions
        if regions is not None and regions.allow is not None and self._edge_region not in regions.allow:
            self._metrics.count_auth_failure("region")
            why = f"This customer is not served in the region {self._edge_region}"
            raise self._create_rejection(403, why, problem_codes.REGION_DENIED, key, customer, residency)

    def _create_rejection(
        self,
        status: int,
        why: str,
        code: ProblemCode | None,
        key: "CustomerKey",
        customer: "Customer",
        residency: str,
    ) -> RejectedError:
        counted_as = qualify_customer(key.customer, residency)
        return RejectedCustomerError(
            status, why, code, customer=key.customer, tier=customer.tier, counted_as=counted_as
        )

    def bind_without_key(self, route: Route, reason: problem_codes.KeyFault, why: str) -> RouteBinding:
        """Return the route binding of a request without a key.

        Raises UnidentifiedError if the route needs a key, and RejectedError(404) if it has a flag.
        """
        # Scopes come only with a key, so a route with scopes needs a key even if `auth` is `optional`.
        keyless = route.auth == "optional" and reason == "missing" and not route.scopes
        if route.auth == "none" or keyless:
            return self.bind_anonymous(route)
        if route.settings.flag is not None:
            raise create_no_route_error()
        if route.settings.challenge == "basic":
            challenge = 'Basic realm="edgeproxy", charset="UTF-8"'  # RFC 7617 section 2.1
        else:
            challenge = f'{self._scheme} realm="edgeproxy"' + ("" if reason == "missing" else ', error="invalid_token"')
        fields = f"WWW-Authenticate: {challenge}\r\n".encode()
        raise UnidentifiedError(reason, why, fields=fields)

    def bind_anonymous(self, route: Route, user: str = "") -> RouteBinding:
        """Return the route binding of requests without a key. `user`: who sent a password.

        The anonymous tier, if there is one, limits them by address.
        """
        settings = self._tiers.get(ANONYMOUS)
        tier = NO_LABEL if settings is None else ANONYMOUS
        self._check_flag(route, tier, None)
        allowance = None if settings is None else compute_allowance(settings, None)
        limits = LimitTerms(self._tables, route.settings, allowance, self._meters, self._selector, is_anonymous=True)
        lines = self._split_stamps(None, tier)
        terms = self._join_terms(route, None, tier, allowance, limits, lines)
        return self._create_binding(b"", terms, RouteLimits(limits, None), user=user)

    def _create_binding(
        self,
        subject: bytes,
        terms: BindingTerms,
        limits: RouteLimits,
        residency: str = "",
        user: str = "",
    ) -> RouteBinding:
        fallback = None
        if terms.fallback is not None:
            fallback = self._create_binding(subject, terms.fallback, limits, residency, user)
        return RouteBinding(
            terms,
            subject,
            limits,
            counted_as=qualify_customer(subject.decode(), residency) if residency else None,
            fallback=fallback,
            user=user,
        )


def _bind_alike(
    other: RouteBinding, terms: BindingTerms, key: "CustomerKey", claims: Mapping[str, bytes]
) -> RouteBinding:
    """Return the binding under these terms of the customer of another binding, whose terms have the same shape."""
    if other.rare is None and not terms.has_rare_parts and terms.counts_plainly:
        return RouteBinding(terms, other.subject, None, limit_set=other.limit_set)
    return RouteBinding(
        terms,
        other.subject,
        RouteLimits(terms.limits, other.subject, key, claims),
        counted_as=None if other.rare is None else other.rare.counted_as,
        limit_set=other.limit_set,
        fallback=None if terms.fallback is None else _bind_alike(other, terms.fallback, key, claims),
    )


def list_accepted_credentials(route: Route) -> tuple[str, ...]:
    """Return the credentials that a route accepts."""
    return ACCEPTED_CREDENTIALS.get(route.auth) or tuple(route.auth.split(" or "))


def _report_unknown_route(to: log.RateLimitedLog, name: str) -> None:
    """Log that the directory names a route that does not exist."""
    to.error("limits of the directory hold all requests", f"there is no {name} here")
