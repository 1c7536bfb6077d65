"""The collector's listeners as operators write them: `listen` of collector.yaml, and which of them serves what."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Discriminator, Tag

from edgeproxy.config import addresses, parsers
from edgeproxy.config.addresses import is_internal, is_internal_network
from edgeproxy.config.field_types import Address, File, Switch
from edgeproxy.config.networks import Network
from edgeproxy.config.part import Part
from edgeproxy.config.problems import Steps
from edgeproxy.config.references import Fault, is_switched_on, list_listeners, list_members
from edgeproxy.config.tls import Certificate
from edgeproxy.config.tree import Items, Table, Value

PAGE_GROUPS = frozenset({"console", "portal", "status"})
GROUPS = frozenset({"edges", "api", "customers", "webhooks", "metrics"}) | PAGE_GROUPS
"""All that a collector answers, in groups of which a listener serves some."""
Group = Literal["edges", "api", "customers", "pages", "console", "portal", "status", "webhooks", "metrics"]


class Tls(Certificate):
    """TLS towards all who connect: a certificate, its key, and who vouches for edges."""

    client_ca: File | None = None
    """With it, who ships must show a certificate that one of those in this file vouches for."""


OwnTls = Annotated[
    Annotated[Tls, Tag(parsers.GIVEN)] | Annotated[Literal["off"], Tag(parsers.OFF[0])],
    Discriminator(parsers.get_union_tag),
    BeforeValidator(parsers.read_or_off),
]


class CollectorListener(Part):
    """An address to listen on, and what is served there."""

    address: Address
    """HOST:PORT."""
    serve: Annotated[tuple[Group, ...], BeforeValidator(parsers.read_one_or_more)] | None = None
    """What is served: `edges` (what edges and beacons ask), `api` (operators, machines that read, services),
    `customers` (what customers' tokens may), `console`, `portal` and `status`, or `pages` for these three, `webhooks`,
    `metrics`; by default all of it."""
    allow: tuple[Network, ...] = ()
    """Networks from which clients may come; by default everybody may."""
    tls: OwnTls | None = None
    """TLS of this listener, or `off`; by default that of the whole collector."""
    behind_tls: Switch = False
    """Whether a proxy in front, which nobody can avoid, ends TLS: then `check` takes HTTP on a public address for
    meant."""
    url: Annotated[str, BeforeValidator(addresses.read_collector)] | None = None
    """How browsers reach its pages; by default `url` of `pages`."""

    @property
    def groups(self) -> frozenset[str]:
        """The groups that it serves."""
        return GROUPS if self.serve is None else expand_groups(self.serve)

    @property
    def is_public(self) -> bool:
        """Whether the internet may reach it: by its address, and as far as it does not turn others away.

        A name, but for those of loopback, may be that of any address.
        """
        return not is_internal(self.address.host) and not (
            self.allow and all(is_internal_network(network) for network in self.allow)
        )

    def resolve_tls(self, default: Tls | None) -> Tls | None:
        """Return its TLS where that of the collector is `default`; None: HTTP."""
        if self.tls is None:
            return default
        return None if self.tls == "off" else self.tls


def expand_groups(serve: Iterable[str]) -> frozenset[str]:
    """Return the groups that `serve` names, of which `pages` stands for three."""
    named = frozenset(serve)
    return (named | PAGE_GROUPS if "pages" in named else named) & GROUPS


def find_faults(tree: Table) -> Iterator[Fault]:
    """Find contradictions in `listen` of a collector.yaml, and what no listener serves though something needs it."""
    served: set[str] = set()
    for path, listener in list_listeners(tree):
        if not isinstance(listener, Table):
            served |= GROUPS
            continue
        here = _read_groups(listener.get("serve"))
        served |= here
        tls, behind = listener.get("tls", tree.get("tls")), listener.get("behind_tls")
        if isinstance(tls, Table) and isinstance(behind, str) and is_switched_on(behind):
            yield Fault((*path, "behind_tls"), "is for listeners without TLS, and this one has some", "write tls: off")
        url = listener.get("url")
        if url is not None and not here & PAGE_GROUPS:
            yield Fault((*path, "url"), "is for pages, which this listener does not serve", "write pages in its serve")
        yield from find_url_faults((*path, "url"), url)
    for groups, why in _find_needs(tree):
        if not groups & served:
            what = " or ".join(sorted(groups))
            yield Fault(("listen",), f"serves no {what}, and {why}", f"write {what} in the serve of a listener")


def _read_groups(serve: Value) -> frozenset[str]:
    """Return the groups of a listener as it is written; all of them where that is wrong, which is told already."""
    words = serve if isinstance(serve, Items) else [serve]
    named = expand_groups(word for word in words if isinstance(word, str))
    return named if named and all(word in get_args(Group) for word in words) else GROUPS


def find_url_faults(path: Steps, url: object) -> Iterator[Fault]:
    """Find what is wrong with how browsers reach pages."""
    if isinstance(url, str) and url.startswith("http://") and not addresses.is_loopback(urlsplit(url).hostname or ""):
        yield Fault(path, "is reached in the clear, and sessions with it", "write https://")


def _find_needs(tree: Table) -> Iterator[tuple[frozenset[str], str]]:
    """Yield the groups of which one must be served, and why."""
    if any(token.get("role") in ("edge", "beacon") for _, token in list_members(tree, "tokens")):
        yield frozenset({"edges"}), "there are tokens of edges or beacons"
    if isinstance(tree.get("pages"), Table):
        yield PAGE_GROUPS, "there are pages"
    billing = tree.get("billing")
    if isinstance(billing, Table) and billing.get("mode") in ("shadow", "live"):
        yield frozenset({"webhooks"}), "payments are known by them"
