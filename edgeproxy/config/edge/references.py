"""Checks across the parts of an edge.yaml. Those shared with collector.yaml are in config/references.py."""

import os
from collections.abc import Hashable, Iterator

from pydantic_core import PydanticCustomError

from edgeproxy.config import (
    addresses,
    error_templates,
    hub_settings,
    meter_faults,
    parsers,
    references,
    tracing_faults,
    units,
)
from edgeproxy.config.edge import balancing_faults, path_rewrite_faults, readers, residency_faults
from edgeproxy.config.edge.directory_settings import A_CACHE_KEY, A_PUBLIC_KEY
from edgeproxy.config.edge.rules import CONDITIONS
from edgeproxy.config.htpasswd import list_basic_sections
from edgeproxy.config.problems import Steps
from edgeproxy.config.references import (
    Fault,
    FirstPlaces,
    find_outward_tls_faults,
    find_token_faults,
    is_switched_on,
    list_listeners,
    list_mappings,
    list_members,
    list_tls_pairs,
    list_tls_sections,
)
from edgeproxy.config.tracing_faults import is_installed
from edgeproxy.config.tree import Items, Table, Value

LABEL_BYTES_MAX = 100
"""Maximum bytes of a route's label. With the longest customer and meter names it fits a key of the usage table."""
HTTP2_SCHEMES = {"h2": "https", "h2c": "http"}
"""The scheme of an upstream's endpoints for the protocols with HTTP/2."""
TRUST_HINT = f"write trust: [{A_PUBLIC_KEY}]"


def find_faults(tree: Table) -> Iterator[Fault]:
    """Find contradictions between the parts of an edge.yaml, in a tree whose limits have names."""
    yield from references.find_faults(tree)
    yield from meter_faults.find_faults(tree)
    yield from tracing_faults.find_faults(tree)
    yield from _find_route_faults(tree)
    yield from _find_cors_faults(tree)
    yield from error_templates.find_faults(tree)
    yield from balancing_faults.find_faults(tree)
    yield from _find_basic_faults(tree)
    yield from _find_answer_faults(tree)
    yield from path_rewrite_faults.find_faults(tree)
    yield from _find_fallback_faults(tree)
    yield from _find_response_usage_faults(tree)
    yield from _find_rule_faults(tree)
    yield from _find_issuer_faults(tree)
    yield from _find_admin_faults(tree)
    yield from _find_upstream_faults(tree)
    yield from _find_usage_faults(tree)
    yield from _find_hub_faults(tree)
    yield from _find_directory_faults(tree)
    yield from residency_faults.find_faults(tree)
    yield from _find_access_log_faults(tree)
    yield from _find_acme_faults(tree)
    if tree.get("stamp_signature") == "v2" and not tree.get("stamp_secret"):
        yield Fault(("stamp_signature",), "signs nothing without a secret", "write stamp_secret, too")


def _find_route_faults(tree: Table) -> Iterator[Fault]:
    """Find duplicate names, paths and methods of routes, too long labels, and scopes without keys."""
    names, routes = FirstPlaces(), FirstPlaces()
    http2 = [path[-1] for path, each in list_members(tree, "upstreams") if str(each.get("protocol")) in HTTP2_SCHEMES]
    auth = tree.get("auth")
    is_basic = isinstance(auth, dict) and is_switched_on(str(auth.get("basic", "off")))
    for path, route in list_members(tree, "routes"):
        name, where = route.get("name"), route.get("path")
        host = route.get("host", "")
        if isinstance(name, str) and (first := names.find_earlier(name, (*path, "name"))):
            yield Fault((*path, "name"), "is defined already at", "give one of them another name", first)
        if isinstance(host, str) and isinstance(where, str):
            conditions = _normalize_conditions(route)
            for method in _list_methods(route):
                if first := routes.find_earlier((host.lower().removesuffix("."), where, method, conditions), path):
                    what = f"takes the {method + ' ' if method else ''}requests of the route at"
                    yield Fault(
                        path, what, "leave one of them out, or give them other methods, headers or query", first
                    )
                    break
            if name is None and len(host + where) > LABEL_BYTES_MAX:
                what = f"host and path make a label of {len(host + where)} bytes, above {LABEL_BYTES_MAX}"
                yield Fault(path, what, "give the route a name")
        if route.get("upgrade") and route.get("upstream") in http2:
            what = "leads to an upstream that speaks HTTP/2, where nothing is switched"
            yield Fault((*path, "upgrade"), what, "leave it out, or give the route another upstream")
        mode = "basic" if isinstance(route.get("auth"), Table) else route.get("auth")
        if mode in ("none", "basic") and route.get("scopes"):
            yield Fault((*path, "scopes"), f"nobody's key is looked at with auth: {mode}", "leave one of them out")
        yield from _find_condition_faults(path, route, auth)
        if route.get("challenge") == "basic" and not is_basic:
            yield Fault((*path, "challenge"), "asks for what the edge does not read", "write auth: {basic: on}, too")


