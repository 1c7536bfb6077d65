"""Checks across the parts that edge.yaml and collector.yaml share: names must exist, and some things must be unique.

They use the parsed tree, so that their problems are reported together with all others. They ignore values of another
shape, which the models report.
"""

from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple

from pydantic_core import PydanticCustomError

from edgeproxy.config import addresses, parsers, units
from edgeproxy.config.algorithms import BUCKETLESS, BUCKETS, DEFAULT_ALGORITHM
from edgeproxy.config.allowance import ANONYMOUS, COST
from edgeproxy.config.certificate_names import compute_certificate_digest
from edgeproxy.config.directory import FREE
from edgeproxy.config.nearest import format_suggestion
from edgeproxy.config.problems import Steps
from edgeproxy.config.selection import matches_pattern
from edgeproxy.config.tree import Items, Table, Value

NAMES = (
    ("routes", "upstream", "upstreams"),
    ("routes", "flag", "flags"),
    ("keys", "customer", "customers"),
    ("customers", "tier", "tiers"),
    ("customers", "flags", "flags"),
    ("flags", "tiers", "tiers"),
    ("flags", "customers", "customers"),
)
"""References: section, field, and the section that defines the name."""
DIRECTORY_NAMES = (("flags", "customers"), ("routes", "flags"), ("customers", "flags"))
"""References that the directory may satisfy, with the section that would otherwise define them."""
FALLING = ("last", "average")
"""Aggregates that may decrease. A quota of them has no period, like one of holdings."""
SCOPES = {"tiers": "customer", "customers": "customer", "keys": "key", "routes": "customer_route"}
"""Sections with limits, and the default scope of each."""
ADDRESS = "address"
"""The subject of limits without a key, for the scopes customer, key and ip alike."""
METERS = Table({"requests": Table()})
"""The default of `meters`."""


class Fault(NamedTuple):
    """A problem at a path. `first`: the path of the conflicting value, whose place is added at the end of `what`."""

    path: Steps
    what: str
    hint: str
    first: Steps | None = None


def find_faults(tree: Table) -> Iterator[Fault]:
    """Find contradictions between the parts that both files share, in a tree whose limits have names."""
    yield from _find_key_faults(tree)
    yield from _find_limit_faults(tree)
    yield from _find_quota_faults(tree)
    yield from _find_caps_faults(tree)
    yield from _find_region_faults(tree)
    yield from _find_listener_faults(tree)
    yield from _find_certificate_faults(tree)
    for path, _ in list_members(tree, "flags"):
        if path[-1] == FREE:
            yield Fault(path, "is the flag by which billing frees everybody", "take another name")


def find_unknown_names(tree: Table) -> Iterator[Fault]:
    """Yield used but undefined names of customers, tiers, meters, upstreams and flags."""
    for path, name, defined in _list_references(tree):
        known = _get_defined(tree, defined)
        if isinstance(known, Table) and isinstance(name, str) and name not in known and parsers.NAME.fullmatch(name):
            hint = format_suggestion(name, known, f"define it in {defined}")
            yield Fault(path, f"there is no {defined[:-1]} {name}", hint)
    yield from _find_unknown_routes(tree)


def _get_defined(tree: Table, section: str) -> Value:
    """Return the section that defines names, a mapping unless it has another fault."""
    return tree.get(section, METERS if section == "meters" else Table())


def _list_references(tree: Table) -> Iterator[tuple[Steps, Value, str]]:
    """Yield each reference: its path, the name, and the section that should define it.

    Defined names of most sections are left out: there may be a hundred thousand keys.
    """
    for section, field, defined in NAMES:
        if ("directory" in tree or "residency" in tree) and (section, defined) in DIRECTORY_NAMES:
            continue  # The directory has more of them than the files.
        known = _get_defined(tree, defined)
        for path, part in list_members(tree, section):
            named = part.get(field)
            if named is None or (isinstance(known, Table) and isinstance(named, str) and named in known):
                continue
            if isinstance(named, Items):
                yield from (((*path, field, index), name, defined) for index, name in enumerate(named))
            else:
                yield (*path, field), named, defined
    for path, route in list_members(tree, "routes"):
        fallback = route.get("fallback")
        if isinstance(fallback, Table):
            yield (*path, "fallback", "upstream"), fallback.get("upstream"), "upstreams"
        else:
            yield (*path, "fallback"), fallback, "upstreams"
    for path, quota in _list_in_allowances(tree, "quotas"):
        yield (*path, "meter"), quota.get("meter"), "meters"
    for path, limit in list_limits(tree):
        if "of" in limit:
            yield (*path, "of"), limit["of"], "meters"


