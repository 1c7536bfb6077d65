"""The addresses that a webhook may connect to, whatever its URL says and whatever a name server answers. Pure.

The host of a URL is looked up again for each message. Its record may lead to the metadata service of a cloud, or to
a service that listens on this host alone, today or after a change.
"""

import ipaddress
from collections.abc import Iterable

from edgeproxy.config.addresses import Network, is_loopback

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""The prefix under which IPv6 hosts reach IPv4 ones (RFC 6052)."""
SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")
"""Deprecated private addresses of IPv6 (RFC 3879), which the standard library takes for public."""
METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")))
"""Metadata services of clouds outside of the link-local networks, where the others are."""

NO_RECEIVER = "it leads to an address that no receiver has"


def find_refusal(address: str, host: str, *, private: bool, in_clear: bool = False) -> str | None:
    """Return why an address to which the `host` of a channel's URL resolves must not be used; None: it may be.

    This host is reached only where the URL itself names it, private networks only where the channel allows them, and
    nothing else in the clear.
    """
    ip = parse_ip(address)
    if ip.is_loopback:
        return None if is_loopback(host) else "it leads to this host"
    if _has_no_receiver(ip):
        return NO_RECEIVER
    if ip.is_global:
        return "it leads out of the private network, in the clear: write https://" if in_clear else None
    if not private:
        return "it leads to a private network: write private: true if that is meant"
    return None


def find_customer_refusal(address: str, networks: Iterable[Network], *, is_encrypted: bool) -> str | None:
    """Return why an address to which the host of a customer's URL resolves must not be used; None: it may be.

    Customers reach the public Internet over TLS, and what the operator lists in `networks` in the clear too.
    """
    ip = parse_ip(address)
    if any(ip.version == network.version and ip in network for network in networks):
        return None
    if not is_encrypted:
        return "it would be sent in the clear: write https://"
    if _has_no_receiver(ip) or not ip.is_global or ip.is_reserved or ip in SITE_LOCAL:
        return "it leads to an address that is not public"
    return None


def _has_no_receiver(ip: Ip) -> bool:
    return ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip in METADATA


def parse_ip(address: str) -> Ip:
    """Return an address without its zone, the embedded IPv4 address where there is one."""
    return extract_ipv4(ipaddress.ip_address(address.partition("%")[0]))


def extract_ipv4(ip: Ip) -> Ip:
    """Return the IPv4 address that an IPv6 address embeds, else the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in TRANSLATED:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else ip)
