"""Checks across the parts of a configuration: names that must exist, and things that may be there only once.

Works on the tree as it is written, so that these problems are found beside all others, and leaves alone whatever
has not the shape that it should have: the models say so.
"""

import os
from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple

from pydantic_core import PydanticCustomError

from edgeproxy.config import parsers, units
from edgeproxy.config.algorithms import BUCKETLESS, BUCKETS, DEFAULT_ALGORITHM
from edgeproxy.config.allowance import ANONYMOUS, COST
from edgeproxy.config.auth import compute_certificate_digest
from edgeproxy.config.dimensions import DIMENSIONS_MAX
from edgeproxy.config.directory import FREE
from edgeproxy.config.directory_settings import A_CACHE_KEY, A_PUBLIC_KEY
from edgeproxy.config.meters import MEASURES, OVER_CAP
from edgeproxy.config.nearest import format_suggestion
from edgeproxy.config.problems import Steps
from edgeproxy.config.rules import CONDITIONS
from edgeproxy.config.tree import Items, Table, Value

LABEL_BYTES_MAX = 100
"""Bytes of a route's label: with the longest names of a customer and a meter it fits a key of the usage table."""

NAMES = (
    ("routes", "upstream", "upstreams"),
    ("routes", "flag", "flags"),
    ("keys", "customer", "customers"),
    ("customers", "tier", "tiers"),
    ("customers", "flags", "flags"),
    ("flags", "tiers", "tiers"),
    ("flags", "customers", "customers"),
)
"""Which field of which members names a member of which section, or several."""

DIRECTORY_NAMES = (("flags", "customers"), ("routes", "flags"), ("customers", "flags"))
"""Of these, who names what the directory may have, and the section where it would be otherwise."""
TRUST_HINT = f"write trust: [{A_PUBLIC_KEY}]"

FALLING = ("last", "average")
"""What a meter may come to that is less later: nobody could be held to it."""
SCOPES = {"tiers": "customer", "customers": "customer", "keys": "key", "routes": "customer_route"}
"""Where there are limits, and the scope that they have by default."""

ADDRESS = "address"
"""What limits count by for those who have no key, whatever is known of others: customer, key or ip."""

SEEN = tuple(name for name, measure in MEASURES.items() if not measure.is_reported)
REPORTED = tuple(name for name, measure in MEASURES.items() if measure.is_reported)
"""What meters count: what the edge sees itself, and what is said in a field."""

METERS = Table({"requests": Table()})
"""What `meters` are where nothing is said of them."""


class Fault(NamedTuple):
    """A problem at a path. `first`: the path of what it collides with, whose place belongs at the end of `what`."""

    path: Steps
    what: str
    hint: str
    first: Steps | None = None


def find_faults(tree: Table) -> Iterator[Fault]:
    """All of them, of a tree whose limits have their names."""
    yield from _find_key_faults(tree)
    yield from _find_route_faults(tree)
    yield from _find_cors_faults(tree)
    yield from _find_answer_faults(tree)
    yield from _find_rule_faults(tree)
    yield from _find_limit_faults(tree)
    yield from _find_meter_faults(tree)
    yield from _find_dimension_faults(tree)
    yield from _find_quota_faults(tree)
    yield from _find_caps_faults(tree)
    yield from _find_region_faults(tree)
    yield from _find_listener_faults(tree)
    yield from _find_admin_faults(tree)
    yield from _find_certificate_faults(tree)
    yield from _find_upstream_faults(tree)
    yield from _find_usage_faults(tree)
    yield from _find_hub_faults(tree)
    yield from _find_directory_faults(tree)
    yield from _find_access_log_faults(tree)
    if tree.get("stamp_signature") == "v2" and not tree.get("stamp_secret"):
        yield Fault(("stamp_signature",), "signs nothing without a secret", "write stamp_secret, too")
    for path, _ in list_members(tree, "flags"):
        if path[-1] == FREE:
            yield Fault(path, "is the flag by which billing frees everybody", "take another name")


