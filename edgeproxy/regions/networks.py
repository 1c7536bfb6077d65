"""Networks and voters: which measurements belong together, and how many votes an address has."""

import hashlib
import ipaddress
from collections.abc import Sequence

from edgeproxy.base.addresses import IP, parse_forwarded, parse_ip
from edgeproxy.config.addresses import Network

NETWORK_BITS = {4: 24, 6: 48}
"""Bits of an address that name its network: what an access network gives to a place, or to a customer."""
VOTER_BITS = {4: 32, 6: 64}
"""Bits of an address that name a voter: whoever has an IPv6 address has all of its /64."""


def get_network(address: IP) -> str:
    """Return the name of the network of an address: `192.0.2.0/24`, `2001:db8:1::/48`."""
    return str(ipaddress.ip_network((address, NETWORK_BITS[address.version]), strict=False))


def mask_address(text: str) -> str:
    """Return the name of the network of an address; what is no address stays as it is."""
    address = parse_ip(text)
    return text if address is None else get_network(address)


def get_voter(address: IP, secret: bytes) -> str:
    """Return the pseudonym of the voter at an address; without the secret it does not show the address."""
    own = address.packed[: VOTER_BITS[address.version] // 8]
    return hashlib.blake2b(own, key=secret[:64], digest_size=8).hexdigest()


def find_client(peer: str, forwarded_for: str | None, trusted: Sequence[Network]) -> tuple[IP | None, IP | None]:
    """Return the address of a client, and that of the trusted proxy to which it connected, None where it is the peer.

    The client is the peer, or the rightmost of X-Forwarded-For that no trusted proxy wrote; None where that is none.
    """
    client, proxy = parse_ip(peer), None
    entries = forwarded_for.split(",") if forwarded_for else []
    while client is not None and entries and is_in(client, trusted):
        client, proxy = parse_forwarded(entries.pop()), client
    return client, proxy


def is_in(address: IP | None, networks: Sequence[Network]) -> bool:
    """Return whether there is an address, and it is in one of these networks."""
    return address is not None and any(address in network for network in networks)
