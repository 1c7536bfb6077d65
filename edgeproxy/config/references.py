"""What no part of a configuration can know alone: names that must exist, and things that may be there only once.

Works on the tree as it is written, so that these problems are found beside all others, and leaves alone whatever
has not the shape that it should have: the models say so.
"""

import os
from collections.abc import Hashable, Iterator
from typing import NamedTuple

from pydantic_core import PydanticCustomError

from edgeproxy.config import kinds, units
from edgeproxy.config.nearest import suggestion
from edgeproxy.config.problems import Steps
from edgeproxy.config.tree import Items, Table, Value

LONGEST_LABEL = 100
"""Bytes of a route's label: with the longest names of a customer and a meter it fits a key of the usage table."""

NAMES = (
    ("routes", "upstream", "upstreams"),
    ("keys", "customer", "customers"),
    ("customers", "tier", "tiers"),
)
"""Which field of which members names a member of which section."""


class Fault(NamedTuple):
    """A problem at a path. `first`: the path of what it collides with, whose place belongs at the end of `what`."""

    path: Steps
    what: str
    hint: str
    first: Steps | None = None


def faults(tree: Table) -> Iterator[Fault]:
    """All of them, of a tree whose limits have their names."""
    yield from _keys(tree)
    yield from _routes(tree)
    yield from _limits(tree)
    yield from _listeners(tree)
    yield from _certificates(tree)
    yield from _upstreams(tree)
    yield from _access_log(tree)


def unknown_names(tree: Table) -> Iterator[Fault]:
    """Names of customers, tiers and upstreams that are used, and defined nowhere."""
    for section, field, defined in NAMES:
        known = tree.get(defined, Table())
        if not isinstance(known, Table):
            continue
        for path, part in _members(tree, section):
            name = part.get(field)
            if isinstance(name, str) and name not in known and kinds.NAME.fullmatch(name):
                hint = suggestion(name, known, f"define it in {defined}")
                yield Fault((*path, field), f"there is no {defined[:-1]} {name}", hint)


def _members(tree: Table, section: str) -> Iterator[tuple[Steps, Table]]:
    """The mappings in a section, a mapping or a list itself, each with its path."""
    value = tree.get(section)
    members = value.items() if isinstance(value, Table) else enumerate(value) if isinstance(value, Items) else ()
    for key, member in members:
        if isinstance(member, Table):
            yield (section, key), member


class Once:
    """What may be there only once: remembers where each was first."""

    def __init__(self) -> None:
        self._first: dict[Hashable, Steps] = {}

    def again(self, thing: Hashable, path: Steps) -> Steps | None:
        """Where this thing was before; None where it is new."""
        first = self._first.setdefault(thing, path)
        return None if first == path else first


def _keys(tree: Table) -> Iterator[Fault]:
    """Each key once."""
    once = Once()
    for path, key in _members(tree, "keys"):
        digest = key.get("sha256")
        if isinstance(digest, str) and (first := once.again(digest.lower(), (*path, "sha256"))):
            yield Fault((*path, "sha256"), "is the key that is defined already at", "leave one of them out", first)


def _routes(tree: Table) -> Iterator[Fault]:
    """Each name once; each host, path and method once; labels that fit; scopes only where keys are looked at."""
    names, routes = Once(), Once()
    for path, route in _members(tree, "routes"):
        name, where = route.get("name"), route.get("path")
        host = route.get("host", "")
        if isinstance(name, str) and (first := names.again(name, (*path, "name"))):
            yield Fault((*path, "name"), "is defined already at", "give one of them another name", first)
        if isinstance(host, str) and isinstance(where, str):
            for method in _methods(route):
                if first := routes.again((host.lower().removesuffix("."), where, method), path):
                    what = f"takes the {method + ' ' if method else ''}requests of the route at"
                    yield Fault(path, what, "leave one of them out, or give them other methods", first)
                    break
            if name is None and len(host + where) > LONGEST_LABEL:
                what = f"host and path make a label of {len(host + where)} bytes, above {LONGEST_LABEL}"
                yield Fault(path, what, "give the route a name")
        if route.get("auth") == "none" and route.get("scopes"):
            yield Fault((*path, "scopes"), "nobody's key is looked at with auth: none", "leave one of them out")


def _methods(route: Table) -> list[str | None]:
    """The methods that a route names; one without any takes what is left by those that name theirs."""
    methods = route.get("methods")
    if isinstance(methods, Items):
        return [method for method in methods if isinstance(method, str)]
    return [None]


def _limits(tree: Table) -> Iterator[Fault]:
    """Two limits that are alike in everything but their count and name would be one."""
    for section in ("tiers", "customers"):
        for path, part in _members(tree, section):
            limits, names = Once(), Once()
            members = part.get("limits")
            for index, limit in enumerate(members if isinstance(members, Items) else ()):
                if isinstance(limit, Table):
                    yield from _limit((*path, "limits", index), limit, limits, names)