def find_unknown_names(tree: Table) -> Iterator[Fault]:
    """Names of customers, tiers, meters, upstreams and flags that are used, and defined nowhere."""
    for path, name, defined in _list_references(tree):
        known = tree.get(defined, METERS if defined == "meters" else Table())
        if isinstance(known, Table) and isinstance(name, str) and name not in known and parsers.NAME.fullmatch(name):
            hint = format_suggestion(name, known, f"define it in {defined}")
            yield Fault(path, f"there is no {defined[:-1]} {name}", hint)


def _list_references(tree: Table) -> Iterator[tuple[Steps, Value, str]]:
    """Each name that stands for something else: its path, itself, and the section where that is defined."""
    for section, field, defined in NAMES:
        if "directory" in tree and (section, defined) in DIRECTORY_NAMES:
            continue  # There are others than those of the files.
        for path, part in list_members(tree, section):
            named = part.get(field)
            if isinstance(named, Items):
                yield from (((*path, field, index), name, defined) for index, name in enumerate(named))
            else:
                yield (*path, field), named, defined
    for path, quota in _list_in_allowances(tree, "quotas"):
        yield (*path, "meter"), quota.get("meter"), "meters"


def list_members(tree: Table, section: str) -> Iterator[tuple[Steps, Table]]:
    """Yield the mappings in a section, a mapping or a list itself, each with its path."""
    value = tree.get(section)
    named_members = value.items() if isinstance(value, Table) else enumerate(value) if isinstance(value, Items) else ()
    for key, member in named_members:
        if isinstance(member, Table):
            yield (section, key), member


def list_tls_sections(tree: Table) -> Iterator[tuple[Steps, Table]]:
    """Yield each `tls` of listeners, upstreams, `usage`, `hub` and a collector as a whole, with its path."""
    single: list[tuple[Steps, Value]] = [((name,), tree.get(name)) for name in ("usage", "hub")]
    for path, owner in (*list_listeners(tree), *list_members(tree, "upstreams"), *single, ((), tree)):
        tls = owner.get("tls") if isinstance(owner, Table) else None
        if isinstance(tls, Table):
            yield (*path, "tls"), tls


def list_tls_pairs(path: Steps, tls: Table) -> Iterator[tuple[Steps, Table]]:
    """Yield what may have a `cert` and a `key` in a `tls`: itself, and the members of its `certificates`."""
    yield path, tls
    certificates = tls.get("certificates")
    for index, pair in enumerate(certificates if isinstance(certificates, Items) else ()):
        if isinstance(pair, Table):
            yield (*path, "certificates", index), pair


class FirstPlaces:
    """Remembers where each thing was first, of those that may be there only once."""

    def __init__(self) -> None:
        self._first: dict[Hashable, Steps] = {}

    def find_earlier(self, thing: Hashable, path: Steps) -> Steps | None:
        """Return where this thing was before; None where it is new."""
        first = self._first.setdefault(thing, path)
        return None if first == path else first


def _find_key_faults(tree: Table) -> Iterator[Fault]:
    """Each key once."""
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


def _find_route_faults(tree: Table) -> Iterator[Fault]:
    """Each name once; each host, path and method once; labels that fit; scopes only where keys are looked at."""
    names, routes = FirstPlaces(), FirstPlaces()
    for path, route in list_members(tree, "routes"):
        name, where = route.get("name"), route.get("path")
        host = route.get("host", "")
        if isinstance(name, str) and (first := names.find_earlier(name, (*path, "name"))):
            yield Fault((*path, "name"), "is defined already at", "give one of them another name", first)
        if isinstance(host, str) and isinstance(where, str):
            for method in _list_methods(route):
                if first := routes.find_earlier((host.lower().removesuffix("."), where, method), path):
                    what = f"takes the {method + ' ' if method else ''}requests of the route at"
                    yield Fault(path, what, "leave one of them out, or give them other methods", first)
                    break
            if name is None and len(host + where) > LABEL_BYTES_MAX:
                what = f"host and path make a label of {len(host + where)} bytes, above {LABEL_BYTES_MAX}"
                yield Fault(path, what, "give the route a name")
        if route.get("auth") == "none" and route.get("scopes"):
            yield Fault((*path, "scopes"), "nobody's key is looked at with auth: none", "leave one of them out")


