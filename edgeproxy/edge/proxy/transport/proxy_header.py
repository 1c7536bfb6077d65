"""The header of the PROXY protocol, versions 1 and 2: a proxy of connections states the address of its client.

Source: "The PROXY protocol, Versions 1 & 2", HAProxy Technologies, 2020/03/05. A connection begins with the header,
before TLS. A receiver must not guess whether there is one, so a header is required wherever it is expected.
"""

import ipaddress
import re
from typing import Final, NamedTuple

from edgeproxy.base.addresses import parse_ip

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
"""The beginning of version 2."""
V1_BYTES_MAX = 107
"""The longest line of version 1, with its end (section 2.1)."""
V2_FIXED_BYTES = 16
V2_BYTES_MAX = 4 << 10
"""Maximum bytes of a header of version 2. Its addresses take 36, and the extensions of load balancers some hundred."""

V1_LINE = re.compile(rb"PROXY (TCP[46]) ([0-9a-fA-F.:]{2,39}) ([0-9a-fA-F.:]{2,39}) ([0-9]{1,5}) ([0-9]{1,5})\r\n")
V1_VERSIONS = {b"TCP4": 4, b"TCP6": 6}
UNKNOWN: Final = {"v1": b"PROXY UNKNOWN\r\n", "v2": SIGNATURE + b"\x20\0\0\0"}
"""The header of a connection without a client, by version. Version 1 has no LOCAL."""
LOCAL, PROXY = 0x20, 0x21
"""Version 2 with each of its commands."""
ADDRESS_BYTES = {0x11: 4, 0x21: 16}
"""Bytes of an address by family, both over TCP."""
PORTS_BYTES = 4
PORT_MAX = 65_535


class InvalidProxyHeaderError(ValueError):
    """A connection begins with no usable header. The message says why."""


class ProxyHeader(NamedTuple):
    """A complete header."""

    source: str | None
    """The client's address; None: the proxy connects for itself, for example for a health check."""
    size: int
    """Its bytes."""


def parse_proxy_header(data: bytes) -> ProxyHeader | None:
    """Return the header at the beginning of a connection's bytes, or None if more bytes are needed.

    Raises InvalidProxyHeaderError, also for a client whose address the proxy does not know.
    """
    # Only a part of the beginning may have come so far.
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _parse_binary(data)
    if data[:6] == b"PROXY "[: len(data)]:
        return _parse_line(data)
    raise InvalidProxyHeaderError("has no header of the PROXY protocol")


def format_proxy_header(version: str, client: str | None) -> bytes:
    """Format the header of a connection for one client; `version` is `v1` or `v2`.

    None, or a text that is no address: the connection is the edge's own, or its client is not known. The edge keeps no
    ports of clients, and a client may come through proxies. So both ports are 0, and the destination is unspecified.
    """
    source = None if client is None else parse_ip(client.partition("%")[0])
    if source is None:
        return UNKNOWN[version]
    family, target = (0x11, "0.0.0.0") if source.version == 4 else (0x21, "::")
    if version == "v1":
        return f"PROXY TCP{source.version} {source} {target} 0 0\r\n".encode()
    body = source.packed + bytes(len(source.packed) + PORTS_BYTES)
    return SIGNATURE + bytes((PROXY, family)) + len(body).to_bytes(2, "big") + body


def _parse_line(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\n", 0, V1_BYTES_MAX)
    if end < 0:
        if len(data) >= V1_BYTES_MAX:
            raise InvalidProxyHeaderError("has a line that is too long")
        return None
    line = data[: end + 1]
    if line.startswith(b"PROXY UNKNOWN"):
        raise InvalidProxyHeaderError("is of a client that the proxy does not know")
    match = V1_LINE.fullmatch(line)
    if match is None:
        raise InvalidProxyHeaderError("has a line that cannot be read")
    family, source, target, *ports = match.groups()
    client, _ = (_read_address(address.decode(), V1_VERSIONS[family]) for address in (source, target))
    if any(int(port) > PORT_MAX for port in ports):
        raise InvalidProxyHeaderError("has a port that cannot be read")
    return ProxyHeader(client, len(line))


def _parse_binary(data: bytes) -> ProxyHeader | None:
    if len(data) < V2_FIXED_BYTES:
        return None
    command, family = data[12], data[13]
    size = V2_FIXED_BYTES + int.from_bytes(data[14:16], "big")
    if command not in (LOCAL, PROXY):
        raise InvalidProxyHeaderError("has a version or a command that is not known")
    if size > V2_BYTES_MAX:
        raise InvalidProxyHeaderError(f"has a header of more than {V2_BYTES_MAX} bytes")
    if command == PROXY and family not in ADDRESS_BYTES:
        raise InvalidProxyHeaderError("is of a client that the proxy does not know")
    if command == PROXY and size < V2_FIXED_BYTES + 2 * ADDRESS_BYTES[family] + PORTS_BYTES:
        raise InvalidProxyHeaderError("has a header without its addresses")
    if len(data) < size:
        return None
    if command == LOCAL:
        return ProxyHeader(None, size)
    source = data[V2_FIXED_BYTES : V2_FIXED_BYTES + ADDRESS_BYTES[family]]
    return ProxyHeader(str(ipaddress.ip_address(source)), size)


def _read_address(text: str, version: int) -> str:
    """Return an address as sockets write it. Raises InvalidProxyHeaderError unless it is of this version of IP."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidProxyHeaderError("has an address that cannot be read") from None
    if address.version != version:
        raise InvalidProxyHeaderError("has an address of another family")
    return str(address)
