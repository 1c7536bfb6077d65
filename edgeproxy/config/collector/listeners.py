"""The collector's listeners: `listen` of collector.yaml, and the groups of endpoints that each serves."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Discriminator, Field, Tag

from edgeproxy.config import addresses, parsers
from edgeproxy.config.field_types import Address, File, Network, Switch
from edgeproxy.config.part import Part
from edgeproxy.config.problems import Steps
from edgeproxy.config.references import Fault, is_switched_on, list_listeners, list_members
from edgeproxy.config.tls import Certificate
from edgeproxy.config.tree import Items, Table, Value

PAGE_GROUPS = frozenset({"console", "portal", "status"})
GROUPS = frozenset({"edges", "api", "customers", "webhooks", "metrics"}) | PAGE_GROUPS
"""Groups of the collector's endpoints. Each listener serves some of them."""
Group = Literal["edges", "api", "customers", "pages", "console", "portal", "status", "webhooks", "metrics"]


class Tls(Certificate):
    """TLS towards all clients of the collector."""

    client_ca: File | None = Field(
        default=None,
        description="Authorities of edges' certificates. If set, an edge must have a certificate from one of them to "
        "ship.",
    )


OwnTls = Annotated[
    Annotated[Tls, Tag(parsers.GIVEN)] | Annotated[Literal["off"], Tag(parsers.OFF[0])],
    Discriminator(parsers.get_union_tag),
    BeforeValidator(parsers.read_or_off),
]


class CollectorListener(Part):
    """A listener of the collector.

    Several listeners can serve different groups of endpoints ([an example](collector.md#listeners)). A change needs a
    restart; certificates are read again when their files change.

    - `edges`: endpoints of the roles `edge` and `beacon`: batches, the directory, reports of regions;
    - `api`: endpoints of the roles `service`, `read`, `support`, `billing` and `admin`, and of operators;
    - `customers`: endpoints of customers' tokens: their usage, keys, billing; and the report of leaked keys, which is
      open to all;
    - `console`, `portal`, `status`: the operators', the customers' and the public pages; `pages` is all three. The
      paths that [issuers send browsers back to](pages.md#signing-in) belong to the pages;
    - `webhooks`: `POST /billing/webhooks/stripe`;
    - `metrics`: `GET /metrics`.

    Every listener has `/healthz` and `/readyz`. `/v1/openapi.json`, `/billing/plans` and `/billing/status` belong to
    `api` and `customers`. An endpoint for several roles answers a role only if the listener serves that role's group:
    an admin's token gets 403 at a listener for `customers`, and the audit log records it.

    `check` refuses a file if no listener serves a needed group: `edges` if there are tokens for edges, the pages if
    there is `pages`, `webhooks` unless `billing` is off. For any other group it warns.
    """

    address: Address = Field(description="Address to listen on.")
    serve: Annotated[tuple[Group, ...], BeforeValidator(parsers.read_one_or_more)] | None = Field(
        default=None,
        description="Groups served. Requests to other groups get the answer for unknown paths. By default everything "
        "is served.",
    )
    allow: tuple[Network, ...] = Field(
        default=(),
        description="Networks of clients. Connections from other addresses are closed before a byte is read. A proxy "
        "in `trusted_proxies` may always connect: its clients are judged by `X-Forwarded-For`, and get 403 if they "
        "are not allowed or if the field has no address for them. Without that field the proxy's own address counts, "
        "except for `/healthz` and `/readyz`. By default all.",
    )
    tls: OwnTls | None = Field(default=None, description="TLS of this listener only. By default the `tls` at the top.")
    behind_tls: Switch = Field(
        default=False,
        description="States that TLS ends at a proxy in front, or that the network consists of containers on one host, "
        "and that the listener is reached only that way. Without it, a clear-text listener on an address that other "
        "hosts reach is refused.",
    )
    url: Annotated[str, BeforeValidator(addresses.read_collector)] | None = Field(
        default=None,
        description="URL of this listener's pages for browsers; `https://` unless it is on this host. By default the "
        "`url` of `pages`.",
    )

    @property
    def groups(self) -> frozenset[str]:
        """The groups that it serves."""
        return GROUPS if self.serve is None else expand_groups(self.serve)

    def resolve_tls(self, default: Tls | None) -> Tls | None:
        """Return its TLS, if `default` is the collector's. None: HTTP."""
        if self.tls is None:
            return default
        return None if self.tls == "off" else self.tls


def expand_groups(serve: Iterable[str]) -> frozenset[str]:
    """Return the groups that `serve` names. `pages` stands for three."""
    named = frozenset(serve)
    return (named | PAGE_GROUPS if "pages" in named else named) & GROUPS


def find_faults(tree: Table) -> Iterator[Fault]:
    """Find contradictions in `listen` of a collector.yaml, and required groups that no listener serves."""
    served: set[str] = set()
    for path, listener in list_listeners(tree):
        yield from _find_clear_text(path, listener, tree)
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


def _find_clear_text(path: Steps, listener: Value, tree: Table) -> Iterator[Fault]:
    """Find listeners that other hosts reach without TLS: others on the network could read tokens and sessions."""
    written, tls, behind = listener, tree.get("tls"), None
    if isinstance(listener, Table):
        written, tls, behind = listener.get("address"), listener.get("tls", tls), listener.get("behind_tls")
        path = (*path, "address")
    if isinstance(tls, Table) or (isinstance(behind, str) and is_switched_on(behind)):
        return
    address = addresses.split_address(written) if isinstance(written, str) else None
    if address is not None and not addresses.is_loopback(address.host):
        hint = "write tls: {cert: FILE, key: FILE}, or behind_tls: true where a proxy in front of it ends TLS"
        yield Fault(path, "is reached by other hosts in clear text", hint)


def _read_groups(serve: Value) -> frozenset[str]:
    """Return the groups of a listener in the parsed tree. Invalid names, reported elsewhere, count as all groups."""
    words = serve if isinstance(serve, Items) else [serve]
    named = expand_groups(word for word in words if isinstance(word, str))
    return named if named and all(word in get_args(Group) for word in words) else GROUPS


def find_url_faults(path: Steps, url: object) -> Iterator[Fault]:
    """Find faults of the URL of the pages."""
    if isinstance(url, str) and url.startswith("http://") and not addresses.is_loopback(urlsplit(url).hostname or ""):
        yield Fault(path, "is reached in the clear, and sessions with it", "write https://")


def _find_needs(tree: Table) -> Iterator[tuple[frozenset[str], str]]:
    """Yield sets of groups with the reason why at least one group of the set must be served."""
    if any(token.get("role") in ("edge", "beacon") for _, token in list_members(tree, "tokens")):
        yield frozenset({"edges"}), "there are tokens of edges or beacons"
    if isinstance(tree.get("pages"), Table):
        yield PAGE_GROUPS, "there are pages"
    rotation = tree.get("rotation")
    if isinstance(rotation, Table) and rotation.get("deliver") == "portal":
        yield frozenset({"portal"}), "customers rotate their keys there"
    billing = tree.get("billing")
    if isinstance(billing, Table) and billing.get("mode") in ("shadow", "live"):
        yield frozenset({"webhooks"}), "payments are known by them"