def _find_cors_faults(tree: Table) -> Iterator[Fault]:
    """Nobody's cookies are for the pages of anybody. A browser asks about a path: its routes say the same."""
    first: dict[Hashable, tuple[Steps, Value]] = {}
    for path, route in list_members(tree, "routes"):
        where = (str(route.get("host", "")).lower(), str(route.get("path")))
        before, earlier_cors = first.setdefault(where, (path, route.get("cors")))
        if earlier_cors != route.get("cors"):
            yield Fault(path, "has another cors than the route of its path at", "write the same in both", before)
    for path, part in (((), tree), *list_members(tree, "routes")):
        cors = part.get("cors")
        origins = cors.get("origins") if isinstance(cors, Table) else None
        if isinstance(cors, Table) and isinstance(origins, Items) and len(origins) > 1 and "*" in origins:
            yield Fault((*path, "cors", "origins"), "* is any origin already", "leave it out, or the others")
        credentials = cors.get("credentials") if isinstance(cors, Table) else None
        if (
            isinstance(origins, Items)
            and "*" in origins
            and isinstance(credentials, str)
            and is_switched_on(credentials)
        ):
            yield Fault((*path, "cors", "credentials"), "would show every page what its visitors may see", NAME_THEM)


def _find_answer_faults(tree: Table) -> Iterator[Fault]:
    """Each route leads somewhere, and to one place; a redirect not back to itself; what is stripped is there."""
    places = [(route.get("host"), route.get("path")) for _, route in list_members(tree, "routes")]
    for path, route in list_members(tree, "routes"):
        own = [name for name in ("redirect", "respond") if name in route]
        redirect = route.get("redirect")
        to = redirect.get("to") if isinstance(redirect, Table) else redirect
        if len(own) > 1:
            yield Fault((*path, "respond"), "cannot be given where there is a redirect", "leave one of them out")
        elif "upstream" in route and (("respond" in route) or (isinstance(to, str) and to != "https")):
            yield Fault((*path, "upstream"), f"is never asked where there is {own[0]}", "leave one of them out")
        elif "upstream" not in route and (not own or to == "https"):
            yield Fault(path, "has no upstream", "write upstream: api")
        where = route.get("path")
        if not isinstance(where, str):
            continue
        if isinstance(to, str) and to.endswith("*") and not where.endswith("/*"):
            yield Fault((*path, "redirect"), "has a * and the route no prefix", "write path: /old/*, or no *")
        again = isinstance(to, str) and where.endswith("/*") and f"{to.partition('?')[0]}/".startswith(where[:-1])
        if isinstance(to, str) and (to == where or (again and (route.get("host"), to) not in places)):
            yield Fault((*path, "redirect"), "leads back to the same route", "lead it elsewhere")
        rewrite = route.get("rewrite")
        strip = rewrite.get("strip") if isinstance(rewrite, Table) else None
        if isinstance(strip, str) and not f"{where.removesuffix('*')}/".startswith(strip.removesuffix("/") + "/"):
            yield Fault((*path, "rewrite", "strip"), f"{where} does not begin with it", "name its first segments")