def _normalize_conditions(route: Table) -> Hashable:
    """Return the conditions of a route about fields and the query, in a form that can be compared."""
    parts = []
    for name in ("headers", "query"):
        part = route.get(name)
        for each, value in part.items() if isinstance(part, Table) else ():
            values = value if isinstance(value, Items) else (value,)
            parts.append((name, each.lower() if name == "headers" else each, frozenset(map(str, values))))
    return frozenset(parts)


def _find_condition_faults(path: Steps, route: Table, auth: Value) -> Iterator[Fault]:
    """Find conditions about the places of keys, and fields that are written twice."""
    own = auth if isinstance(auth, Table) else {}
    fields = own.get("fields", ("X-API-Key", "Authorization"))
    keys = {str(field).lower() for field in (fields if isinstance(fields, Items | tuple) else (fields,))}
    names = FirstPlaces()
    headers = route.get("headers")
    for name in headers if isinstance(headers, Table) else ():
        where = (*path, "headers", name)
        if name.lower() in keys:
            yield Fault(where, "may hold a key, and no route sees it", "match another field, or change auth.fields")
        if first := names.find_earlier(name.lower(), where):
            yield Fault(where, "is the field that is written already at", "leave one of them out", first)
    query = route.get("query")
    if isinstance(query, Table) and isinstance(own.get("query"), str) and own.get("query") in query:
        where = (*path, "query", str(own.get("query")))
        yield Fault(where, "may hold a key, and no route sees it", "match another parameter, or change auth.query")


def _find_cors_faults(tree: Table) -> Iterator[Fault]:
    """Find cookies for any origin, and routes of one path with different `cors`, as browsers ask by path."""
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


def _find_basic_faults(tree: Table) -> Iterator[Fault]:
    """Find users with passwords that cannot be checked, or on routes that the edge answers before it asks for one."""
    routes: dict[Steps, Table] = dict(list_members(tree, "routes"))
    for path, _ in list_basic_sections(tree):
        if not is_installed("bcrypt"):
            yield Fault(path, "needs packages that are not installed", "pip install 'edgeproxy[basic]'")
        route = routes[path[:-1]]
        redirect = route.get("redirect")
        to = redirect.get("to") if isinstance(redirect, Table) else redirect
        if "respond" in route or to not in (None, "https"):
            yield Fault(path, "guards nothing where the edge itself answers", "leave it out, or write an upstream")


def _find_answer_faults(tree: Table) -> Iterator[Fault]:
    """Find routes that lead nowhere, to two places or back to themselves, and `strip` prefixes they do not have."""
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
        for steps, part in ((path, route), ((*path, "fallback"), route.get("fallback"))):
            rewrite = part.get("rewrite") if isinstance(part, Table) else None
            strip = rewrite.get("strip") if isinstance(rewrite, Table) else None
            if isinstance(strip, str) and "/*" in strip:
                yield Fault((*steps, "rewrite", "strip"), "has a wildcard", "name the segments before it, or none")
            elif isinstance(strip, str) and not f"{where.removesuffix('*')}/".startswith(strip.removesuffix("/") + "/"):
                yield Fault((*steps, "rewrite", "strip"), f"{where} does not begin with it", "name its first segments")


