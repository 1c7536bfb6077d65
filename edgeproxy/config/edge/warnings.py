"""Warnings of `check` about an edge.yaml: settings that are valid but probably not intended.

Each warning is a sentence that begins with its field, names the danger, and says what to write instead. Pure.
"""

from collections.abc import Iterable, Iterator, Sequence

from edgeproxy.config.algorithms import DEFAULT_DEPTHS, WINDOWS
from edgeproxy.config.allowance import ANONYMOUS, compute_allowance, holds_route
from edgeproxy.config.edge.conditions import covers
from edgeproxy.config.edge.proxy_fields import create_matcher, is_proxy_field
from edgeproxy.config.edge.routes import BASIC, Route
from edgeproxy.config.edge.rules import UNSEEN_FIELDS
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.hub_settings import has_password, is_in_clear, is_local_hub
from edgeproxy.config.key_list import KeyList
from edgeproxy.config.limits import BurstCredits, Limit, Quota
from edgeproxy.config.meters import MEASURES, SPLIT_ESTIMATES, compute_request_amount
from edgeproxy.config.selection import ANY_ROUTES
from edgeproxy.config.warnings import DEMONSTRATION, list_tracing_warnings, list_trusted_proxies_warnings

SECRET_CHARACTERS_MIN = 32
"""Minimum characters of a `stamp_secret` that cannot be guessed."""
COSTS_MAX = 20
"""Maximum warnings about costs, because each route and each allowance may cause one."""

GUARDS = ("auth", "scopes", "networks")
"""Settings of a route that keep clients away from its upstream."""


def list_edge_warnings(settings: EdgeSettings) -> Iterator[str]:
    """Yield all warnings about an edge."""
    yield from _list_connection_warnings(settings)
    yield from list_trusted_proxies_warnings(settings.trusted_proxies)
    for index, digest in enumerate(KeyList.from_keys(settings.keys).list_digests()):
        if digest.hex() in DEMONSTRATION:
            yield f"keys.{index}: is a key of the demonstration, which everybody knows: `edgeproxy key add` makes one"
    secret = settings.stamp_secret
    if secret is not None and len(secret) < SECRET_CHARACTERS_MIN:
        yield (
            f"stamp_secret: has {len(secret)} characters and may be guessed: write {SECRET_CHARACTERS_MIN} or more, "
            "as `openssl rand -hex 32` makes them"
        )
    yield from _list_peer_warnings(settings)
    yield from _list_affinity_warnings(settings)
    yield from _list_directory_warnings(settings)
    yield from _list_path_warnings(settings)
    yield from _list_rule_warnings(settings)
    yield from _list_condition_warnings(settings)
    yield from _list_choice_warnings(settings)
    yield from _list_certificate_warnings(settings)
    yield from _list_meter_warnings(settings)
    yield from _list_unit_limit_warnings(settings)
    yield from _list_estimate_warnings(settings)
    costs = list(_list_cost_warnings(settings))
    yield from costs[:COSTS_MAX]
    if len(costs) > COSTS_MAX:
        yield f"routes: {len(costs) - COSTS_MAX} more costs are above what a limit holds"


def _list_connection_warnings(settings: EdgeSettings) -> Iterator[str]:
    connections_max = settings.limits.connections_per_ip
    if connections_max is not None and not settings.trusted_proxies:
        yield (
            f"limits.connections_per_ip: {connections_max} holds all clients behind one load balancer or NAT together: "
            "name the load balancer in trusted_proxies, or leave it out"
        )


