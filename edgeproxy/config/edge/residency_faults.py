"""Contradictions in the residencies of an edge.yaml."""

from collections.abc import Iterator

from edgeproxy.config.edge.directory_settings import A_PUBLIC_KEY
from edgeproxy.config.problems import Steps
from edgeproxy.config.references import Fault, FirstPlaces, find_outward_tls_faults, is_switched_on, list_members
from edgeproxy.config.tree import Items, Table

SHARED_SETTINGS = ("ttl", "revoked")
"""Settings of a directory that the home sets for all residencies."""


def find_faults(tree: Table) -> Iterator[Fault]:
    """Find residencies beside a single collector, without exactly one home, or with settings that only one may have."""
    if "residency" not in tree:
        return
    for name in ("usage", "directory"):
        if name in tree:
            yield Fault((name,), "is about one collector, and residency names each", "move it into a residency")
    members = list(list_members(tree, "residency"))
    homes = [path for path, residency in members if _is_home(residency)]
    if members and not homes:
        yield Fault(("residency",), "has no home", "write home: true at the residency of this edge")
    for path in homes[1:]:
        yield Fault((*path, "home"), "is true like", "leave one of them out: an edge has one home", (*homes[0], "home"))
    collectors, signers = FirstPlaces(), FirstPlaces()
    for path, residency in members:
        yield from _find_usage_faults(path, residency.get("usage"), collectors)
        yield from _find_directory_faults(path, residency.get("directory"), signers, is_home=path in homes)


def _is_home(residency: Table) -> bool:
    home = residency.get("home")
    return isinstance(home, str) and is_switched_on(home)


def _find_usage_faults(path: Steps, usage: object, collectors: FirstPlaces) -> Iterator[Fault]:
    if not isinstance(usage, Table):
        return
    url, where = usage.get("collector"), (*path, "usage", "collector")
    if isinstance(url, str) and (first := collectors.find_earlier(url.rstrip("/").lower(), where)):
        yield Fault(where, "is the collector of", "each residency has its own", first)
    tls = usage.get("tls")
    if isinstance(tls, Table) and tls:
        plain = isinstance(url, str) and url.lower().startswith("http://")
        yield from find_outward_tls_faults((*path, "usage", "tls"), tls, "a collector of http://" if plain else None)


def _find_directory_faults(path: Steps, directory: object, signers: FirstPlaces, *, is_home: bool) -> Iterator[Fault]:
    if not isinstance(directory, Table):
        return
    where = (*path, "directory")
    if directory.get("from") == "hub":
        yield Fault((*where, "from"), "is the hub, which all residencies share", "write from: collector")
    trust = directory.get("trust", Items())
    keys = trust if isinstance(trust, Items) else Items([trust])
    if not keys:
        yield Fault(where, "names nobody who signs it", f"write trust: [{A_PUBLIC_KEY}]")
    for key in keys:
        if isinstance(key, str) and (first := signers.find_earlier(key, (*where, "trust"))):
            yield Fault((*where, "trust"), "has a key of", "each residency signs with its own", first)
    for name in () if is_home else SHARED_SETTINGS:
        if name in directory:
            yield Fault((*where, name), "is that of the home for all", "write it at the home")
