"""Networks and voters: how measurements are grouped, and how many votes an address has."""

import hashlib
import ipaddress
from collections.abc import Sequence

from edgeproxy.base.addresses import IP, parse_forwarded, parse_ip
from edgeproxy.config.addresses import Network

NETWORK_BITS = {4: 24, 6: 48}
"""Bits of an address that name its network: an access network gives such a block to a place or a customer."""
VOTER_BITS = {4: 32, 6: 64}
"""Bits of an address that name a voter. The user of an IPv6 address controls all of its /64."""


def get_network(address: IP) -> str:
    """Return the name of the network of an address: `192.0.2.0/24`, `2001:db8:1::/48`."""
    return str(ipaddress.ip_network((address, NETWORK_BITS[address.version]), strict=False))


def mask_address(text: str) -> str:
    """Return the network of an address. A text that is no address is returned unchanged."""
    address = parse_ip(text)
    return text if address is None else get_network(address)


def get_voter(address: IP, secret: bytes) -> str:
    """Return the pseudonym of the voter at an address; without the secret it does not show the address."""
    own = address.packed[: VOTER_BITS[address.version] // 8]
    return hashlib.blake2b(own, key=secret[:64], digest_size=8).hexdigest()


def find_client(peer: str, forwarded_for: str | None, trusted: Sequence[Network]) -> tuple[IP | None, IP | None]:
    """Return the client's address, and the address of the trusted proxy that it connected to (None: none).

    The client is the rightmost entry of X-Forwarded-For that no trusted proxy wrote, or else the peer. It is None if
    that entry is no address.
    """
    client, proxy = parse_ip(peer), None
    entries = forwarded_for.split(",") if forwarded_for else []
    while client is not None and entries and is_in(client, trusted):
        client, proxy = parse_forwarded(entries.pop()), client
    return client, proxy


def is_in(address: IP | None, networks: Sequence[Network]) -> bool:
    """Return whether the address is not None and is in one of these networks."""
    return address is not None and any(address in network for network in networks)
