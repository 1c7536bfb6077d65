"""What is allowed in a configuration, and is probably not meant: `check` warns of it.

Each warning is a sentence that begins with its field and says what is to be feared, and what to write instead. Pure.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from edgeproxy.config.algorithms import DEFAULT_DEPTHS
from edgeproxy.config.allowance import ANONYMOUS, compute_allowance
from edgeproxy.config.listeners import GROUPS, PAGE_GROUPS, is_internal_network
from edgeproxy.config.meters import compute_request_amount
from edgeproxy.config.models import BurstCredits, Limit, Quota, Route, Settings
from edgeproxy.config.parsers import Network, has_password, is_local_hub, is_local_url, is_loopback

if TYPE_CHECKING:
    from edgeproxy.config.collector import Settings as CollectorSettings

SECRET_CHARACTERS_MIN = 32
"""Characters of a `stamp_secret` below which it may be guessed."""

COSTS_MAX = 20
"""Warnings of costs that are shown: each route and each allowance may make one."""

DEMONSTRATION = frozenset(
    (
        "31541e48aed7e89e6a111731ebb31fa5c3fa9b9b483803331061f5d2ae165595",  # ek_demo_basic
        "913a34558ad21bcf70e94d5c791c254d025109fb9bae4d1d1c9d2e2444b76ad1",  # ek_demo_pro
        "f281af89288ec6166d49fa2930ce4be9d86805193ab762415ce1ac8429ed2442",  # demo-edge-token
        "d2771ba6a5ce166531a002e101dc6f4259fe1926281ac28f9bdaedf21e381866",  # demo-read-token
        "20f4dc1d72e43ab98230c82437018b295d220d05ba6108242d1a164c0b5f1b22",  # demo-service-token
        "9b734e0b3098355db9451c34595db8184a64c0976abc7fc88ae1a428ec48bdc5",  # demo-pro-token
    )
)
"""The SHA-256 of keys and tokens of the files in config/, which everybody can read there."""

NETWORK_BITS_MIN = {4: 8, 6: 16}
"""Bits of a network's prefix, by the version of IP, below which it is nobody's own."""

VERIFIED = ("verify-full", "verify-ca")
"""The `sslmode` of PostgreSQL with which nobody else can answer in its place."""


def list_edge_warnings(settings: Settings) -> Iterator[str]:
    """All of an edge's."""
    yield from _list_connection_warnings(settings)
    yield from list_trusted_proxies_warnings(settings.trusted_proxies)
    for index, key in enumerate(settings.keys):
        if key.sha256 in DEMONSTRATION:
            yield f"keys.{index}: is a key of the demonstration, which everybody knows: `edgeproxy key new` makes one"
    secret = settings.stamp_secret
    if secret is not None and len(secret) < SECRET_CHARACTERS_MIN:
        yield (
            f"stamp_secret: has {len(secret)} characters and may be guessed: write {SECRET_CHARACTERS_MIN} or more, "
            "as `openssl rand -hex 32` makes them"
        )
    yield from _list_peer_warnings(settings)
    yield from _list_directory_warnings(settings)
    yield from _list_path_warnings(settings)
    yield from _list_certificate_warnings(settings)
    costs = list(_list_cost_warnings(settings))
    yield from costs[:COSTS_MAX]
    if len(costs) > COSTS_MAX:
        yield f"routes: {len(costs) - COSTS_MAX} more costs are above what a limit holds"


def list_collector_warnings(settings: "CollectorSettings") -> Iterator[str]:
    """All of a collector's."""
    for index, token in enumerate(settings.tokens):
        if not DEMONSTRATION.isdisjoint(token.sha256):
            yield f"tokens.{index}: is a token of the demonstration, which everybody knows: make one of your own"
    database = urlsplit(settings.database)
    if database.scheme == "postgresql" and not is_local_url(f"http://{database.netloc.rpartition('@')[2]}"):
        mode = parse_qs(database.query).get("sslmode", ["prefer"])[-1]
        if mode not in VERIFIED:
            yield (
                f"database: with sslmode={mode} anybody on the way can answer in PostgreSQL's place: "
                "write ?sslmode=verify-full"
            )
    yield from list_trusted_proxies_warnings(settings.trusted_proxies)
    yield from _list_listener_warnings(settings)
    alerts = settings.alerts
    named = {alerts.customers, *alerts.routes.page, *alerts.routes.warn, *alerts.routes.info}
    for name in alerts.channels.keys() - named:
        yield f"alerts.channels.{name}: no route names it: it gets nothing but pages that nobody else has taken"