def _find_rule_faults(tree: Table) -> Iterator[Fault]:
    """Each name once; each rule is about some requests and not all; only limits have a rate."""
    once = FirstPlaces()
    for path, rule in list_members(tree, "rules"):
        name = rule.get("name")
        if isinstance(name, str) and (first := once.find_earlier(name, (*path, "name"))):
            yield Fault((*path, "name"), "is defined already at", "give one of them another name", first)
        if not any(condition in rule for condition in CONDITIONS):
            yield Fault(path, "is about every request", f"write {', '.join(CONDITIONS[:-1])} or {CONDITIONS[-1]}")
        if "contains" in rule and "field" not in rule:
            yield Fault((*path, "contains"), "is of no field", "write field: User-Agent")
        if ("rate" in rule) != (rule.get("action") == "limit"):
            yield Fault(path, "has a rate without action: limit, or that without a rate", "write both or neither")


NAME_THEM = "name the origins instead of *"


def is_switched_on(switch: str) -> bool:
    """Whether a switch as it is written is on."""
    try:
        return units.read_switch(switch)
    except PydanticCustomError:
        return False


def _list_methods(route: Table) -> list[str | None]:
    """Return the methods that a route names; one that names none takes those that others leave."""
    methods = route.get("methods")
    if isinstance(methods, Items):
        return [method for method in methods if isinstance(method, str)]
    return [None]


def _list_in_allowances(tree: Table, field: str) -> Iterator[tuple[Steps, Table]]:
    """Yield the mappings in the lists that tiers and customers have in this field, each with its path."""
    for section in ("tiers", "customers"):
        for path, part in list_members(tree, section):
            yield from _list_mappings((*path, field), part.get(field))


def _list_mappings(path: Steps, members: Value) -> Iterator[tuple[Steps, Table]]:
    """Yield the mappings in a list that is at `path`, each with its own path."""
    for index, member in enumerate(members if isinstance(members, Items) else ()):
        if isinstance(member, Table):
            yield (*path, index), member


def _find_limit_faults(tree: Table) -> Iterator[Fault]:
    """Two limits that are alike in everything but their count and name would be one; only buckets are deep."""
    for section, scope in SCOPES.items():
        for path, part in list_members(tree, section):
            limits, names = FirstPlaces(), FirstPlaces()
            keyless = path == ("tiers", ANONYMOUS) or part.get("auth") == "none"
            for where, limit in _list_mappings((*path, "limits"), part.get("limits")):
                subject = limit.get("scope", scope)
                if keyless and subject in ("customer", "key", "ip"):
                    subject = ADDRESS
                yield from _find_duplicate_limit(where, limit, subject, limits, names)
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
    """Find what a limit that counts by `subject` must not have in common with those before it in its list."""
    name = limit.get("name")
    if isinstance(name, str) and (first := names.find_earlier(name, path)):
        yield Fault(path, f"is called {name} like the one at", "give one of them another name", first)
    kind = [subject, limit.get("algorithm", DEFAULT_ALGORITHM), limit.get("mode", "enforce")]
    try:
        window = units.read_rate(limit.get("rate")).seconds
    except PydanticCustomError:
        return
    if all(isinstance(part, str) for part in kind) and (first := limits.find_earlier((window, *kind), path)):
        what = "has the window, algorithm, scope and mode of the one at"
        if subject == ADDRESS:
            what = "counts by address, with the window, algorithm and mode of the one at"
        yield Fault(path, what, "leave one of them out", first)


def _find_meter_faults(tree: Table) -> Iterator[Fault]:
    """Find meters that lack a field in which upstreams report, need none, or name one of the edge's own; and one with
    the name of what the edge counts by itself."""
    for path, meter in list_members(tree, "meters"):
        what, header = meter.get("count"), meter.get("header")
        if path[-1] == OVER_CAP:
            yield Fault(path, "is what edges count where an answer costs more than caps allow", "give it another name")
        if what in REPORTED and header is None:
            yield Fault(path, "lacks the field in which upstreams report it", "write header: X-Usage-Tokens")
        elif what in SEEN:
            ignored = ("header",) if meter.get("dimensions") else ("header", "pass")
            for name in [name for name in ignored if name in meter]:
                hint = "write count: response_header, or leave it out"
                yield Fault((*path, name), f"is of what upstreams report, not of {what}", hint)
        elif isinstance(header, str) and header.lower() in parsers.OWN_FIELDS:
            hint = "have upstreams report it in a field of its own, such as X-Usage-Tokens"
            yield Fault((*path, "header"), f"{header} is for the edge itself, and is not looked at", hint)