def _find_unknown_routes(tree: Table) -> Iterator[Fault]:
    """Yield routes and scopes that limits or meters name and no route has. Only edges know routes."""
    routes = [route for _, route in list_members(tree, "routes")]
    if not routes:
        return
    labels = [str(route.get("name") or f"{route.get('host') or ''}{route.get('path')}") for route in routes]
    scopes = {scope for route in routes for scope in _list_texts(route.get("scopes"))}
    for path, part in list_selections(tree):
        for index, pattern in enumerate(_list_texts(part.get("routes"))):
            if not any(matches_pattern(pattern, label) for label in labels):
                hint = format_suggestion(pattern, labels, "name a route of this file, as it is called now")
                yield Fault((*path, "routes", index), f"there is no route {pattern}", hint)
        for index, scope in enumerate(_list_texts(part.get("scopes"))):
            if scope not in scopes:
                hint = format_suggestion(scope, scopes, "write it in the scopes of a route")
                yield Fault((*path, "scopes", index), f"no route asks for the scope {scope}", hint)


def _list_texts(value: Value) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, Items) else []


def list_selections(tree: Table) -> Iterator[tuple[Steps, Table]]:
    """Yield the parts that may name routes, each with its path.

    These are limits (except limits of routes), quotas, caps, concurrency and meters.
    """
    yield from ((path, limit) for path, limit in list_limits(tree) if path[0] != "routes")
    yield from _list_in_allowances(tree, "quotas")
    for section in ("tiers", "customers"):
        for path, part in list_structured(tree, section):
            for field in ("caps", "concurrency"):
                if isinstance(value := part.get(field), Table):
                    yield (*path, field), value
    yield from list_members(tree, "meters")


def list_members(tree: Table, section: str) -> Iterator[tuple[Steps, Table]]:
    """Yield the mappings in a section, which is a mapping or a list, each with its path."""
    value = tree.get(section)
    named_members = value.items() if isinstance(value, Table) else enumerate(value) if isinstance(value, Items) else ()
    for key, member in named_members:
        if isinstance(member, Table):
            yield (section, key), member


def list_structured(tree: Table, section: str) -> Iterator[tuple[Steps, Table]]:
    """Yield the mappings in a section that may have lists and mappings in them, each with its path."""
    value = tree.get(section)
    named_members = value.items() if isinstance(value, Table) else enumerate(value) if isinstance(value, Items) else ()
    return iter([((section, key), member) for key, member in named_members if type(member) is Table])


def list_tls_sections(tree: Table) -> Iterator[tuple[Steps, Table]]:
    """Yield each `tls` mapping with its path.

    It may be in listeners, upstreams, `usage` (also of each residency), `hub`, `tracing` and the collector's top level.
    """
    single: list[tuple[Steps, Value]] = [((name,), tree.get(name)) for name in ("usage", "hub", "tracing")]
    single += [((*path, "usage"), residency.get("usage")) for path, residency in list_members(tree, "residency")]
    for path, owner in (*list_listeners(tree), *list_members(tree, "upstreams"), *single, ((), tree)):
        tls = owner.get("tls") if isinstance(owner, Table) else None
        if isinstance(tls, Table):
            yield (*path, "tls"), tls


def list_tls_pairs(path: Steps, tls: Table) -> Iterator[tuple[Steps, Table]]:
    """Yield the mappings that may have a `cert` and a `key`: a `tls` itself, and the members of its `certificates`."""
    yield path, tls
    certificates = tls.get("certificates")
    for index, pair in enumerate(certificates if isinstance(certificates, Items) else ()):
        if isinstance(pair, Table):
            yield (*path, "certificates", index), pair


def list_limits(tree: Table) -> Iterator[tuple[Steps, Table]]:
    """Yield the limits of all sections, each with its path."""
    for section in SCOPES:
        for path, part in list_structured(tree, section):
            if "limits" in part:  # Most customers have none of their own.
                yield from list_mappings((*path, "limits"), part["limits"])


