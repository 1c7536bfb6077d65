"""Routes and route bindings: everything about a request that is settled before it comes.

A route binding joins a customer and a route: policies, stamps and counters, ready for use. It saves five look-ups per
request.
"""

from collections.abc import Sequence
from functools import cache, partial
from time import time
from typing import TYPE_CHECKING, cast

from edgeproxy.config.allowance import COST
from edgeproxy.config.dimensions import format_dimensions, parse_dimensions
from edgeproxy.config.edge.timeouts import Timeouts
from edgeproxy.config.meters import KEY, MEASURES, OVER_CAP, compute_request_amount, is_by_key
from edgeproxy.edge.body_usage.prompts import PromptReader
from edgeproxy.edge.counters.usage_key import usage_key
from edgeproxy.edge.proxy.metering.bodies import BodyMetering
from edgeproxy.edge.proxy.metering.labels import NO_LABEL
from edgeproxy.edge.proxy.metering.meters import (
    CappedCounter,
    CostCounter,
    Countable,
    CounterGroup,
    Metering,
    group_counters,
    is_billed,
)
from edgeproxy.edge.proxy.metering.refusals import RefusalMeters
from edgeproxy.edge.proxy.metering.split import DAY_SECONDS, SplitMetering, is_split
from edgeproxy.edge.proxy.metering.worker_metrics import UsageMeter
from edgeproxy.edge.proxy.routing.basic_credentials import BasicUsers
from edgeproxy.edge.proxy.routing.conditions import Conditions
from edgeproxy.edge.proxy.routing.end_users import EndUserLimits
from edgeproxy.edge.proxy.routing.preauth_policy import PreAuthPolicy
from edgeproxy.edge.proxy.routing.request_rules import select_conditions
from edgeproxy.edge.proxy.routing.response_policy import ResponsePolicy
from edgeproxy.edge.proxy.routing.reverse_mapping import create_reverse_mapping
from edgeproxy.edge.proxy.routing.rewriting import Rewriter
from edgeproxy.edge.proxy.transport.network_filter import NetworkFilter
from edgeproxy.wire.key_uses import format_usage_key

if TYPE_CHECKING:
    from edgeproxy.config.allowance import Allowance
    from edgeproxy.config.customers import Customer
    from edgeproxy.config.edge.routes import Route as RouteSettings
    from edgeproxy.config.edge.rules import RequestRule
    from edgeproxy.config.limits import Messages
    from edgeproxy.config.meters import Meter
    from edgeproxy.edge.counters.meters import Histogram
    from edgeproxy.edge.http1.error_bodies import ErrorBodies
    from edgeproxy.edge.http1.security_fields import SecurityLines
    from edgeproxy.edge.limits.limit_set import LimitSet
    from edgeproxy.edge.limits.route_limits import LimitTerms, RouteLimits
    from edgeproxy.edge.proxy.metering.worker_metrics import WorkerMetrics
    from edgeproxy.edge.proxy.routing.cors import CrossOrigin
    from edgeproxy.edge.proxy.routing.end_users import LimitSetCache
    from edgeproxy.edge.proxy.upstreams.pool import Service

PENDING_MOST = 64
"""Requests of a route whose times may wait for the next sweep, which adds them to histograms. More of them would block
the loop for too long.
"""