def _list_peer_warnings(settings: EdgeSettings) -> Iterator[str]:
    """Yield outgoing connections whose servers the edge cannot verify."""
    for name, upstream in settings.upstreams.items():
        if not upstream.tls.verify:
            yield f"upstreams.{name}.tls.verify: false trusts whoever answers: write ca: FILE"
        if upstream.host == "pass" and upstream.has_named_tls:
            yield (
                f"upstreams.{name}.host: pass sends the client's Host to an endpoint of https://, which mostly serves "
                "its own name alone: leave it out, or write host: upstream"
            )
    for place, usage in settings.list_usages().items():
        if not usage.tls.verify:
            yield f"{place}.tls.verify: false trusts whoever answers, who gets the token: write ca: FILE"
    yield from list_tracing_warnings(settings.tracing)
    hub = settings.hub
    if not hub.is_shared or is_local_hub(hub.url):
        return
    if not has_password(hub.url):
        yield f"hub: {hub.name} has no password: whoever reaches it can change limits and customers"
        if is_in_clear(hub.url):
            yield f"hub: {hub.name} is not asked over TLS: who is on the way can change limits and customers"
    if not hub.tls.verify:
        yield "hub.tls.verify: false trusts whoever answers, who gets the password: write ca: FILE"


def _list_affinity_warnings(settings: EdgeSettings) -> Iterator[str]:
    """Yield upstreams whose affinity cookie another upstream overwrites, because a browser has one of each name."""
    seen: dict[str, dict[str | None, tuple[str, object]]] = {}
    for name, upstream in settings.upstreams.items():
        if upstream.balance is None or upstream.balance.cookie is None:
            continue
        endpoints = ({endpoint.authority for endpoint in upstream.endpoints}, upstream.balance.secret)
        hosts = {route.host for route in settings.routes if route.upstream == name}
        others = seen.setdefault(upstream.balance.cookie, {})
        met = [others[host] for host in others if None in hosts or host is None or host in hosts]
        other = next((each for each, their_endpoints in met if their_endpoints != endpoints), None)
        if other is not None:
            yield (
                f"upstreams.{name}.balance.cookie: {other} sets {upstream.balance.cookie} for the same host, so each "
                "overwrites the endpoint of the other: give each upstream a cookie of its own"
            )
        for host in hosts:
            others.setdefault(host, (name, endpoints))


def _list_directory_warnings(settings: EdgeSettings) -> Iterator[str]:
    """Yield gaps in the trust of the directory: no signers, or no explicit or no limited maximum age."""
    directory = settings.directory
    if directory is None:
        return
    if not directory.trust:
        yield (
            "directory.trust: is missing: whoever can write to the hub can make keys, also by a tunnel from this host: "
            "write the public key that `edgeproxy directory keygen` prints"
        )
    elif directory.max_age == "none":
        yield (
            "directory.max_age: none lets whoever keeps news from this edge keep revoked keys alive for ever: "
            "write a time such as 24h"
        )
    elif directory.max_age is None and directory.from_ == "hub":
        yield (
            "directory.max_age: is 24h where it is not written: customers get 503 once nobody has signed for so long. "
            "Publish from the collector, or push at least once a day, and write max_age"
        )


def _list_rule_warnings(settings: EdgeSettings) -> Iterator[str]:
    """Yield rules that match no request, because the edge removes their field before it evaluates rules."""
    for index, rule in enumerate(settings.rules):
        if rule.field is not None and rule.field.lower() in UNSEEN_FIELDS:
            yield f"rules.{index}.field: {rule.field} is the edge's own, and no rule sees it: leave the rule out"


def _list_path_warnings(settings: EdgeSettings) -> Iterator[str]:
    """Yield paths stricter than the routes of their look-alikes. Services may take these for theirs."""
    rejects = set(settings.paths.reject)
    for index, route in enumerate(settings.routes):
        candidates = [other for other in settings.routes if _is_looser_route(other, route)]
        stem = route.path.removesuffix("/*")
        if not candidates or not stem.strip("/"):
            continue
        lookalikes = [] if ";" in rejects else [f"{stem};x"]
        lookalikes += ["//".join(stem.rsplit("/", 1))]
        lookalikes += [] if route.prefix else [stem.rstrip("/") if stem.endswith("/") else f"{stem}/"]
        above, _, last = stem.rpartition("/")
        upper = stem.upper() if last.upper() == last else f"{above}/{last.upper()}"
        lookalikes += [upper] if upper != stem else []
        looser_routes = {
            lookalike: route_taken
            for lookalike in lookalikes
            if (route_taken := _find_looser(lookalike, route, candidates, settings.routes))
        }
        if looser_routes:
            hint = ', or write paths: {reject: [";"]} against the `;`' if f"{stem};x" in looser_routes else ""
            yield (
                f"routes.{index}.path: {' and '.join(looser_routes)} are not {route.path}, and go by "
                f"{' and '.join(dict.fromkeys(looser.label for looser in looser_routes.values()))}, which asks for less"
                f": see to it that the service takes them for other paths too{hint}"
            )