class FirstPlaces:
    """Remembers the first place of each thing that must be unique."""

    def __init__(self) -> None:
        self._first: dict[Hashable, Steps] = {}

    def find_earlier(self, thing: Hashable, path: Steps) -> Steps | None:
        """Return the earlier place of this thing. None: it is new."""
        first = self._first.setdefault(thing, path)
        return None if first == path else first


def _find_key_faults(tree: Table) -> Iterator[Fault]:
    """Find keys that exist twice or have two forms."""
    if _are_digests_unique(tree.get("keys")):
        return
    once = FirstPlaces()
    for path, key in list_members(tree, "keys"):
        name = key.get("certificate")
        if isinstance(name, str):
            if "sha256" in key:
                hint = "leave one of them out"
                yield Fault((*path, "certificate"), "stands beside sha256: it is one or the other", hint)
            elif first := once.find_earlier(compute_certificate_digest(name).hex(), (*path, "certificate")):
                what = "is the certificate that is defined already at"
                yield Fault((*path, "certificate"), what, "leave one of them out", first)
            continue
        digest = key.get("sha256")
        if isinstance(digest, str) and (first := once.find_earlier(digest.lower(), (*path, "sha256"))):
            yield Fault((*path, "sha256"), "is the key that is defined already at", "leave one of them out", first)


def _are_digests_unique(keys: Value) -> bool:
    """Return True if all keys have different digests and no other form. It takes a tenth of the time to find faults."""
    if not isinstance(keys, Items):
        return False
    digests = {
        digest.lower()
        for key in keys
        if isinstance(key, Table) and isinstance(digest := key.get("sha256"), str) and "certificate" not in key
    }
    return len(digests) == len(keys)


def is_switched_on(switch: str) -> bool:
    """Return whether the written value of a switch is on."""
    try:
        return units.read_switch(switch)
    except PydanticCustomError:
        return False


def _list_in_allowances(tree: Table, field: str) -> Iterator[tuple[Steps, Table]]:
    """Yield the mappings in this list of each tier and customer, each with its path."""
    for section in ("tiers", "customers"):
        for path, part in list_structured(tree, section):
            if field in part:
                yield from list_mappings((*path, field), part[field])


def list_mappings(path: Steps, members: Value) -> Iterator[tuple[Steps, Table]]:
    """Yield the mappings in the list at `path`, each with its own path."""
    for index, member in enumerate(members if isinstance(members, Items) else ()):
        if isinstance(member, Table):
            yield (*path, index), member


def _find_limit_faults(tree: Table) -> Iterator[Fault]:
    """Find limits that differ only in count and name, and a `burst` of algorithms without a bucket."""
    for section, scope in SCOPES.items():
        for path, part in list_structured(tree, section):
            if "limits" not in part:
                continue
            limits, names = FirstPlaces(), FirstPlaces()
            auth = part.get("auth")
            keyless = path == ("tiers", ANONYMOUS) or auth == "none" or isinstance(auth, Table)
            for where, limit in list_mappings((*path, "limits"), part["limits"]):
                subject = limit.get("scope", scope)
                per = limit.get("per")
                if keyless and subject in ("customer", "key", "ip"):
                    subject = ADDRESS
                if isinstance(per, str | Table) and isinstance(subject, str):
                    subject = f"{subject} and {per if isinstance(per, str) else sorted(per.items())}"
                yield from _find_duplicate_limit(where, limit, subject, limits, names)
                for name in [name for name in ("routes", "scopes") if name in limit and section == "routes"]:
                    yield Fault(
                        (*where, name), "is of limits of tiers and customers", "leave it out: it is of its route"
                    )
                algorithm = limit.get("algorithm", DEFAULT_ALGORITHM)
                if "burst" in limit and algorithm in BUCKETLESS:
                    what = f"is the depth of a bucket, which a {algorithm} has not"
                    hint = f"write algorithm: {' or '.join(BUCKETS)}, or leave it out"
                    yield Fault((*where, "burst"), what, hint)
                if limit.get("sync") == "strict" and "cost_header" in limit:
                    what = "cannot be kept where costs are known only afterwards"
                    yield Fault((*where, "sync"), what, "leave it out, or leave out cost_header")