def _find_dimension_faults(tree: Table) -> Iterator[Fault]:
    """Find dimensions that have no value, and aggregates of what edges count."""
    for path, meter in list_members(tree, "meters"):
        is_of_services, when = meter.get("count") == "events", meter.get("when")
        aggregate = meter.get("aggregate", "sum")
        if meter.get("count") == "holdings":
            if aggregate == "unique":
                yield Fault((*path, "aggregate"), "is of events, and places are counted", "write max or average")
        elif not is_of_services and aggregate != "sum":
            yield Fault((*path, "aggregate"), "is of events, and edges add up", "leave it out, or write count: events")
        dimensions = meter.get("dimensions")
        if meter.get("count") == "refusals":
            for name in [name for name in ("when", "dimensions") if name in meter]:
                yield Fault((*path, name), "is not for refusals, which are split by limit and certain", "leave it out")
            continue
        if not isinstance(dimensions, Table):
            continue
        where = (*path, "dimensions")
        if meter.get("count") == "holdings":
            yield Fault(where, "are of usage, and holdings are no usage", "leave it out")
            continue
        if len(dimensions) > DIMENSIONS_MAX:
            yield Fault(where, f"has {len(dimensions)} dimensions", f"write {DIMENSIONS_MAX} at most")
        if when == "admitted":
            yield Fault(
                where, "are known with the answer, and when: admitted counts before it", "leave out one of them"
            )
        for name, dimension in dimensions.items():
            header = dimension.get("header") if isinstance(dimension, Table) else None
            if is_of_services and header is not None:
                yield Fault((*where, name, "header"), "is of what edges count, not of events", "leave it out")
            elif not is_of_services and header is None:
                hint = "write {header: X-Usage-Model, values: 50}"
                yield Fault((*where, name), "lacks the field in which upstreams report it", hint)
            elif isinstance(header, str) and header.lower() in parsers.OWN_FIELDS:
                hint = "have upstreams report it in a field of its own, such as X-Usage-Model"
                yield Fault((*where, name, "header"), f"{header} is for the edge itself, and is not looked at", hint)


def _find_quota_faults(tree: Table) -> Iterator[Fault]:
    """Two quotas of one meter in the same days or months would be one; what exists has no days, all else needs them."""
    once = FirstPlaces()
    counts: dict[object, Value] = {path[-1]: meter.get("count") for path, meter in list_members(tree, "meters")}
    aggregates = {path[-1]: meter.get("aggregate") for path, meter in list_members(tree, "meters")}
    if "meters" not in tree:
        counts = dict.fromkeys(METERS, "requests")
    for path, quota in _list_in_allowances(tree, "quotas"):
        meter = quota.get("meter")
        count = counts.get(meter) if isinstance(meter, str) else None
        for name in [name for name in ("per", "timezone") if name in quota and count == "holdings"]:
            yield Fault((*path, name), f"{meter} counts what exists, at any time", f"leave {name} out")
        if count == "refusals":
            yield Fault((*path, "meter"), f"{meter} counts what was refused", "write a meter of what was served")
        if isinstance(meter, str) and count != "holdings" and aggregates.get(meter) in FALLING:
            what = f"is of {meter}, whose {aggregates[meter]} may fall again"
            yield Fault((*path, "meter"), what, "write a meter that only grows: sum, max or unique")
        if "per" not in quota and count not in (None, "holdings"):
            yield Fault(path, "lacks the time after which it begins anew", "write per: month, or per: day")
        alike = [meter, quota.get("per", ""), quota.get("timezone", "UTC")]
        if all(isinstance(part, str) for part in alike) and (first := once.find_earlier((path[:-1], *alike), path)):
            yield Fault(path, "has the meter, time and time zone of the one at", "leave one of them out", first)