def _find_fallback_faults(tree: Table) -> Iterator[Fault]:
    """Find fallbacks without an upstream to replace or to the route's own upstream, and their rewrites of answers."""
    room = _read_size(tree.get("limits"), "buffered", units.BUFFERED_BYTES)
    for path, route in list_members(tree, "routes"):
        fallback = route.get("fallback")
        if fallback is None:
            continue
        where = (*path, "fallback")
        if "upstream" not in route:
            yield Fault(where, "is for where an upstream fails, and the route has none", "leave it out")
        name = fallback.get("upstream") if isinstance(fallback, Table) else fallback
        if isinstance(fallback, Table):
            yield from _find_buffer_faults(where, fallback, room)
            rewrite = fallback.get("rewrite")
            if isinstance(rewrite, Table) and "response" in rewrite:
                hint = "write it in the rewrite of the route, whose answers both give"
                yield Fault((*where, "rewrite", "response"), "cannot be said of one upstream alone", hint)
        if name is not None and name == route.get("upstream"):
            yield Fault(where, f"leads to {name}, which has failed then", "name another upstream")


def _find_response_usage_faults(tree: Table) -> Iterator[Fault]:
    """Find `response_usage` without a meter or an upstream, or together with compression."""
    is_counted = any(meter.get("count") in meter_faults.STATED for _, meter in list_members(tree, "meters"))
    for path, route in list_members(tree, "routes"):
        if "response_usage" not in route:
            continue
        where = (*path, "response_usage")
        if not is_counted:
            yield Fault(where, "is read, and no meter counts it", "define a meter with count: output_tokens, for one")
        if "upstream" not in route:
            yield Fault(where, "is of what upstreams answer, and the route has none", "leave it out")
        if route.get("compress") not in (None, *parsers.OFF):
            yield Fault((*path, "compress"), "cannot stand beside response_usage", "leave one of them out")
        usage = route["response_usage"]
        if not isinstance(usage, Table) or usage.get("ask_for_usage") in (None, *parsers.OFF):
            continue
        where = (*where, "ask_for_usage")
        if usage.get("format") not in ("openai", "any"):
            yield Fault(where, f"is of OpenAI's streams, not of {usage.get('format')}", "leave it out")
        if tree.get("stamp_signature") == "v2":
            yield Fault(where, "changes bodies, which stamp_signature: v2 signs as they came", "leave out one of them")


def _find_rule_faults(tree: Table) -> Iterator[Fault]:
    """Find duplicate names of rules, rules about every request, and rates in rules that do not limit."""
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


def _list_methods(route: Table) -> list[str | None]:
    """Return the methods that a route names. A route without names gets all remaining methods."""
    methods = route.get("methods")
    if isinstance(methods, Items):
        return [method for method in methods if isinstance(method, str)]
    return [None]


def _find_issuer_faults(tree: Table) -> Iterator[Fault]:
    """Find several entries for one issuer: only one would count, with its keys and audiences."""
    once = FirstPlaces()
    for path, issuer in list_members(tree, "issuers"):
        name = issuer.get("issuer")
        if isinstance(name, str) and (first := once.find_earlier(name, (*path, "issuer"))):
            yield Fault((*path, "issuer"), "is the issuer that is defined already at", "leave one of them out", first)


def _find_admin_faults(tree: Table) -> Iterator[Fault]:
    """Find duplicate tokens of the admin listener."""
    admin = tree.get("admin")
    if isinstance(admin, Table):
        yield from find_token_faults(list_mappings(("admin", "tokens"), admin.get("tokens")))


def _read_size(part: Value, field: str, default: int) -> int:
    """Return the bytes in a field, or `default` if it has no readable value."""
    try:
        return units.read_bytes(part.get(field) if isinstance(part, Table) else None)
    except PydanticCustomError:
        return default


def _find_buffer_faults(path: Steps, part: Table, room: int) -> Iterator[Fault]:
    """Find body limits that exceed the available space."""
    if _read_size(part, "buffer", 0) > room:
        hint = "write as much there, or less here"
        yield Fault((*path, "buffer"), f"is more than limits.buffered, {units.format_size(room)}", hint)