def _find_duplicate_limit(
    path: Steps, limit: Table, subject: Value, limits: FirstPlaces, names: FirstPlaces
) -> Iterator[Fault]:
    """Find properties that a limit which counts by `subject` must not share with earlier ones in its list."""
    name = limit.get("name")
    if isinstance(name, str) and (first := names.find_earlier(name, path)):
        yield Fault(path, f"is called {name} like the one at", "give one of them another name", first)
    kind = [subject, limit.get("algorithm", DEFAULT_ALGORITHM), limit.get("mode", "enforce"), limit.get("of", "")]
    kind += [" ".join(sorted(_list_texts(limit.get(field)))) for field in ("routes", "scopes")]
    try:
        window = units.read_rate(limit.get("rate")).seconds
    except PydanticCustomError:
        return
    if all(isinstance(part, str) for part in kind) and (first := limits.find_earlier((window, *kind), path)):
        what = "has the window, algorithm, scope and mode of the one at"
        if subject == ADDRESS:
            what = "counts by address, with the window, algorithm and mode of the one at"
        yield Fault(path, what, "leave one of them out", first)


def _find_quota_faults(tree: Table) -> Iterator[Fault]:
    """Find duplicate quotas, and periods that are missing or that quotas of existing things must not have."""
    once = FirstPlaces()
    counts: dict[object, Value] = {path[-1]: meter.get("count") for path, meter in list_members(tree, "meters")}
    aggregates = {path[-1]: meter.get("aggregate") for path, meter in list_members(tree, "meters")}
    if "meters" not in tree:
        counts = dict.fromkeys(METERS, "requests")
    for path, quota in _list_in_allowances(tree, "quotas"):
        meter = quota.get("meter")
        count = counts.get(meter) if isinstance(meter, str) else None
        is_level = count == "holdings" or (isinstance(meter, str) and aggregates.get(meter) in FALLING)
        for name in [name for name in ("per", "timezone") if name in quota and is_level]:
            yield Fault((*path, name), f"{meter} counts what exists, at any time", f"leave {name} out")
        if count == "refusals":
            yield Fault((*path, "meter"), f"{meter} counts what was refused", "write a meter of what was served")
        if "per" not in quota and count is not None and not is_level:
            yield Fault(path, "lacks the time after which it begins anew", "write per: month, or per: day")
        alike = [meter, quota.get("per", ""), quota.get("timezone", "UTC")]
        if all(isinstance(part, str) for part in alike) and (first := once.find_earlier((path[:-1], *alike), path)):
            yield Fault(path, "has the meter, time and time zone of the one at", "leave one of them out", first)


def _find_caps_faults(tree: Table) -> Iterator[Fault]:
    """Find caps without the meter `cost`. The caller must check separate customers, because it knows the meters."""
    if tree.keys() <= {"customers", "keys"}:
        return
    meters = tree.get("meters")
    meter = meters.get(COST) if isinstance(meters, Table) else None
    count = meter.get("count") if isinstance(meter, Table) else None
    for section in ("tiers", "customers"):
        for path, part in list_structured(tree, section):
            caps = part.get("caps")
            if not isinstance(caps, Table) or not caps:
                continue
            where = (*path, "caps")
            if path == ("tiers", ANONYMOUS):
                yield Fault(where, "holds customers, and these are none", "leave it out")
            elif (wrong := find_caps_fault(meter is not None, count, "session" in caps)) is not None:
                yield Fault(where, *wrong)


def find_caps_fault(there: bool, count: object, has_session: bool) -> tuple[str, str] | None:
    """Return the fault of caps and a hint. `there`: the meter `cost` exists, with this `count`."""
    hint = "write meters: {cost: {count: response_header, header: X-Cost}}"
    if not there:
        return "is of the meter cost, which is not there", hint
    if has_session and count != "response_header":
        return "has a session, for which upstreams must report in the head what a request cost", hint
    return None


def _find_region_faults(tree: Table) -> Iterator[Fault]:
    """Find customers whose preferred region does not serve them."""
    for path, customer in list_structured(tree, "customers"):
        regions = customer.get("regions")
        allow = regions.get("allow") if isinstance(regions, Table) else None
        prefer = regions.get("prefer") if isinstance(regions, Table) else None
        if isinstance(allow, Items) and isinstance(prefer, str) and prefer not in allow:
            where = (*path, "regions", "prefer")
            yield Fault(
                where, f"{units.format_value(prefer)} is not in allow", "name it there too, or prefer one of those"
            )