def _find_caps_faults(tree: Table) -> Iterator[Fault]:
    """Caps are of the meter `cost`, and hold customers. A customer by itself is looked at by who knows the meters."""
    if tree.keys() <= {"customers", "keys"}:
        return
    meters = tree.get("meters")
    meter = meters.get(COST) if isinstance(meters, Table) else None
    count = meter.get("count") if isinstance(meter, Table) else None
    for section in ("tiers", "customers"):
        for path, part in list_members(tree, section):
            caps = part.get("caps")
            if not isinstance(caps, Table) or not caps:
                continue
            where = (*path, "caps")
            if path == ("tiers", ANONYMOUS):
                yield Fault(where, "holds customers, and these are none", "leave it out")
            elif (wrong := find_caps_fault(meter is not None, count, "session" in caps)) is not None:
                yield Fault(where, *wrong)


def find_caps_fault(there: bool, count: object, has_session: bool) -> tuple[str, str] | None:
    """What is wrong with caps where the meter `cost` is `there` or not, and counts this, and what to write."""
    hint = "write meters: {cost: {count: response_header, header: X-Cost}}"
    if not there:
        return "is of the meter cost, which is not there", hint
    if has_session and count != "response_header":
        return "has a session, for which upstreams must report in the head what a request cost", hint
    return None


def _find_region_faults(tree: Table) -> Iterator[Fault]:
    """Nobody is served best where they are not served."""
    for path, customer in list_members(tree, "customers"):
        regions = customer.get("regions")
        allow = regions.get("allow") if isinstance(regions, Table) else None
        prefer = regions.get("prefer") if isinstance(regions, Table) else None
        if isinstance(allow, Items) and isinstance(prefer, str) and prefer not in allow:
            where = (*path, "regions", "prefer")
            yield Fault(
                where, f"{units.format_value(prefer)} is not in allow", "name it there too, or prefer one of those"
            )


def _find_listener_faults(tree: Table) -> Iterator[Fault]:
    """Each address once, whoever is to connect there."""
    for path, listener in list_listeners(tree):
        authorize = listener.get("authorize") if isinstance(listener, Table) else None
        if isinstance(authorize, str) and not tree.get("trusted_proxies"):
            hint = "write trusted_proxies: [10.0.0.2], the addresses of the proxies that ask"
            yield Fault((*path, "authorize"), "is for trusted proxies alone, and there are none", hint)
    before: list[tuple[parsers.Address, Steps]] = []
    for path, listener in [*list_listeners(tree), (("admin",), tree.get("admin"))]:
        written = listener.get("address") if isinstance(listener, Table) else listener
        address = parsers.split_address(written) if isinstance(written, str) else None
        if address is None or not address.port:
            continue
        for other, first in before:
            if parsers.do_addresses_overlap(address, other):
                what = f"is {address} like" if other == address else f"is {address}, which overlaps {other} at"
                yield Fault(path, what, "listen at another port", first)
                break
        before.append((address, path))


def _find_admin_faults(tree: Table) -> Iterator[Fault]:
    """Find tokens of the admin listener that are there twice."""
    admin = tree.get("admin")
    if isinstance(admin, Table):
        yield from find_token_faults(_list_mappings(("admin", "tokens"), admin.get("tokens")))


def find_token_faults(tokens: Iterable[tuple[Steps, Table]]) -> Iterator[Fault]:
    """Find secrets and names that several tokens have; `found` are these, each with its path."""
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
    """Yield the listeners for clients, each with its path."""
    listen = tree.get("listen")
    if isinstance(listen, Items):
        return [(("listen", index), member) for index, member in enumerate(listen)]
    return [(("listen",), listen)]