def _find_looser(path: str, route: Route, looser: list[Route], routes: Sequence[Route]) -> Route | None:
    """Return the looser route that a look-alike takes; None if a route that is more specific takes it.

    A client chooses whether it meets the conditions of a route.
    """
    taken = min((other for other in looser if _overlaps(other.path, path)), key=_rank_path, default=None)
    if taken is None:
        return None
    specific_routes = (
        other
        for other in routes
        if other.host == route.host and not other.headers and not other.query and not _is_looser_route(other, route)
    )
    rank = _rank_path(taken)
    return None if any(_rank_path(other) < rank and _overlaps(other.path, path) for other in specific_routes) else taken


def _is_looser_route(other: Route, route: Route) -> bool:
    """Return whether `other` leads to the upstream of `route` with fewer requirements."""
    same = other.upstream == route.upstream and other.host in (None, route.host)
    return same and (_compute_openness(other) > _compute_openness(route) or not route.scopes <= other.scopes)


def _overlaps(path: str, other: str) -> bool:
    """Return whether some path belongs to both of these paths of routes."""
    first, second = path.split("/"), other.split("/")
    for position, (mine, theirs) in enumerate(zip(first, second, strict=False), 1):
        if (mine == "*" and theirs) or (theirs == "*" and mine) or mine == theirs:
            continue
        return (mine == "*" and position == len(first)) or (theirs == "*" and position == len(second))
    shorter, longer = sorted((first, second), key=len)
    return len(shorter) == len(longer) or shorter[-1] == "*" or longer[len(shorter) :] == ["*"]


def _rank_path(route: Route) -> list[int]:
    """Return the order among routes of one host, or any host, that have a path in common: the lowest goes first."""
    *segments, last = route.path.split("/")
    return [int(route.host is None), *(int(segment == "*") for segment in segments), 2 if last == "*" else 0]


def _compute_openness(route: Route) -> int:
    """Return how open a route is. A more open route requires less."""
    return {"none": 9, "optional": 8}.get(route.auth_mode, route.auth_mode.count(" or "))


def _list_condition_warnings(settings: EdgeSettings) -> Iterator[str]:
    """Yield routes that no request reaches: their fields never arrive, or another route takes all their requests."""
    is_stripped, is_excepted = (
        create_matcher(tuple(map(str.lower, names))) for names in (settings.strip, settings.strip_except)
    )
    first: dict[tuple[str | None, str], list[Route]] = {}
    for index, route in enumerate(settings.routes):
        for name in map(str.lower, route.headers):
            is_of_proxies = is_stripped(name) or (is_proxy_field(name) and not is_excepted(name))
            if is_of_proxies and not settings.trusted_proxies:
                yield (
                    f"routes.{index}.headers: {name} is removed from requests of all clients, so nothing takes this "
                    "route: name trusted_proxies, or write strip_except"
                )
        earlier = first.setdefault((route.host, route.path), [])
        if before := next((each for each in earlier if _takes_all(each, route)), None):
            yield (
                f"routes.{index}: is never taken: {before.label} has the same path before it and takes all its "
                "requests: put it first, or give it another condition"
            )
        earlier.append(route)


def _list_choice_warnings(settings: EdgeSettings) -> Iterator[str]:
    """Yield routes that a client chooses by a condition, although it gets more on one of them; and shared labels."""
    conditional = [bool(route.headers or route.query) for route in settings.routes]
    for index, route in enumerate(settings.routes):
        if not conditional[index]:
            continue
        others = [
            other
            for number, other in enumerate(settings.routes)
            if number != index and (number < index or not conditional[number])
        ]
        other = next((other for other in others if _is_alternative(other, route)), None)
        if other is not None:
            unequal = [name for name in GUARDS if getattr(route, name) != getattr(other, name)]
            yield (
                f"routes.{index}: conditions choose a route, they do not guard it: a client can choose between this "
                f"route and {other.label}, which has other {' and '.join(unequal)}: give both the same, or another "
                "path or upstream"
            )
        if any(other.label == route.label for other in others):
            yield (
                f"routes.{index}: shares its metrics, limits and patterns of routes with another route of the label "
                f"{route.label}: write name"
            )