def _find_listener_faults(tree: Table) -> Iterator[Fault]:
    """Find addresses that are used twice, by any listeners."""
    for path, listener in list_listeners(tree):
        authorize = listener.get("authorize") if isinstance(listener, Table) else None
        if isinstance(authorize, str) and not tree.get("trusted_proxies"):
            hint = "write trusted_proxies: [10.0.0.2], the addresses of the proxies that ask"
            yield Fault((*path, "authorize"), "is for trusted proxies alone, and there are none", hint)
        is_proxied = listener.get("proxy_protocol") if isinstance(listener, Table) else None
        if is_proxied not in (None, "false", "no", "off") and not tree.get("trusted_proxies"):
            hint = "write trusted_proxies: [10.0.0.2], the addresses of the proxies that send the header"
            yield Fault((*path, "proxy_protocol"), "is for trusted proxies alone, and there are none", hint)
        http2 = listener.get("http2") if isinstance(listener, Table) else None
        if isinstance(authorize, str) and http2 not in (None, "false", "no", "off"):
            yield Fault(
                (*path, "http2"), "is not spoken where proxies ask", "leave it out here: they ask over HTTP/1.1"
            )
    before: list[tuple[addresses.Address, Steps]] = []
    for path, listener in [*list_listeners(tree), (("admin",), tree.get("admin"))]:
        written = listener.get("address") if isinstance(listener, Table) else listener
        address = addresses.split_address(written) if isinstance(written, str) else None
        if address is None or not address.port:
            continue
        for other, first in before:
            if addresses.do_addresses_overlap(address, other):
                what = f"is {address} like" if other == address else f"is {address}, which overlaps {other} at"
                yield Fault(path, what, "listen at another port", first)
                break
        before.append((address, path))


def find_token_faults(tokens: Iterable[tuple[Steps, Table]]) -> Iterator[Fault]:
    """Find secrets and names that several tokens have. `tokens` are these, each with its path."""
    digests, names = FirstPlaces(), FirstPlaces()
    for path, token in tokens:
        given, name = token.get("sha256"), token.get("name")
        for digest in given if isinstance(given, list) else [given]:
            if isinstance(digest, str) and (first := digests.find_earlier(digest.lower(), (*path, "sha256"))):
                yield Fault(
                    (*path, "sha256"), "is the token that is defined already at", "leave one of them out", first
                )
        if isinstance(name, str) and (first := names.find_earlier(name, (*path, "name"))):
            yield Fault((*path, "name"), "is the name of the token at", "name each token once", first)


def list_listeners(tree: Table) -> list[tuple[Steps, Value]]:
    """Return the listeners for clients, each with its path."""
    listen = tree.get("listen")
    if isinstance(listen, Items):
        return [(("listen", index), member) for index, member in enumerate(listen)]
    return [(("listen",), listen)]


def _find_certificate_faults(tree: Table) -> Iterator[Fault]:
    """Find listeners without a certificate, and certificates without their key."""
    for path, listener in list_listeners(tree):
        tls = listener.get("tls") if isinstance(listener, Table) else None
        if isinstance(tls, Table):
            if not tls.keys() & {"cert", "key", "acme"} and tls.get("certificates", []) == []:
                yield Fault((*path, "tls"), "has no certificate", "write cert: FILE and key: FILE")
            yield from find_pair_faults((*path, "tls"), tls)


def find_pair_faults(path: Steps, tls: Table) -> Iterator[Fault]:
    """Find a certificate without its private key, or a key without its certificate."""
    for one, other in (("cert", "key"), ("key", "cert")):
        if one in tls and other not in tls:
            yield Fault((*path, one), f"stands without its {other}", f"write {other}: FILE beside it")


def find_outward_tls_faults(path: Steps, tls: Table, plain: str | None, scheme: str = "https://") -> Iterator[Fault]:
    """Find faults of TLS for outgoing connections.

    `plain`: the peer that is connected without TLS, if any. `scheme`: the scheme with TLS.
    """
    if plain is not None:
        yield Fault(path, f"says nothing to {plain}", f"write {scheme} there, or leave it out")
    yield from find_pair_faults(path, tls)
    verify = tls.get("verify")
    if "ca" in tls and isinstance(verify, str) and verify.lower() in parsers.OFF:
        yield Fault((*path, "verify"), "false leaves ca unread", "leave one of them out")
