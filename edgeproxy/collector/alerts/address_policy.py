"""The addresses that a channel may connect to, whatever its URL says and whatever a name server answers. Pure.

The host of a channel is looked up again for each message. Its record may lead to the metadata service of a cloud, or to
a service that listens on this host alone, today or after a change.
"""

import ipaddress

from edgeproxy.config.addresses import is_loopback

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""The prefix under which IPv6 hosts reach IPv4 ones (RFC 6052)."""
METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")))
"""Metadata services of clouds outside of the link-local networks, where the others are."""


def find_refusal(address: str, host: str, *, private: bool, in_clear: bool = False) -> str | None:
    """Return why an address to which the `host` of a channel's URL resolves must not be used; None: it may be.

    This host is reached only where the URL itself names it, private networks only where the channel allows them, and
    nothing else in the clear.
    """
    ip = extract_ipv4(ipaddress.ip_address(address.partition("%")[0]))
    if ip.is_loopback:
        return None if is_loopback(host) else "it leads to this host"
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip in METADATA:
        return "it leads to an address that no receiver has"
    if ip.is_global:
        return "it leads out of the private network, in the clear: write https://" if in_clear else None
    if not private:
        return "it leads to a private network: write private: true if that is meant"
    return None


def extract_ipv4(ip: Ip) -> Ip:
    """Return the IPv4 address that an IPv6 address embeds, else the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in TRANSLATED:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else ip)