class Route:
    """A route: its match, its service, and the histograms of its requests."""

    __slots__ = (
        "auth",
        "conditions",
        "cors",
        "error_bodies",
        "fallback",
        "fallback_statuses",
        "head_timeout",
        "host",
        "idle_timeout",
        "is_flagged",
        "label",
        "methods",
        "overhead_seconds",
        "path",
        "patience",
        "preauth_policy",
        "protocols",
        "request_seconds",
        "response_policy",
        "reverse_mapping",
        "rewriter",
        "scopes",
        "security_lines",
        "service",
        "settings",
        "takes_certificate",
        "total_timeout",
        "tunnel_timeout",
        "users",
    )

    def __init__(
        self,
        settings: "RouteSettings",
        service: "Service | None",
        metrics: "WorkerMetrics",
        *,
        cors: "CrossOrigin | None" = None,
        base: str = "",
        rules: "Sequence[RequestRule]" = (),
        fallback: "Route | None" = None,
        security_lines: "SecurityLines | None" = None,
        error_bodies: "ErrorBodies | None" = None,
    ) -> None:
        """Create a route from its settings.

        `service`: None if nothing is forwarded. `cors`: the pages of other origins that may call the route, or None
        without CORS. `base`: the path of the endpoints. `rules`: request rules for every client. `fallback`: this route
        to its second upstream.
        """
        self.settings = settings
        self.host = None if settings.host is None else settings.host.encode()
        self.path, self.label = settings.path.encode(), settings.label
        self.methods = None if settings.methods is None else frozenset(m.encode() for m in settings.methods)
        self.conditions = Conditions(settings.headers, settings.query) or None
        """The conditions about fields and the query; None without any."""
        self.auth = settings.auth_mode
        self.users = None if isinstance(settings.auth, str) else BasicUsers(settings.auth)
        """The users with passwords; None if the route is for customers or for everybody."""
        self.takes_certificate = "certificate" in self.auth
        """True if a client certificate may identify the customer."""
        self.is_flagged, self.scopes = settings.flag is not None, settings.scopes
        self.protocols = frozenset(protocol.lower().encode() for protocol in settings.upgrade)
        """The protocols that a connection may switch to, in lower case."""
        self._set_timeouts(settings, Timeouts() if service is None else service.timeouts)
        # Without a service the pre-authentication policy answers every request.
        self.service = cast("Service", service)
        self.request_seconds: Histogram = metrics.request_seconds(self.label)
        self.overhead_seconds: Histogram = metrics.overhead_seconds()
        self.cors, self.fallback = cors, fallback
        self.security_lines, self.error_bodies = security_lines, error_bodies
        self.preauth_policy = (
            PreAuthPolicy(settings, cors, select_conditions(rules, settings.path), metrics.count_rule) or None
        )
        """The policy that applies before the key is read; None if the route has none."""
        self._set_changes(settings, base)

    def _set_changes(self, settings: "RouteSettings", base: str) -> None:
        """Create the objects that change the heads of requests and answers."""
        affinity = None if settings.upstream is None else self.service.affinity
        policy = ResponsePolicy(settings.rewrite.response, self.cors, settings.compress, affinity)
        self.response_policy = policy or None
        """The policy for the heads of answers; None if they stay unchanged."""
        self.rewriter = Rewriter(settings.rewrite, base) or None
        """The rewriting of requests; None if they stay unchanged."""
        self.reverse_mapping = None if settings.prefix is None else create_reverse_mapping(settings.rewrite, base)
        """The reverse mapping of URLs in answers; None if they stay unchanged."""

    def _set_timeouts(self, settings: "RouteSettings", timeouts: Timeouts) -> None:
        """Set the delay of the fallback, and the timeouts of the route or, by default, of its service."""
        own, fallback = settings.timeouts, settings.fallback
        self.fallback_statuses = frozenset[int]() if fallback is None else fallback.list_statuses()
        """The upstream statuses that make the edge try the fallback."""
        response_head = own.response_head or timeouts.response_head
        self.head_timeout = (None if fallback is None else fallback.after) or response_head
        self.patience = max(0.0, response_head - self.head_timeout)
        """Seconds beyond `head_timeout` that the first upstream has if the fallback cannot take the request."""
        self.idle_timeout, self.tunnel_timeout = own.idle or timeouts.idle, own.tunnel or timeouts.tunnel
        self.total_timeout = own.total or timeouts.total
        """Seconds that a whole request may take; None: unlimited."""

    def record_times(self, total: float, own: float, waited: float) -> None:
        """Record the times of a request: `total` seconds, of them `own` in the edge, and `waited` for the answer's
        head.
        """
        # This inlines `observe` and saves three calls in each request.
        self.overhead_seconds.pending.append(own)
        self.service.response_seconds.pending.append(waited)
        pending = self.request_seconds.pending
        pending.append(total)
        if len(pending) >= PENDING_MOST:
            for histogram in (self.request_seconds, self.overhead_seconds, self.service.response_seconds):
                histogram.settle()


Refused = tuple[object, tuple[str, ...], tuple[Countable, ...], bytes, bytes]
"""A cached answer to a request that limits refuse: its key, names of the limits, counters of such an answer, and its
two parts (`split_limited` of edge/http1/message.py). Only the request id is missing.
"""


