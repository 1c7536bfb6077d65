"""Client addresses: the peer, or the client that a trusted proxy names.

Each address has its own limits in the table of addresses: the coarse guard that is charged before any key is read, the
tier `anonymous` for requests without a key, and all limits of the scope `ip`.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edgeproxy.base.addresses import IP, V6_PREFIX_BITS, parse_forwarded, parse_ip, subject_of
from edgeproxy.base.lru_cache import LRUCache
from edgeproxy.config.addresses import Network
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.proxy.transport.network_filter import OF_KEY, NetworkFilter, check_address

if TYPE_CHECKING:
    from edgeproxy.config.networks import Networks as NetworkSettings
    from edgeproxy.edge.http1.request import RequestHead
    from edgeproxy.edge.limits.route_limits import RouteLimits

ADDRESSES_MAX = 16_384
"""Addresses whose limits are cached; the counts themselves are in the table."""

LIMIT_SETS_MAX = 16
"""Route bindings of an address whose limits are cached; few addresses use more."""


class AddressBinding(Protocol):
    """A route binding with separate limits for each address."""

    @property
    def limits(self) -> "RouteLimits":
        """The limits of the route binding."""

    @property
    def networks(self) -> "NetworkFilter | None":
        """The networks that its customer may send from."""


NO_LIMIT_SETS: LRUCache[AddressBinding, LimitSet] = LRUCache(0)
"""The limit sets of every address without any: most addresses have no limits of their own."""


class Address:
    """The limits of one client address."""

    __slots__ = ("_guarded", "_limit_sets", "admitted", "connections", "guard", "subject", "text")

    def __init__(
        self,
        text: str,
        subject: bytes,
        guard: Policy | None,
        connections: Policy | None = None,
        admitted: bool = True,
    ) -> None:
        self.text = text
        self.guard = guard
        self.connections = connections
        """The limit of its new connections."""
        self.admitted = admitted
        """True if the address may connect."""
        self.subject = subject
        self._limit_sets = NO_LIMIT_SETS
        self._guarded: LimitSet | None = None

    @property
    def guard_limit_set(self) -> LimitSet:
        """The guard as the limit set that refuses a request.

        The guard must exist. It is cached, because it refuses in floods.
        """
        if self._guarded is None:
            assert self.guard is not None
            self._guarded = LimitSet((self.guard,))
        return self._guarded

    def get_limit_set(self, binding: AddressBinding) -> LimitSet:
        """Return the limits of this address on a route binding that differs by address.

        Raises RejectedError if the address is not allowed.
        """
        limit_set = self._limit_sets[binding]
        if limit_set is None:
            check_address(binding.networks, self.text, OF_KEY)
            # Made at first use: only bindings that differ by address need it.
            if self._limit_sets is NO_LIMIT_SETS:
                self._limit_sets = LRUCache(LIMIT_SETS_MAX)
            limit_set = self._limit_sets.admit(binding, binding.limits.build_limit_set(self.subject))
        return limit_set

    def forget_limit_sets(self) -> None:
        """Forget the limits on route bindings, because the configuration changes."""
        self._limit_sets = NO_LIMIT_SETS


class AddressSettings(NamedTuple):
    """The settings of a configuration that are about addresses."""

    trusted: tuple[Network, ...] = ()
    """The proxies whose statements about their clients are trusted."""
    guard: Rule | None = None
    """The coarse limit of requests."""
    connections: Rule | None = None
    """The limit of new connections."""
    networks: "NetworkSettings | None" = None
    """The networks that may connect."""
    prefix: int = V6_PREFIX_BITS
    """The significant bits of an IPv6 address."""


class Addresses:
    """The addresses of clients, with their limits."""

    def __init__(self, policies: Policies, terms: AddressSettings) -> None:
        self.settings = terms
        self._policies = policies
        self._networks = None if terms.networks is None else NetworkFilter(terms.networks)
        self._cached: OrderedDict[str, Address] = OrderedDict()

    def forget_bindings(self) -> None:
        """Forget the limits on route bindings, because the configuration changes."""
        for address in self._cached.values():
            address.forget_limit_sets()

    def trusts(self, peer: str) -> bool:
        """Return whether this address belongs to a trusted proxy."""
        if not self.settings.trusted:
            return False
        address = parse_ip(peer)
        return address is not None and self._is_trusted(address)

    def get_address(self, address: str) -> Address:
        """Return the limits of an address, which is given as text."""
        known = self._cached.get(address)
        if known is not None:
            self._cached.move_to_end(address)
            return known
        subject = subject_of(address, self.settings.prefix)
        guard = None if self.settings.guard is None else self._policies.get_policy(self.settings.guard, subject)
        connections = (
            None if self.settings.connections is None else self._policies.get_policy(self.settings.connections, subject)
        )
        admitted = self._networks is None or self._networks.admits(parse_ip(address))
        known = self._cached[address] = Address(address, subject, guard, connections, admitted)
        if len(self._cached) > ADDRESSES_MAX:
            self._cached.popitem(last=False)
        return known

    def find_client(self, peer: str, forwarded_for: bytes | None) -> str:
        """Return the client that a trusted peer acts for: the rightmost entry that no trusted proxy wrote.

        An entry that is not an address does not identify a client. Then the proxy that passed it on counts as the
        client.
        """
        client = peer
        for entry in reversed((forwarded_for or b"").split(b",")):
            address = parse_forwarded(entry.decode("latin-1"))
            if address is None:
                break
            client = str(address)
            if not self._is_trusted(address):
                break
        return client

    def resolve_forwarded(self, peer: str, head: "RequestHead", scheme: bytes = b"http") -> tuple[str, bytes]:
        """Return (the client's address, the X-Forwarded lines for the upstream) of a trusted proxy's request.

        `scheme` is the scheme of the proxy's own connection; it applies if the proxy does not state its client's. The
        lines end with the name of X-Request-Id, whose value follows in the head.
        """
        client = self.find_client(peer, head.forwarded_for)
        path = peer.encode() if head.forwarded_for is None else b"%b, %b" % (head.forwarded_for, peer.encode())
        scheme = head.forwarded_proto or scheme
        lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Request-Id: " % (path, scheme)
        return client, lines

    def compute_subject(self, peer: str) -> bytes:
        """Return the key that counts an address."""
        return subject_of(peer, self.settings.prefix)

    def get_rule_policy(self, rule: Rule, address: Address) -> Policy:
        """Return the policy of an address for a rule about requests."""
        return self._policies.get_policy(rule, b"%b\0%b" % (address.subject, rule.name.encode()))

    def _is_trusted(self, address: IP) -> bool:
        return any(address in network for network in self.settings.trusted)