def list_trusted_proxies_warnings(networks: Sequence[Network]) -> Iterator[str]:
    """Proxies that are trusted and can be anybody; of an edge, a collector and a beacon."""
    for index, network in enumerate(networks):
        if network.prefixlen < NETWORK_BITS_MIN[network.version] and not is_internal_network(network):
            yield (
                f"trusted_proxies.{index}: {network} lets anybody say whose address a request comes from, which limits "
                "and records go by: name the proxies' own addresses"
            )


def _list_listener_warnings(settings: "CollectorSettings") -> Iterator[str]:
    """Where a collector is reached in the clear, and what nobody reaches at all."""
    served: set[str] = set()
    ships = [one for one in settings.listen if "edges" in one.groups]
    certified = [one.resolve_tls(settings.tls) for one in ships]
    for index, listener in enumerate(settings.listen):
        where = f"listen.{index}"
        served |= listener.groups
        tls = listener.resolve_tls(settings.tls)
        if tls is None and listener.is_public and not listener.behind_tls:
            yield (
                f"{where}: {listener.address} may be reached from outside and has no TLS: tokens and sessions can be "
                "read by all on the way: write tls, an internal address, or behind_tls: true where a proxy ends TLS"
            )
        has_pages = settings.pages is not None and listener.groups & (PAGE_GROUPS - {"status"})
        url = listener.url or (settings.pages and settings.pages.url)
        if has_pages and url is None and tls is None and not is_loopback(listener.address.host):
            yield "pages: browsers reach them in the clear, and sessions with them: write url: https://HOST, or tls"
        if settings.pages is None and set(listener.serve or ()) & (PAGE_GROUPS | {"pages"}):
            yield f"{where}.serve: has pages, and there are none: write pages: {{}}"
    if any(tls is not None and tls.client_ca is not None for tls in certified):
        for listener, tls in zip(ships, certified, strict=True):
            if tls is None or tls.client_ca is None:
                yield f"listen: edges ship at {listener.address} without the certificate that others ask them for"
    needless = {"webhooks"} if settings.billing is None or settings.billing.mode == "off" else set()
    needless |= PAGE_GROUPS if settings.pages is None else set()
    for group in sorted(GROUPS - served - needless):
        yield f"listen: no listener serves {group}: write it in the serve of one, if anybody is to reach it"


def _list_connection_warnings(settings: Settings) -> Iterator[str]:
    most = settings.limits.connections_per_ip
    if most is not None and not settings.trusted_proxies:
        yield (
            f"limits.connections_per_ip: {most} holds all clients behind one load balancer or NAT together: name the "
            "load balancer in trusted_proxies, or leave it out"
        )


def _list_peer_warnings(settings: Settings) -> Iterator[str]:
    """Those whom the edge asks, and cannot know."""
    for name, upstream in settings.upstreams.items():
        if not upstream.tls.verify:
            yield f"upstreams.{name}.tls.verify: false trusts whoever answers: write ca: FILE"
    if settings.usage is not None and not settings.usage.tls.verify:
        yield "usage.tls.verify: false trusts whoever answers, who gets the token: write ca: FILE"
    hub = settings.hub
    if not hub.is_shared or is_local_hub(hub.url):
        return
    if not has_password(hub.url):
        yield f"hub: {hub.name} has no password: whoever reaches it can change limits and customers"
        if hub.url.startswith(("redis://", "redis+cluster://")):
            yield f"hub: {hub.name} is not asked over TLS: who is on the way can change limits and customers"
    if not hub.tls.verify:
        yield "hub.tls.verify: false trusts whoever answers, who gets the password: write ca: FILE"


def _list_directory_warnings(settings: Settings) -> Iterator[str]:
    """Whose word counts on who there is, and for how long."""
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