NO_COUNTERS: "tuple[Countable, ...]" = ()


StatusTerms = tuple[Countable, tuple[int, ...] | None]
"""The counter of requests with a status, and the places of the meters that count these; None if all do."""


class SortedMeters:
    """The meters that requests of a route feed, sorted by when they count. All customers share one object."""

    __slots__ = ("all", "by_request", "is_split", "others", "refusing", "stated", "when")

    def __init__(self, meters: dict[str, "Meter"], cost: int) -> None:
        """`cost` is the cost of a request."""
        self.all = meters
        by_request: list[tuple[str, str]] = []
        self.others: dict[str, Meter] = {}
        for name, meter in meters.items():
            if MEASURES[meter.count].is_of_refusals or MEASURES[meter.count].in_body is not None:
                continue
            if compute_request_amount(meter.count, cost) and not is_split(meter):
                by_request.append((meter.when, name))
            else:
                self.others[name] = meter
        self.by_request = tuple([name for _, name in by_request])
        """The meters that count each request alike."""
        self.when = tuple([when for when, _ in by_request])
        """When each of them counts."""
        self.refusing = [name for name, meter in meters.items() if MEASURES[meter.count].is_of_refusals]
        """The meters of requests that limits refuse."""
        self.stated = {name: meter for name, meter in meters.items() if MEASURES[meter.count].in_body is not None}
        """The meters of usage that answers' bodies state."""
        self.is_split = any(map(is_split, self.others.values()))


class BindingTerms:
    """The part of a route binding that customers with equal settings share: all but the name, the key and the
    counters.
    """

    __slots__ = (
        "_by_status", "counts_plainly", "creates_plain_sets", "customer", "end_user_sets", "fallback", "forwards_key",
        "has_own_limit_sets", "has_rare_parts", "has_special_meters", "has_unusual_head", "limits", "lone_meter",
        "message", "meters", "metrics", "networks", "plain_meters", "prefer", "priority", "prompts", "route", "shape",
        "stamps", "tier", "usual_status",
    )  # fmt: skip

    def __init__(
        self,
        route: Route,
        customer: "Customer | None",
        tier: str,
        allowance: "Allowance | None",
        limits: "LimitTerms",
        meters: SortedMeters,
        stamps: tuple[bytes, bytes],
        metrics: "WorkerMetrics",
        *,
        forwards_key: bool,
        is_stamped_per_request: bool,
        end_user_sets: "LimitSetCache",
        fallback: "BindingTerms | None" = None,
        shape: object = None,
    ) -> None:
        """`customer`: the customer's settings, or None for requests without a key.

        `stamps`: the lines before and after the name. `fallback`: the terms on the route's second upstream. `shape`: an
        object that terms have in common under which a customer has equal limits and stamps; None if there is none.
        """
        self.route, self.customer, self.tier, self.limits, self.meters = route, customer, tier, limits, meters
        self.stamps, self.metrics, self.fallback = stamps, metrics, fallback
        self.forwards_key, self.end_user_sets = forwards_key, end_user_sets
        self.priority, self.message = (0, None) if allowance is None else (allowance.priority, allowance.message)
        regions, networks = (None, None) if customer is None else (customer.regions, customer.networks)
        self.prefer = None if regions is None else regions.prefer
        self.networks = None if networks is None else NetworkFilter(networks)
        usage = route.settings.response_usage
        self.prompts = PromptReader(usage.format) if usage is not None and limits.reads_prompts else None
        is_of_requests = bool(limits.name_places) or self.prompts is not None
        self.has_own_limit_sets = limits.by_address or self.networks is not None or is_of_requests
        """True if each address, end user or request has limits of its own."""
        self.shape = None if self.has_own_limit_sets else shape
        changes_host, is_bounded = route.service.host != "pass", route.total_timeout is not None
        rewrites = route.response_policy is not None or route.rewriter is not None
        is_altered = rewrites or usage is not None or changes_host or route.service.speaks_http2
        is_altered = is_altered or fallback is not None or route.users is not None
        self.has_unusual_head = forwards_key or is_stamped_per_request or is_bounded or is_altered
        self.counts_plainly = not any(self._needs_counter_of_its_own(name) for name in meters.by_request)
        """True if each meter of requests has one counter for all keys of a customer."""
        label = route.label
        self.plain_meters = [UsageMeter(name, label, usage_key(("", name, label, ""))) for name in meters.by_request]
        self.lone_meter = self.plain_meters[0] if self.counts_plainly and len(self.plain_meters) == 1 else None
        """The only meter of requests, if it has one counter for all keys of a customer."""
        self.has_special_meters = bool(meters.refusing or usage is not None or meters.others)
        """True if anything but requests and their costs is counted."""
        self.has_rare_parts = self.has_special_meters or fallback is not None or "admitted" in meters.when
        """True if each binding has rare parts. Otherwise some customers' bindings have."""
        self.creates_plain_sets = (
            limits.plain_makers is not None and self.counts_plainly and not (self.has_rare_parts or self.networks)
        )
        """True if a binding needs no `limits`: `create_plain_set` of these has all of them."""
        self._by_status: dict[int, StatusTerms] = {}
        self.usual_status: tuple[int, Countable] = (0, metrics.discarding)
        """The first status that all meters of requests counted, with its counter of requests; 0 before."""

    def _needs_counter_of_its_own(self, name: str) -> bool:
        """Return whether a meter of requests has the key as a dimension, or counts costs."""
        meter = self.meters.all[name]
        return KEY in meter.dimensions or meter.count == "cost" or name == COST

    def get_status_terms(self, status: int) -> StatusTerms:
        """Return the counter of requests answered with this status, and the meters of requests that count these."""
        known = self._by_status.get(status)
        if known is None:
            billed = tuple([place for place, when in enumerate(self.meters.when) if is_billed(when, status)])
            requests = self.metrics.get_request_counter(self.route.label, self.tier, status)
            known = requests, None if len(billed) == len(self.meters.when) else billed
            if requests is not self.metrics.discarding:
                self._by_status[status] = known
                if known[1] is None and status < 500 and not self.usual_status[0]:
                    self.usual_status = status, requests
        return known