def _find_protocol_faults(path: Steps, upstream: Table) -> Iterator[Fault]:
    """Find endpoints whose scheme does not fit the protocol, and probes with another one."""
    protocol = upstream.get("protocol")
    scheme = HTTP2_SCHEMES.get(str(protocol))
    health = upstream.get("health")
    if isinstance(health, Table):
        if scheme is None and health.get("grpc") is not None:
            yield Fault(
                (*path, "health", "grpc"), "is asked over HTTP/2", "write protocol: h2c at the upstream, or path"
            )
        elif scheme is None and health.get("path") is None:
            yield Fault((*path, "health"), "has no path", "write path: /healthz")
        elif scheme is not None and health.get("path") is not None:
            what = f"is asked over HTTP/1.1, and the service speaks {protocol}"
            yield Fault((*path, "health", "path"), what, "write grpc with the name of a service")
        elif scheme is not None and health.get("grpc") is None:
            yield Fault((*path, "health"), "has no grpc", 'write grpc with the name of a service, or ""')
    if scheme is None:
        return
    if upstream.get("proxy_protocol") is not None:
        what = f"is of one client, and connections of {protocol} carry requests of many"
        yield Fault((*path, "proxy_protocol"), what, "leave it out: X-Forwarded-For has the address")
    endpoints = upstream.get("endpoints")
    for index, endpoint in enumerate(endpoints if isinstance(endpoints, Items) else ()):
        parts = readers.read_endpoint(endpoint)
        url = parts.get("url") if isinstance(parts, dict) else None
        if isinstance(url, str) and not url.startswith(f"{scheme}://"):
            what = f"is not {scheme}://, as {protocol} is spoken {'over' if scheme == 'https' else 'without'} TLS"
            yield Fault((*path, "endpoints", index), what, "write the other protocol, h2 or h2c")


def _find_upstream_faults(tree: Table) -> Iterator[Fault]:
    """Find duplicate endpoints, TLS settings without TLS, and body limits that exceed the available space."""
    room = _read_size(tree.get("limits"), "buffered", units.BUFFERED_BYTES)
    for path, upstream in list_members(tree, "upstreams"):
        yield from _find_buffer_faults(path, upstream, room)
        yield from _find_protocol_faults(path, upstream)
        once = FirstPlaces()
        paths: dict[str, Steps] = {}
        plain = True
        endpoints = upstream.get("endpoints")
        for index, endpoint in enumerate(endpoints if isinstance(endpoints, Items) else ()):
            where = (*path, "endpoints", index)
            parts = readers.read_endpoint(endpoint)
            assert isinstance(parts, dict | Items | None)
            base = parts.get("path", "") if isinstance(parts, dict) else ""
            if isinstance(base, str) and paths.setdefault(base.removesuffix("/"), where) != next(iter(paths.values())):
                hint = "requests are the same wherever they go: write the same path in both"
                yield Fault(where, "has another path than", hint, next(iter(paths.values())))
            try:
                url = addresses.read_origin(parts.get("url") if isinstance(parts, dict) else parts)
            except PydanticCustomError:
                plain = False  # The intended protocol is unknown.
                continue
            plain = plain and url.startswith("http://")
            if first := once.find_earlier(url, where):
                yield Fault(where, f"is {url} like", "leave one of them out, and give the other a weight", first)
        tls = upstream.get("tls")
        if isinstance(tls, Table) and tls:
            yield from find_outward_tls_faults((*path, "tls"), tls, "http:// endpoints" if plain else None)


def _find_usage_faults(tree: Table) -> Iterator[Fault]:
    """Find TLS settings for a collector without TLS."""
    usage = tree.get("usage")
    tls = usage.get("tls") if isinstance(usage, Table) else None
    if isinstance(usage, Table) and isinstance(tls, Table) and tls:
        url = usage.get("collector")
        plain = isinstance(url, str) and url.lower().startswith("http://")
        yield from find_outward_tls_faults(("usage", "tls"), tls, "a collector of http://" if plain else None)


