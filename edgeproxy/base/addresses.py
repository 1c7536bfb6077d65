"""IP addresses of clients, and the subjects of their counts."""

import ipaddress

IP = ipaddress.IPv4Address | ipaddress.IPv6Address

V6_PREFIX_BITS = 64
"""Significant bits of an IPv6 address: one customer of an access network has at least a /64."""


def parse_ip(text: str) -> IP | None:
    """Parse an IP address, with IPv4-mapped IPv6 (`::ffff:10.0.0.1`) as IPv4. Return None if it is invalid."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse_forwarded(entry: str) -> IP | None:
    """Parse an entry of X-Forwarded-For. Return None if it is no address.

    A zone is removed. It names an interface of another host, and its length and characters are unlimited.
    """
    return parse_ip(remove_port(entry.strip(" \t")).partition("%")[0])


def remove_port(entry: str) -> str:
    """Return `192.0.2.1:4711` and `[2001:db8::1]:4711`, as some proxies write them, without port and brackets."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry


def subject_of(address: str, prefix: int = V6_PREFIX_BITS) -> bytes:
    """Return the subject for counts of an address: itself, or for IPv6 the network with this prefix."""
    parsed = parse_ip(address)
    if parsed is None:
        return address.encode()
    if parsed.version == 4:
        return parsed.packed
    network = int(parsed) >> (128 - prefix) << (128 - prefix)
    return network.to_bytes(16, "big")[: (prefix + 7) // 8]