class RareParts:
    """The parts of a route binding that most bindings do not have."""

    __slots__ = (
        "admitted_counters", "body_metering", "counted_as", "end_users", "fallback", "limits", "metering", "refusals",
        "takes_whole_bodies", "user",
    )  # fmt: skip

    def __init__(
        self, limits: "RouteLimits", counted_as: str | None, fallback: "RouteBinding | None" = None, user: str = ""
    ) -> None:
        limits.release_key()
        self.limits, self.counted_as, self.fallback, self.user = limits, counted_as, fallback, user
        self.end_users: EndUserLimits | None = None
        self.admitted_counters = NO_COUNTERS
        self.refusals: RefusalMeters | None = None
        self.body_metering: BodyMetering | None = None
        self.metering: Metering | None = None
        self.takes_whole_bodies = fallback is not None


class RouteBinding:
    """A customer on a route: the customer's own part, and `terms`, which customers with equal settings share.

    Most customers have one binding without `rare` parts, so it is small.
    """

    __slots__ = (
        "_usage", "latest_counter", "latest_refusal", "latest_status", "latest_usage", "limit_set", "rare",
        "route", "subject", "terms",
    )  # fmt: skip

    def __init__(
        self,
        terms: BindingTerms,
        subject: bytes,
        limits: "RouteLimits | None",
        limit_set: "LimitSet | None" = None,
        *,
        counted_as: str | None = None,
        fallback: "RouteBinding | None" = None,
        user: str = "",
    ) -> None:
        """`subject` is the customer's name, empty without a customer. `counted_as` is the name with its residency, or
        None if the residency is the edge's own. `limits` has all limits of the customer's requests. `fallback`: the
        binding of this customer to the route's second upstream. `user`: who sent a password.

        `limit_set`: the limits, if they exist already, for example because a binding of this customer to another route
        has equal ones. Then `limits` is None if neither binding has rare parts.
        """
        self.terms, self.route = terms, terms.route
        self.subject = subject
        self.rare: RareParts | None = None
        """The parts that most bindings do not have; None without any."""
        if limit_set is None and not terms.has_own_limit_sets:
            assert limits is not None
            limit_set = limits.build_limit_set()
        self.limit_set = limit_set
        """The limits; None if each address, end user or request has its own."""
        if terms.has_rare_parts or limit_set is None or user or counted_as is not None:
            assert limits is not None
            self.rare = RareParts(limits, counted_as, fallback, user)
            if terms.limits.name_places:
                self.rare.end_users = EndUserLimits(limits, terms.networks, terms.end_user_sets)
        self._create_meters(terms, limits)

    @property
    def stamps(self) -> bytes:
        """The stamp lines."""
        before, after = self.terms.stamps
        return before + self.subject + after

    @property
    def customer(self) -> str:
        """The customer's name; `-` without a customer."""
        return self.subject.decode() or NO_LABEL

    @property
    def counted_as(self) -> str:
        """The name with its residency, or the plain name if the residency is the edge's own."""
        return self.customer if self.rare is None else self.rare.counted_as or self.customer

    @property
    def limits(self) -> "RouteLimits":
        """All limits of the customer's requests. For bindings without a limit set."""
        assert self.rare is not None
        return self.rare.limits

    @property
    def end_users(self) -> "EndUserLimits | None":
        """The limits by end user, if any."""
        return None if self.rare is None else self.rare.end_users

    @property
    def fallback(self) -> "RouteBinding | None":
        """The binding of this customer to the route's second upstream."""
        return None if self.rare is None else self.rare.fallback

    @property
    def user(self) -> str:
        """The user who sent a password; empty if nobody did."""
        return "" if self.rare is None else self.rare.user

    @property
    def refusals(self) -> "RefusalMeters | None":
        """The meters of requests that limits refuse; None without any."""
        return None if self.rare is None else self.rare.refusals

    @property
    def body_metering(self) -> "BodyMetering | None":
        """The meters of usage that answers' bodies state; None without any."""
        return None if self.rare is None else self.rare.body_metering

    @property
    def metering(self) -> "Metering | None":
        """The meters of anything but requests and their cost; None without any."""
        return None if self.rare is None else self.rare.metering

    @property
    def takes_whole_bodies(self) -> bool:
        """True if bodies must be complete before the upstream gets them, regardless of the upstream's `buffer`."""
        return self.rare is not None and self.rare.takes_whole_bodies

    @property
    def tier(self) -> str:
        """The name of the customer's tier."""
        return self.terms.tier

    @property
    def priority(self) -> int:
        """The priority of the requests under overload; the lowest is shed first."""
        return self.terms.priority

    @property
    def message(self) -> "str | Messages | None":
        """The operator's words in refusals."""
        return self.terms.message

    @property
    def networks(self) -> "NetworkFilter | None":
        """The networks that the customer may send from."""
        return self.terms.networks

    @property
    def forwards_key(self) -> bool:
        """True if the upstream gets the credentials."""
        return self.terms.forwards_key

    @property
    def prompts(self) -> "PromptReader | None":
        """The reader of request bodies that state a request's reservation; None if no limit needs it."""
        return self.terms.prompts

    @property
    def asks_for_usage(self) -> bool:
        """True if the edge asks upstreams for the usage of streams."""
        usage = self.route.settings.response_usage
        return usage is not None and bool(usage.ask_for_usage) and self.body_metering is not None

    @property
    def refuses_unasked(self) -> bool:
        """True if the edge refuses requests that it cannot make ask for usage."""
        usage = self.route.settings.response_usage
        return usage is not None and usage.refuses_unasked and self.asks_for_usage

    def find_rows(self, now: float) -> None:
        """Find or claim the rows of new limits at edge time `now`, if they may be looked up together."""
        if self.limit_set is not None:
            self.terms.limits.find_rows(self.limit_set, self.subject, now)

    def is_ejected(self) -> bool:
        """Return whether all endpoints of the first upstream are ejected while the fallback has one that is not."""
        assert self.fallback is not None
        return not self.route.service.has_chosen() and self.fallback.route.service.has_chosen()

    def _create_meters(self, terms: BindingTerms, limits: "RouteLimits | None") -> None:
        """Create the counters of requests, sorted by the time and the subject of each meter's counts."""
        meters, metrics, rare, lone = terms.meters, terms.metrics, self.rare, terms.lone_meter
        self.latest_status, self.latest_counter = terms.usual_status
        self.latest_refusal: Refused | None = None
        """The latest 429 of this binding. The next refusal is mostly equal to it."""
        if lone is not None and rare is None and self.subject:  # As for most customers.
            counter: Countable = metrics.get_whole_usage_counter(self.subject, lone)
            self._usage = self.latest_usage = counter
            return
        usage: list[Countable] = []
        if terms.counts_plainly:
            subject = self.counted_as.encode()
            usage = [metrics.get_whole_usage_counter(subject, meter) for meter in terms.plain_meters]
        else:
            assert limits is not None
            usage = [_create_counter(self.counted_as, terms, limits, name) for name in meters.by_request]
        self._usage = group_counters(usage)
        """The counters of the meters that count each request alike."""
        self.latest_usage = self._usage
        """The counters of the latest status: of requests, and of meters and errors. A new binding expects the usual
        one.
        """
        if rare is None:
            return
        if "admitted" in meters.when:
            rare.admitted_counters = tuple(
                [counter for when, counter in zip(meters.when, usage, strict=True) if when == "admitted"]
            )
        if terms.has_special_meters:
            self._create_special_meters(terms, rare)

    def _create_special_meters(self, terms: BindingTerms, rare: RareParts) -> None:
        """Create the meters of refusals, of usage that answers' bodies state, and of anything else but requests."""
        meters, metrics, customer = terms.meters, terms.metrics, self.counted_as
        counted = partial(_create_counter, customer, terms, rare.limits)
        if refusing := meters.refusing:
            rare.refusals = RefusalMeters(lambda split: tuple([counted(name, split) for name in refusing]))
        usage = self.route.settings.response_usage
        if usage is not None:
            names = self.customer, self.route.label
            rare.body_metering = BodyMetering(usage, names, meters.stated, counted, metrics, metrics.values) or None
            rare.takes_whole_bodies = rare.takes_whole_bodies or self.asks_for_usage
        if meters.is_split:
            rare.metering = SplitMetering(customer, meters.others, counted, metrics.report_unreadable, metrics.values)
        elif meters.others:
            rare.metering = Metering(meters.others, counted, metrics.report_unreadable)

    def find_counters(self, status: int) -> tuple[Countable, Countable]:
        """Return the counters of answers with this status, and remember them as the latest."""
        if status != self.latest_status:
            self.select_counters(status)
        return self.latest_counter, self.latest_usage

    def select_counters(self, status: int) -> None:
        """Make the counters of answers with this status the latest."""
        terms = self.terms
        self.latest_counter, billed = terms.get_status_terms(status)
        usage = self._usage
        if billed is not None:
            # A lone meter counts in full or not at all.
            usage = group_counters([usage[place] for place in billed] if isinstance(usage, CounterGroup) else ())
        if status >= 500:
            errors = terms.metrics.errors.list_counters(self.counted_as, self.route.label, status)
            usage = group_counters([usage, *errors])
        self.latest_status, self.latest_usage = status, usage


