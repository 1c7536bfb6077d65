"""Who is asking, by address: the peer, or the client that trusted proxies say they act for.

Each address has its own limits in the table of addresses: the coarse guard that is charged before any key is
looked at, the tier `anonymous` for requests without a key, and whatever else has the scope `ip`.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from edgeproxy.limits.admission import LimitSet
from edgeproxy.limits.policies import Policies
from edgeproxy.limits.policy import Policy
from edgeproxy.limits.rule import Rule

if TYPE_CHECKING:
    from edgeproxy.http1.request import RequestHead
    from edgeproxy.limits.limit_set import RouteLimits

ADDRESSES_MAX = 16_384
"""Addresses whose limits are kept at hand; the counts themselves live in the table."""

LIMIT_SETS_MAX = 16
"""Route bindings of an address whose limits are kept at hand; few use more."""

V6_PREFIX_BITS = 64
"""Bits of an IPv6 address that count: one customer of an access network holds at least that many addresses."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IP = ipaddress.IPv4Address | ipaddress.IPv6Address


class BoundByAddress(Protocol):
    """A route binding, of which each address has limits of its own."""

    @property
    def limits(self) -> "RouteLimits":
        """All its limits."""


class Address:
    """The limits of one client address."""

    __slots__ = ("_limit_sets", "_subject", "guard", "text")

    def __init__(self, text: str, subject: bytes, guard: Policy | None) -> None:
        self.text = text
        self.guard = guard
        self._subject = subject
        self._limit_sets: dict[BoundByAddress, LimitSet] = {}

    def limit_set(self, binding: BoundByAddress) -> LimitSet:
        """What holds this address on a route binding whose limits differ by address."""
        limit_set = self._limit_sets.get(binding)
        if limit_set is None:
            if len(self._limit_sets) >= LIMIT_SETS_MAX:
                self._limit_sets.clear()
            limit_set = self._limit_sets[binding] = binding.limits.limit_set(self._subject)
        return limit_set

    def forget(self) -> None:
        """Route bindings of another configuration come."""
        self._limit_sets.clear()


class Addresses:
    """Whom an address stands for, and what holds it."""

    def __init__(
        self,
        policies: Policies,
        trusted: Sequence[Network],
        guard: Rule | None,
    ) -> None:
        self._policies = policies
        self._trusted = tuple(trusted)
        self._guard = guard
        self._known: OrderedDict[str, Address] = OrderedDict()

    def is_as(self, trusted: Sequence[Network], guard: Rule | None) -> bool:
        """Whether it would be the same if it were made of these."""
        return (self._trusted, self._guard) == (tuple(trusted), guard)

    def forget_bindings(self) -> None:
        """Route bindings of another configuration come."""
        for address in self._known.values():
            address.forget()

    def trusts(self, peer: str) -> bool:
        """Whether this address belongs to a trusted proxy."""
        if not self._trusted:
            return False
        address = parse(peer)
        return address is not None and self._is_trusted(address)

    def of(self, address: str) -> Address:
        """The limits of an address as text."""
        known = self._known.get(address)
        if known is not None:
            self._known.move_to_end(address)
            return known
        subject = subject_of(address)
        guard = None if self._guard is None else self._policies.of(self._guard, subject)
        known = self._known[address] = Address(address, subject, guard)
        if len(self._known) > ADDRESSES_MAX:
            self._known.popitem(last=False)
        return known

    def client_of(self, peer: str, forwarded_for: bytes | None) -> str:
        """The client that a trusted peer acts for: the rightmost entry that no trusted proxy wrote.

        An entry that is no address says nothing about who asked; then the proxy that passed it on is asked for.
        """
        client = peer
        for entry in reversed((forwarded_for or b"").split(b",")):
            address = parse(without_port(entry.strip(b" \t").decode("latin-1")))
            if address is None:
                break
            client = str(address)
            if not self._is_trusted(address):
                break
        return client

    def on_behalf(self, peer: str, head: "RequestHead", scheme: bytes = b"http") -> tuple[str, bytes]:
        """(the client's address, the X-Forwarded lines that the upstream gets) of a trusted proxy's request.

        `scheme` is that of the proxy's own connection, for one that says nothing of its client's.
        The lines end with the name of X-Request-Id, whose value is the next thing in a head.
        """
        client = self.client_of(peer, head.forwarded_for)
        path = peer.encode() if head.forwarded_for is None else b"%b, %b" % (head.forwarded_for, peer.encode())
        scheme = head.forwarded_proto or scheme
        lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Request-Id: " % (path, scheme)
        return client, lines

    def _is_trusted(self, address: IP) -> bool:
        return any(address in network for network in self._trusted)


def parse(text: str) -> IP | None:
    """An address, IPv4 where it is one in IPv6's clothes (`::ffff:10.0.0.1`); None where it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def without_port(entry: str) -> str:
    """`192.0.2.1:4711` and `[2001:db8::1]:4711`, as some proxies write them, without the port and the brackets."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry


def subject_of(address: str) -> bytes:
    """What is counted for an address: the address itself, or the /64 that an IPv6 address lies in."""
    parsed = parse(address)
    if parsed is None:
        return address.encode()
    if parsed.version == 4:
        return parsed.packed
    return parsed.packed[: V6_PREFIX_BITS // 8]