def _is_alternative(other: Route, route: Route) -> bool:
    """Return whether a client chooses, by a condition of `route`, between unequal guards of one upstream."""
    if route.upstream is None or route.upstream != other.upstream or not _overlaps(route.path, other.path):
        return False
    if other.host not in (None, route.host) or all(getattr(route, name) == getattr(other, name) for name in GUARDS):
        return False
    is_first = bool(other.headers or other.query) or _rank_path(route) <= _rank_path(other)
    shared = route.methods is None or other.methods is None or route.methods & other.methods
    return bool(shared) and is_first


def _takes_all(before: Route, route: Route) -> bool:
    """Return whether a route before this one, with its host and path, takes all its requests.

    A route with more conditions would go first.
    """
    methods, others = before.methods, route.methods
    takes_methods = others is None if methods is None else others is not None and others <= methods
    headers, own_headers = ({name.lower(): each.headers[name] for name in each.headers} for each in (before, route))
    same_size = len(headers) == len(own_headers) and len(before.query) == len(route.query)
    return takes_methods and same_size and covers(headers, own_headers) and covers(before.query, route.query)


def _list_certificate_warnings(settings: EdgeSettings) -> Iterator[str]:
    """Yield routes that accept certificates although no listener requests them."""
    is_requested = any(listener.tls is not None and listener.tls.client_ca is not None for listener in settings.listen)
    for index, route in enumerate(settings.routes):
        if "certificate" in route.auth_mode and not is_requested:
            yield (
                f"routes.{index}.auth: takes certificates, and no listener asks for one: write client_ca: FILE under "
                "its tls"
            )


def _list_meter_warnings(settings: EdgeSettings) -> Iterator[str]:
    """Yield meters of bodies that no route reads, and meters of messages that no service sends."""
    speaks_grpc = any(upstream.protocol != "http/1.1" for upstream in settings.upstreams.values())
    for number, route in enumerate(settings.routes):
        unread = [protocol for protocol in route.upgrade if protocol != "websocket"]
        if route.response_usage is not None and unread:
            yield f"routes.{number}.upgrade: lets {unread[0]} through, whose usage is not read: leave it out"
    formats = {route.response_usage.format for route in settings.routes if route.response_usage is not None}
    for name, meter in settings.meters.items():
        if MEASURES[meter.count].is_of_messages and not speaks_grpc:
            yield f"meters.{name}: counts nothing, as no upstream speaks gRPC: write protocol: h2c, for one"
        if MEASURES[meter.count].in_body is None:
            continue
        if not formats:
            yield f"meters.{name}: counts nothing, as no route reads answers: write response_usage: openai, for one"
        elif formats == {"json"} and meter.count != "response_json":
            yield f"meters.{name}: counts nothing, as json knows no tokens: write response_usage: openai, for one"


def _list_unit_limit_warnings(settings: EdgeSettings) -> Iterator[str]:
    """Yield limits of numbers in answers that apply to no route, or not on their own routes."""
    for where, limits, reads in _list_limits(settings):
        for index, limit in enumerate(limits):
            if limit.of is not None and not reads:
                route = "this route" if where.startswith("routes.") else "a route"
                yield (
                    f"{where}.limits.{index}.of: holds nothing, as answers are not read: write response_usage: openai, "
                    f"for one, on {route}"
                )