def _create_counter(customer: str, terms: BindingTerms, limits: "RouteLimits", name: str, split: str = "") -> Countable:
    """Create the counter of a meter for `split`, the dimensions as text. Adds the key if the meter has it as a
    dimension.

    No closure of the binding: in compiled code all closures of a function refer to each other, so none would be freed.
    """
    route, metrics, meter, most = terms.route, terms.metrics, terms.meters.all[name], terms.limits.request_most
    by_key = meter.dimensions.get(KEY)
    if by_key is not None and limits.key and is_by_key(KEY, by_key):
        metrics.values.begin_day(int(time()) // DAY_SECONDS)
        value = metrics.values.count_value(customer, name, KEY, format_usage_key(limits.key), by_key)
        split = format_dimensions({**parse_dimensions(split), KEY: value})
    counter = metrics.get_usage_counter(customer, name, route.label, split)
    is_known_later = MEASURES[meter.count].is_reported or MEASURES[meter.count].in_body is not None
    if name == COST and most is not None and is_known_later:
        above = cache(lambda: metrics.get_usage_counter(customer, OVER_CAP, route.label))
        return CappedCounter(counter, most, above)
    amount = compute_request_amount(meter.count, route.settings.cost)
    return CostCounter(counter, amount) if meter.count == "cost" and amount != 1 else counter
