"""Whose measurements belong together: addresses, networks, and who in a network has a vote."""

import hashlib
import ipaddress
from collections.abc import Sequence

NETWORK_BITS = {4: 24, 6: 48}
"""Of an address, what is one network: what an access network gives to a place, or to a customer."""
VOTER_BITS = {4: 32, 6: 64}
"""Of an address, what has one vote: whoever has an IPv6 address has all of its /64."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IP = ipaddress.IPv4Address | ipaddress.IPv6Address


def read_ip(text: str) -> IP | None:
    """Read an address, IPv4 where it is one in IPv6's clothes (`::ffff:10.0.0.1`); None where it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def network_of(address: IP) -> str:
    """Name the network of an address: `192.0.2.0/24`, `2001:db8:1::/48`."""
    return str(ipaddress.ip_network((address, NETWORK_BITS[address.version]), strict=False))


def voter_of(address: IP, secret: bytes) -> str:
    """Name who votes from this address, so that it cannot be told which one it is without the secret."""
    own = address.packed[: VOTER_BITS[address.version] // 8]
    return hashlib.blake2b(own, key=secret[:64], digest_size=8).hexdigest()


def client_of(peer: str, forwarded_for: str | None, trusted: Sequence[Network]) -> IP | None:
    """Return the address of a client: the peer's, or the rightmost of X-Forwarded-For that no trusted proxy wrote."""
    client = read_ip(peer)
    entries = [entry.strip() for entry in (forwarded_for or "").split(",")] if forwarded_for else []
    while client is not None and entries and any(client in network for network in trusted):
        client = read_ip(entries.pop())
    return client