def _list_limits(settings: EdgeSettings) -> list[tuple[str, Sequence[Limit], bool]]:
    """Return each owner of limits, the limits, and whether usage is read from the answers of their requests."""
    is_read = any(route.response_usage is not None for route in settings.routes)
    return [
        *[(f"tiers.{name}", tier.limits, is_read) for name, tier in settings.tiers.items()],
        *[(f"customers.{name}", customer.limits or (), is_read) for name, customer in settings.customers.items()],
        *[(f"keys.{index}", key.limits, is_read) for index, key in KeyList.from_keys(settings.keys).list_others()],
        *[(f"routes.{n}", route.limits, route.response_usage is not None) for n, route in enumerate(settings.routes)],
    ]


def _list_estimate_warnings(settings: EdgeSettings) -> Iterator[str]:
    """Yield meters whose estimates count against customers like stated numbers and cannot be told from them."""
    holders = [
        *[(f"tiers.{name}", tier.quotas) for name, tier in settings.tiers.items()],
        *[(f"customers.{name}", customer.quotas or ()) for name, customer in settings.customers.items()],
    ]
    uses = [
        *[
            (f"{place}.limits.{n}", limit.of)
            for place, limits, _ in _list_limits(settings)
            for n, limit in enumerate(limits)
        ],
        *[(f"{place}.quotas.{n}", quota.meter) for place, quotas in holders for n, quota in enumerate(quotas)],
    ]
    for name, meter in settings.meters.items():
        place = next((place for place, used in uses if used == name), None)
        if meter.hides_estimates and place is not None:
            yield f"meters.{name}: {place} holds customers to estimates that nobody can tell: {SPLIT_ESTIMATES}"


def _list_cost_warnings(settings: EdgeSettings) -> Iterator[str]:
    """Yield costs beyond the capacity of a limit: all such requests are always refused."""
    costly_routes = [(index, route) for index, route in enumerate(settings.routes) if route.cost > 1]
    allowances = [(f"tiers.{name}", name, compute_allowance(tier, None)) for name, tier in settings.tiers.items()]
    for name, customer in settings.customers.items():
        if customer.limits is not None or customer.quotas is not None:
            allowance_held = compute_allowance(settings.tiers[customer.tier], customer)
            allowances.append((f"customers.{name}", customer.tier, allowance_held))
    for index, route in costly_routes:
        yield from _list_limit_cost_warnings(index, route, f"routes.{index}", route.limits, None)
        for where, tier, allowance in allowances:
            if route.auth != "optional" and (route.auth_mode in ("none", BASIC)) != (tier == ANONYMOUS):
                continue
            limits = [limit for limit in allowance.limits if ANY_ROUTES.selects(limit, route)]
            yield from _list_limit_cost_warnings(index, route, where, limits, allowance.burst_credits)
            quotas = [quota for quota in allowance.quotas if holds_route(quota, settings.meters[quota.meter], route)]
            yield from _list_quota_cost_warnings(index, route, where, quotas, settings)


def _list_limit_cost_warnings(
    index: int, route: Route, where: str, limits: Iterable[Limit], credits: BurstCredits | None
) -> Iterator[str]:
    if credits is not None and credits.max >= route.cost:
        return  # Credits pay for requests beyond the limits.
    for limit in limits:
        if limit.mode == "enforce" and limit.counts_requests and route.cost > compute_burst(limit):
            yield (
                f"routes.{index}.cost: {route.cost} is more than {limit.name} of {where} ever lets pass, "
                f"{compute_burst(limit)}: such requests are always refused"
            )


def _list_quota_cost_warnings(
    index: int, route: Route, where: str, quotas: Iterable[Quota], settings: EdgeSettings
) -> Iterator[str]:
    for quota in quotas:
        units_needed = compute_request_amount(settings.meters[quota.meter].count, route.cost)
        if quota.cap == "hard" and units_needed > quota.included:
            yield (
                f"routes.{index}.cost: {route.cost} is more than the quota {quota.name} of {where} includes, "
                f"{quota.included}: such requests are always refused"
            )


def compute_burst(limit: Limit) -> int:
    """Return the number of units that an unused limit permits at once."""
    if DEFAULT_DEPTHS[limit.algorithm] is None:
        return limit.count
    return min(limit.count, limit.depth) if limit.algorithm in WINDOWS else limit.depth