def _find_certificate_faults(tree: Table) -> Iterator[Fault]:
    """Find listeners without a certificate, and certificates without their key."""
    for path, listener in list_listeners(tree):
        tls = listener.get("tls") if isinstance(listener, Table) else None
        if isinstance(tls, Table):
            if "cert" not in tls and "key" not in tls and tls.get("certificates", []) == []:
                yield Fault((*path, "tls"), "has no certificate", "write cert: FILE and key: FILE")
            yield from _find_pair_faults((*path, "tls"), tls)


def _find_pair_faults(path: Steps, tls: Table) -> Iterator[Fault]:
    """A certificate and its private key are of no use without each other."""
    for one, other in (("cert", "key"), ("key", "cert")):
        if one in tls and other not in tls:
            yield Fault((*path, one), f"stands without its {other}", f"write {other}: FILE beside it")


def _read_size(part: Value, field: str, default: int) -> int:
    """The bytes that a field says; `default` where it says nothing that can be read."""
    try:
        return units.read_bytes(part.get(field) if isinstance(part, Table) else None)
    except PydanticCustomError:
        return default


def _find_upstream_faults(tree: Table) -> Iterator[Fault]:
    """Each endpoint of an upstream once, TLS only where it is spoken, and no larger bodies than there is room for."""
    room = _read_size(tree.get("limits"), "buffered", units.BUFFERED_BYTES)
    for path, upstream in list_members(tree, "upstreams"):
        if _read_size(upstream, "buffer", 0) > room:
            hint = "write as much there, or less here"
            yield Fault((*path, "buffer"), f"is more than limits.buffered, {units.format_size(room)}", hint)
        once = FirstPlaces()
        paths: dict[str, Steps] = {}
        plain = True
        endpoints = upstream.get("endpoints")
        for index, endpoint in enumerate(endpoints if isinstance(endpoints, Items) else ()):
            where = (*path, "endpoints", index)
            parts = parsers.read_endpoint(endpoint)
            assert isinstance(parts, dict | Items | None)
            base = parts.get("path", "") if isinstance(parts, dict) else ""
            if isinstance(base, str) and paths.setdefault(base.removesuffix("/"), where) != next(iter(paths.values())):
                hint = "requests are the same wherever they go: write the same path in both"
                yield Fault(where, "has another path than", hint, next(iter(paths.values())))
            try:
                url = parsers.read_origin(parts.get("url") if isinstance(parts, dict) else parts)
            except PydanticCustomError:
                plain = False  # Nobody knows what it was meant to be.
                continue
            plain = plain and url.startswith("http://")
            if first := once.find_earlier(url, where):
                yield Fault(where, f"is {url} like", "leave one of them out, and give the other a weight", first)
        tls = upstream.get("tls")
        if isinstance(tls, Table) and tls:
            yield from _find_outward_tls_faults((*path, "tls"), tls, "http:// endpoints" if plain else None)


def _find_usage_faults(tree: Table) -> Iterator[Fault]:
    """TLS towards the collector, where it is spoken."""
    usage = tree.get("usage")
    tls = usage.get("tls") if isinstance(usage, Table) else None
    if isinstance(usage, Table) and isinstance(tls, Table) and tls:
        url = usage.get("collector")
        plain = isinstance(url, str) and url.lower().startswith("http://")
        yield from _find_outward_tls_faults(("usage", "tls"), tls, "a collector of http://" if plain else None)