def _limit(path: Steps, limit: Table, limits: Once, names: Once) -> Iterator[Fault]:
    name = limit.get("name")
    if isinstance(name, str) and (first := names.again(name, path)):
        yield Fault(path, f"is called {name} like the one at", "give one of them another name", first)
    try:
        window = units.read_rate(limit.get("rate")).seconds
    except PydanticCustomError:
        return
    alike: Hashable = (
        window,
        limit.get("algorithm", "sliding_window"),
        limit.get("scope", "customer"),
        limit.get("mode", "enforce"),
    )
    if first := limits.again(alike, path):
        what = "has the window, algorithm, scope and mode of the one at"
        yield Fault(path, what, "leave one of them out", first)


def _listeners(tree: Table) -> Iterator[Fault]:
    """Each address once, whoever is to connect there."""
    before: list[tuple[kinds.Address, Steps]] = []
    for path, listener in [*_listening(tree), (("admin",), tree.get("admin"))]:
        written = listener.get("address") if isinstance(listener, Table) else listener
        address = kinds.split_address(written) if isinstance(written, str) else None
        if address is None or not address.port:
            continue
        for other, first in before:
            if kinds.overlap(address, other):
                what = f"is {address} like" if other == address else f"is {address}, which overlaps {other} at"
                yield Fault(path, what, "listen at another port", first)
                break
        before.append((address, path))


def _listening(tree: Table) -> list[tuple[Steps, Value]]:
    """The listeners for clients, each with its path."""
    listen = tree.get("listen")
    if isinstance(listen, Items):
        return [(("listen", index), member) for index, member in enumerate(listen)]
    return [(("listen",), listen)]


def _certificates(tree: Table) -> Iterator[Fault]:
    """What listeners show their clients: at least one certificate, each with its key."""
    for path, listener in _listening(tree):
        tls = listener.get("tls") if isinstance(listener, Table) else None
        if isinstance(tls, Table):
            if "cert" not in tls and "key" not in tls and tls.get("certificates", []) == []:
                yield Fault((*path, "tls"), "has no certificate", "write cert: FILE and key: FILE")
            yield from _pair((*path, "tls"), tls)


def _pair(path: Steps, tls: Table) -> Iterator[Fault]:
    """A certificate and its private key are of no use without each other."""
    for one, other in (("cert", "key"), ("key", "cert")):
        if one in tls and other not in tls:
            yield Fault((*path, one), f"stands without its {other}", f"write {other}: FILE beside it")


def _upstreams(tree: Table) -> Iterator[Fault]:
    """Each endpoint of an upstream once, and TLS only where it is spoken."""
    for path, upstream in _members(tree, "upstreams"):
        once = Once()
        plain = True
        endpoints = upstream.get("endpoints")
        for index, endpoint in enumerate(endpoints if isinstance(endpoints, Items) else ()):
            where = (*path, "endpoints", index)
            try:
                url = kinds.read_origin(endpoint.get("url") if isinstance(endpoint, Table) else endpoint)
            except PydanticCustomError:
                plain = False  # Nobody knows what it was meant to be.
                continue
            plain = plain and url.startswith("http://")
            if first := once.again(url, where):
                yield Fault(where, f"is {url} like", "leave one of them out, and give the other a weight", first)
        tls = upstream.get("tls")
        if isinstance(tls, Table) and tls:
            yield from _spoken((*path, "tls"), tls, plain=plain)


def _spoken(path: Steps, tls: Table, *, plain: bool) -> Iterator[Fault]:
    """TLS of an upstream; `plain`: none of its endpoints speaks it."""
    if plain:
        yield Fault(path, "says nothing to http:// endpoints", "write https:// there, or leave it out")
    yield from _pair(path, tls)
    verify = tls.get("verify")
    if "ca" in tls and isinstance(verify, str) and verify.lower() in kinds.OFF:
        yield Fault((*path, "verify"), "false leaves ca unread", "leave one of them out")


def _access_log(tree: Table) -> Iterator[Fault]:
    """Lines are not added to what has another use."""
    log = tree.get("access_log")
    file = log.get("file") if isinstance(log, Table) else log
    if not isinstance(file, str):
        return
    path: Steps = ("access_log", "file") if isinstance(log, Table) else ("access_log",)
    for other, written in _files(tree):
        if os.path.normpath(written) == os.path.normpath(file):
            yield Fault(path, f"{file} is named already at", "name another file", other)
            return


def _files(tree: Table) -> Iterator[tuple[Steps, str]]:
    """The files and directories that have a use, each with the path of the field that names it."""
    parts: list[tuple[Steps, Value]] = [((), tree), (("tables",), tree.get("tables"))]
    for path, owner in [*_listening(tree), *_members(tree, "upstreams")]:
        tls = owner.get("tls") if isinstance(owner, Table) else None
        parts.append(((*path, "tls"), tls))
        certificates = tls.get("certificates") if isinstance(tls, Table) else None
        for index, pair in enumerate(certificates if isinstance(certificates, Items) else ()):
            parts.append(((*path, "tls", "certificates", index), pair))
    for path, part in parts:
        for field in ("state", "dir", "cert", "key", "ca", "client_ca"):
            written = part.get(field) if isinstance(part, Table) else None
            if isinstance(written, str):
                yield (*path, field), written
