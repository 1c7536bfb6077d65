"""IP addresses of clients, and what is counted for one."""

import ipaddress

IP = ipaddress.IPv4Address | ipaddress.IPv6Address

V6_PREFIX_BITS = 64
"""Bits of an IPv6 address that count: one customer of an access network holds at least that many addresses."""


def parse_ip(text: str) -> IP | None:
    """The address, IPv4 where it is one in IPv6's clothes (`::ffff:10.0.0.1`); None where it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def subject_of(address: str, prefix: int = V6_PREFIX_BITS) -> bytes:
    """What is counted for an address: the address itself, or the network with this prefix that an IPv6 one lies in."""
    parsed = parse_ip(address)
    if parsed is None:
        return address.encode()
    if parsed.version == 4:
        return parsed.packed
    network = int(parsed) >> (128 - prefix) << (128 - prefix)
    return network.to_bytes(16, "big")[: (prefix + 7) // 8]
