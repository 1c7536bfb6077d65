"""IP addresses, networks, host names and the URLs of servers, as operators write them."""

import ipaddress
import re
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from edgeproxy.config.forms import PORT, build_text, written
from edgeproxy.config.units import format_value, read_text, value_error

HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*")
PORTS = {"http": 80, "https": 443}
AN_ADDRESS = "HOST:PORT such as 127.0.0.1:8080 or [::1]:8080"
ADDRESS = build_text("address", rf"(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+){PORT}", "127.0.0.1:8080", "[::1]:8080")
URL = r"https?://[^/?#@\s]+/?"
A_NETWORK = "an address or a network such as 10.0.0.0/8"
MAPPED_BITS = 96
"""Bits before the IPv4 address in an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2)."""
AN_ORIGIN = "http://HOST:PORT such as http://10.0.0.5:9001, or https://HOST:PORT"
A_COLLECTOR = "http://HOST:PORT such as http://127.0.0.1:9100, or https://HOST:PORT"
LOOPBACKS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
A_SERVER_NAME = "a name such as api.internal, or an IP address"


class Address(NamedTuple):
    """An address to listen on: an IP address or a host name, and a port from 0 (any free one) to 65535."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def reachable(self) -> Self:
        """The address by which this host reaches a listener: loopback for one at every address."""
        return self._replace(host=LOOPBACKS.get(self.host, self.host))


def split_address(written: str) -> Address | None:
    """Split `HOST:PORT` into the host, without brackets, and the port. None: it has another form."""
    host, colon, port = written.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        return None
    if host.startswith("[") and host.endswith("]"):
        try:
            return Address(str(ipaddress.IPv6Address(host[1:-1])), int(port))
        except ValueError:
            return None
    if re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            return None
    return Address(host.lower(), int(port)) if HOST.fullmatch(host.lower()) else None


def is_address(host: str) -> bool:
    """Return whether a host is an IP address, IPv6 without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def do_addresses_overlap(one: Address, other: Address) -> bool:
    """Return whether a client of one address may reach the other. 0.0.0.0 is every IPv4 address, :: every IPv6 one."""
    if one.port != other.port:
        return False
    return one.host == other.host or _is_within(one.host, other.host) or _is_within(other.host, one.host)


def _is_within(host: str, anywhere: str) -> bool:
    if anywhere == "::":
        return ":" in host
    return anywhere == "0.0.0.0" and re.fullmatch(r"[0-9.]+", host) is not None


@written(ADDRESS)
def read_address(value: object) -> Address:
    """Read an address with a port, `HOST:PORT`."""
    if isinstance(value, Address):
        return value
    written = read_text(value, AN_ADDRESS)
    address = split_address(written)
    if address is None:
        raise value_error(f"{format_value(written)} is not an address with a port", AN_ADDRESS)
    return address


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@written(build_text("network", r"[0-9A-Fa-f:.]+(/[0-9]{1,3})?", "10.0.0.0/8"))
def read_network(value: object) -> Network:
    """Read an address or a network in CIDR form, whose bits below the prefix are zero."""
    written = read_text(value, A_NETWORK)
    try:
        network = ipaddress.ip_network(written, strict=False)
    except ValueError:
        raise value_error(f"{format_value(written)} is not an address or a network", A_NETWORK) from None
    if "/" in written and str(network.network_address) != str(ipaddress.ip_address(written.split("/")[0])):
        raise value_error(f"{format_value(written)} has bits below its prefix", f"the network is {network}")
    first = network.network_address
    if isinstance(first, ipaddress.IPv6Address) and first.ipv4_mapped is not None and network.prefixlen >= MAPPED_BITS:
        # The addresses of clients are never IPv4-mapped, so an IPv4-mapped network would match no client.
        return ipaddress.IPv4Network((first.ipv4_mapped, network.prefixlen - MAPPED_BITS))
    return network


@written(build_text("URL", URL, "http://10.0.0.5:9001"))
def read_origin(value: object) -> str:
    """Read the URL of an endpoint, `http://HOST:PORT` or `https://HOST:PORT`."""
    return _read_origin(value, AN_ORIGIN, "that is the endpoint's path")


@written(build_text("URL", URL, "http://127.0.0.1:9100"))
def read_collector(value: object) -> str:
    """Read the URL of a collector, which has the form of an endpoint's URL."""
    return _read_origin(value, A_COLLECTOR, "the edge knows where batches go")


def _read_origin(value: object, hint: str, why_no_path: str) -> str:
    written = read_text(value, hint)
    try:
        parts = urlsplit(written)
        port = PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    except ValueError:
        raise value_error(f"{format_value(written)} is not a URL", hint) from None
    if parts.scheme not in PORTS or not parts.netloc:
        raise value_error(f"{format_value(written)} is not an http or https URL", hint)
    if "@" in parts.netloc:
        raise value_error("has a user or a password", hint)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise value_error(f"{format_value(written)} has a path", f"{hint}: {why_no_path}")
    host = parts.hostname or ""
    address = split_address(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    if address is None or address.port == 0:
        raise value_error(f"{format_value(written)} has no host, or a port that cannot be", hint)
    return f"{parts.scheme}://{address}"


def is_local_url(origin: str) -> bool:
    """Return whether a URL belongs to this host only: a loopback address or a name of one (RFC 6761)."""
    return is_loopback(urlsplit(origin).hostname or "")


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address or a name of one (RFC 6761)."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


@written(build_text("host name or IP address", r"[A-Za-z0-9_.:-]+", "api.internal"))
def read_server_name(value: object) -> str:
    """Read the name or the IP address of a TLS server, as its certificate has it."""
    written = read_text(value, A_SERVER_NAME)
    try:
        return str(ipaddress.ip_address(written))
    except ValueError:
        name = written.lower().removesuffix(".")
    if not HOST.fullmatch(name):
        raise value_error(f"{format_value(written)} is not a host name", A_SERVER_NAME)
    return name


INTERNAL = tuple(
    map(
        ipaddress.ip_network,
        (
            *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"),
            *("::1/128", "fc00::/7", "fe80::/10"),
        ),
    )
)
"""Networks that the internet does not reach: loopback, RFC 1918, link-local, RFC 6598, and RFC 4193 of IPv6."""


def is_internal_network(network: Network) -> bool:
    """Return whether the internet reaches no address of a network."""
    return any(network.subnet_of(other) for other in INTERNAL if other.version == network.version)  # type: ignore[arg-type]
