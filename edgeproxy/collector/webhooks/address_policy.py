"""The addresses that a webhook may connect to, independently of its URL and of answers of name servers. Pure.

The host of a URL is looked up again for each message. Its record may point to a cloud's metadata service, or to a
service that listens only on this host, now or after a change.
"""

import ipaddress
from collections.abc import Iterable

from edgeproxy.config.addresses import Network, is_loopback

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""The prefix that IPv6 hosts use to reach IPv4 hosts (RFC 6052)."""
SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")
"""Deprecated private IPv6 addresses (RFC 3879). The standard library treats them as public."""
METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")))
"""Metadata services of clouds outside the link-local networks. Other metadata services are inside these."""

NO_RECEIVER = "it leads to an address that no receiver has"


def find_refusal(address: str, host: str, *, private: bool, in_clear: bool = False) -> str | None:
    """Return the reason why an address of the `host` in a channel's URL must not be used, or None.

    This host is permitted only if the URL names it, and private networks only if the channel allows them. Only these
    are permitted without encryption.
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
    """Return the reason why an address of the host in a customer's URL must not be used, or None.

    Customers may reach the public Internet over TLS, and the operator's `networks` also without encryption.
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
    """Return an address without its zone, or its embedded IPv4 address if there is one."""
    return extract_ipv4(ipaddress.ip_address(address.partition("%")[0]))


def extract_ipv4(ip: Ip) -> Ip:
    """Return the IPv4 address embedded in an IPv6 address, or the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in TRANSLATED:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else ip)