def _list_path_warnings(settings: Settings) -> Iterator[str]:
    """Prefixes that are asked for more than what is around them: services may take other paths for theirs."""
    rejects = set(settings.paths.reject)
    for index, route in enumerate(settings.routes):
        around = next((other for other in settings.routes if _is_looser_route(other, route)), None)
        stem = route.path.removesuffix("/*")
        if around is None or not stem.strip("/"):
            continue
        odd = [] if ";" in rejects else [f"{stem};x"]
        odd += [stem.upper()] if stem.upper() != stem else []
        if odd:
            yield (
                f"routes.{index}.path: {' and '.join(odd)} are not {route.path}, and go by {around.label}, which asks "
                'for less: see to it that the service takes them for other paths too, or write paths: {reject: [";"]}'
            )


def _is_looser_route(other: Route, route: Route) -> bool:
    """Whether what only looks like a path of `route` goes by `other` to the same upstream, and is asked for less."""
    prefix = other.prefix
    covers = prefix is not None and route.path.startswith(prefix) and prefix != route.prefix
    same = other.upstream == route.upstream and other.host in (None, route.host)
    less = _compute_openness(other) > _compute_openness(route) or not route.scopes <= other.scopes
    return covers and same and less


def _compute_openness(route: Route) -> int:
    """How much a route takes: the more, the less it asks for."""
    return {"none": 9, "optional": 8}.get(route.auth, route.auth.count(" or "))


def _list_certificate_warnings(settings: Settings) -> Iterator[str]:
    """Certificates that a route takes, and nobody is asked for."""
    is_requested = any(listener.tls is not None and listener.tls.client_ca is not None for listener in settings.listen)
    for index, route in enumerate(settings.routes):
        if "certificate" in route.auth and not is_requested:
            yield (
                f"routes.{index}.auth: takes certificates, and no listener asks for one: write client_ca: FILE under "
                "its tls"
            )


def _list_cost_warnings(settings: Settings) -> Iterator[str]:
    """Costs that a limit can never hold: all such requests are refused, whenever they come."""
    dear = [(index, route) for index, route in enumerate(settings.routes) if route.cost > 1]
    allowances = [(f"tiers.{name}", name, compute_allowance(tier, None)) for name, tier in settings.tiers.items()]
    for name, customer in settings.customers.items():
        if customer.limits is not None or customer.quotas is not None:
            held = compute_allowance(settings.tiers[customer.tier], customer)
            allowances.append((f"customers.{name}", customer.tier, held))
    for index, route in dear:
        yield from _list_limit_cost_warnings(index, route, f"routes.{index}", route.limits, None)
        for where, tier, allowance in allowances:
            if route.auth != "optional" and (route.auth == "none") != (tier == ANONYMOUS):
                continue
            yield from _list_limit_cost_warnings(index, route, where, allowance.limits, allowance.burst_credits)
            yield from _list_quota_cost_warnings(index, route, where, allowance.quotas, settings)


def _list_limit_cost_warnings(
    index: int, route: Route, where: str, limits: Iterable[Limit], credits: BurstCredits | None
) -> Iterator[str]:
    if credits is not None and credits.max >= route.cost:
        return  # They buy what the limits do not let pass.
    for limit in limits:
        if limit.mode == "enforce" and limit.cost_header is None and route.cost > compute_burst(limit):
            yield (
                f"routes.{index}.cost: {route.cost} is more than {limit.name} of {where} ever lets pass, "
                f"{compute_burst(limit)}: such requests are always refused"
            )


def _list_quota_cost_warnings(
    index: int, route: Route, where: str, quotas: Iterable[Quota], settings: Settings
) -> Iterator[str]:
    for quota in quotas:
        needs = compute_request_amount(settings.meters[quota.meter].count, route.cost)
        if quota.cap == "hard" and needs > quota.included:
            yield (
                f"routes.{index}.cost: {route.cost} is more than the quota {quota.name} of {where} includes, "
                f"{quota.included}: such requests are always refused"
            )


def compute_burst(limit: Limit) -> int:
    """What a limit lets pass at once where nothing is used."""
    if DEFAULT_DEPTHS[limit.algorithm] is None:
        return limit.count
    return min(limit.count, limit.depth) if limit.algorithm == "hybrid" else limit.depth