def _find_hub_faults(tree: Table) -> Iterator[Fault]:
    """Find TLS settings for a hub without TLS."""
    hub = tree.get("hub")
    if isinstance(hub, Table) and ("service" in hub) != ("sentinel" in hub) and "url" not in hub:
        yield Fault(("hub",), "has one of sentinel and service", "write both, or sentinel and url: redis://SERVICE")
    elif isinstance(hub, Table) and "service" in hub and ("sentinel" not in hub or "url" in hub):
        yield Fault(("hub", "service"), "is named in url", "write service, or url: redis://USER:PASSWORD@SERVICE")
    tls = hub.get("tls") if isinstance(hub, Table) else None
    if isinstance(hub, Table) and isinstance(tls, Table) and tls:
        url = hub.get("url", "redis://" if "sentinel" in hub else hub_settings.MEMORY)
        scheme = url.lower().partition("://")[0] if isinstance(url, str) else None
        plain = f"a hub of {scheme}://" if scheme in ("memory", "redis", "redis+cluster", "redis+sentinel") else None
        instead = f"{scheme}://".replace("redis", "rediss", 1) if plain and scheme != "memory" else "rediss://"
        yield from find_outward_tls_faults(("hub", "tls"), tls, plain, instead)


def _find_directory_faults(tree: Table) -> Iterator[Fault]:
    """Find a directory without a source (hub or collector), or without a trusted signer."""
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
        elif "from" in directory:  # Otherwise it is in a collector.yaml, and is published.
            hub = hub_settings.read_hub(tree.get("hub", hub_settings.MEMORY))
            url = hub.get("url", hub_settings.MEMORY) if isinstance(hub, dict) else hub
            if isinstance(url, str) and url.lower() == hub_settings.MEMORY:
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


def _is_remote_hub(url: object) -> bool:
    """Return whether a hub is at another host. An unreadable URL is reported elsewhere."""
    try:
        return not hub_settings.is_local_hub(hub_settings.read_hub_url(url))
    except ValueError:
        return False


def _find_access_log_faults(tree: Table) -> Iterator[Fault]:
    """Find an access log in a file with another use."""
    log = tree.get("access_log")
    file = log.get("file") if isinstance(log, Table) else log
    if not isinstance(file, str):
        return
    path: Steps = ("access_log", "file") if isinstance(log, Table) else ("access_log",)
    for other, written in _list_used_files(tree):
        if os.path.normpath(written) == os.path.normpath(file):
            yield Fault(path, f"{file} is named already at", "name another file", other)
            return


def _find_acme_faults(tree: Table) -> Iterator[Fault]:
    """Find certificates by ACME beside files, without the packages, or without a listener that answers challenges."""
    listeners = [(path, each) for path, each in list_listeners(tree)]
    can_answer = any(not isinstance(each, Table) or "authorize" not in each for _, each in listeners)
    named = FirstPlaces()
    for path, listener in listeners:
        tls = listener.get("tls") if isinstance(listener, Table) else None
        if not isinstance(tls, Table) or "acme" not in tls:
            continue
        at = (*path, "tls", "acme")
        for field in ("cert", "key", "certificates"):
            if field in tls:
                yield Fault(
                    (*path, "tls", field), "stands beside acme: it is one or the other", "leave one of them out"
                )
        if not is_installed("acme"):
            yield Fault(at, "needs packages that are not installed", "pip install 'edgeproxy[acme]'")
        if not can_answer:
            hint = "add a listener without authorize, which the authority reaches at port 80 or 443"
            yield Fault(at, "has no listener that can answer a challenge", hint)
        acme = tls["acme"]
        domains = acme.get("domains") if isinstance(acme, Table) else None
        for index, domain in enumerate(domains if isinstance(domains, Items) else ()):
            if isinstance(domain, str) and (
                first := named.find_earlier((path, domain.lower()), (*at, "domains", index))
            ):
                yield Fault((*at, "domains", index), "is named already at", "leave one of them out", first)


def _list_used_files(tree: Table) -> Iterator[tuple[Steps, str]]:
    """Yield the files and directories in use, each with the path of the field that names it."""
    parts: list[tuple[Steps, Value]] = [((), tree), (("tables",), tree.get("tables"))]
    for path, tls in list_tls_sections(tree):
        parts += list_tls_pairs(path, tls)
    for path, part in parts:
        for field in ("state", "dir", "cert", "key", "ca", "client_ca"):
            written = part.get(field) if isinstance(part, Table) else None
            if isinstance(written, str):
                yield (*path, field), written