def _find_hub_faults(tree: Table) -> Iterator[Fault]:
    """TLS towards the hub, where it is spoken."""
    hub = tree.get("hub")
    tls = hub.get("tls") if isinstance(hub, Table) else None
    if isinstance(hub, Table) and isinstance(tls, Table) and tls:
        url = hub.get("url", parsers.MEMORY)
        scheme = url.lower().partition("://")[0] if isinstance(url, str) else None
        plain = f"a hub of {scheme}://" if scheme in ("memory", "redis", "redis+cluster") else None
        instead = "rediss+cluster://" if scheme == "redis+cluster" else "rediss://"
        yield from _find_outward_tls_faults(("hub", "tls"), tls, plain, instead)


def _find_directory_faults(tree: Table) -> Iterator[Fault]:
    """A hub or a collector to read it from, and who is trusted with it."""
    directory = tree.get("directory")
    if isinstance(directory, Table):
        trusts = directory.get("trust", []) != []
        if directory.get("from") == "collector":
            if "usage" not in tree:
                yield Fault(
                    ("directory",), "has no collector to be read from", "write usage: {collector: URL, token: …}"
                )
            if not trusts:
                yield Fault(("directory",), "names nobody who signs it", TRUST_HINT)
        elif "from" in directory:  # Else it is that of a collector, which publishes.
            hub = tree.get("hub", parsers.MEMORY)
            url = hub.get("url", parsers.MEMORY) if isinstance(hub, Table) else hub
            if isinstance(url, str) and url.lower() == parsers.MEMORY:
                yield Fault(
                    ("directory",), "has no hub to be read from", "write hub: redis://HOST:PORT, which edges share"
                )
            elif not trusts and directory.get("from") == "hub" and _is_remote_hub(url):
                what = "names nobody who signs it: whoever can write to the hub could make keys"
                yield Fault(("directory",), what, TRUST_HINT)
            elif "max_age" in directory and not trusts:
                yield Fault(
                    ("directory", "max_age"),
                    "is the age of a signed time, and nobody is trusted to sign",
                    "write trust",
                )
    key = tree.get("cache_key")
    if isinstance(key, Table) and len(key) != 1:
        yield Fault(("cache_key",), "is not one key", f"write {A_CACHE_KEY}")


def _is_remote_hub(url: Value) -> bool:
    """Whether a hub is not at a loopback address; a URL that cannot be read is reported by itself."""
    try:
        return not parsers.is_local_hub(parsers.read_hub_url(url))
    except ValueError:
        return False


def _find_outward_tls_faults(path: Steps, tls: Table, plain: str | None, scheme: str = "https://") -> Iterator[Fault]:
    """TLS towards others; `plain`: those who do not speak it, where none does. `scheme`: of those who do."""
    if plain is not None:
        yield Fault(path, f"says nothing to {plain}", f"write {scheme} there, or leave it out")
    yield from _find_pair_faults(path, tls)
    verify = tls.get("verify")
    if "ca" in tls and isinstance(verify, str) and verify.lower() in parsers.OFF:
        yield Fault((*path, "verify"), "false leaves ca unread", "leave one of them out")


def _find_access_log_faults(tree: Table) -> Iterator[Fault]:
    """Lines are not added to what has another use."""
    log = tree.get("access_log")
    file = log.get("file") if isinstance(log, Table) else log
    if not isinstance(file, str):
        return
    path: Steps = ("access_log", "file") if isinstance(log, Table) else ("access_log",)
    for other, written in _list_used_files(tree):
        if os.path.normpath(written) == os.path.normpath(file):
            yield Fault(path, f"{file} is named already at", "name another file", other)
            return


def _list_used_files(tree: Table) -> Iterator[tuple[Steps, str]]:
    """Yield the files and directories that have a use, each with the path of the field that names it."""
    parts: list[tuple[Steps, Value]] = [((), tree), (("tables",), tree.get("tables"))]
    for path, tls in list_tls_sections(tree):
        parts += list_tls_pairs(path, tls)
    for path, part in parts:
        for field in ("state", "dir", "cert", "key", "ca", "client_ca"):
            written = part.get(field) if isinstance(part, Table) else None
            if isinstance(written, str):
                yield (*path, field), written
