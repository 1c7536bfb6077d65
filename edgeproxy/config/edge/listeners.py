"""The edge's listeners, and their TLS."""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from edgeproxy.config import addresses, units
from edgeproxy.config.field_types import Address, File, Switch
from edgeproxy.config.forms import build_text, written
from edgeproxy.config.parsers import read_list
from edgeproxy.config.part import Part
from edgeproxy.config.tls import Certificate
from edgeproxy.config.units import PatternText, format_value, read_text, value_error

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
DOMAINS_MAX = 100
"""Maximum names in one certificate. Let's Encrypt has the same bound."""
A_DOMAIN = "a host name such as api.example.com"
A_DIRECTORY = f"an https:// URL such as {LETS_ENCRYPT}"
EMAIL = re.compile(r"[^@\s,;<>?%]{1,64}@[A-Za-z0-9.-]{1,253}")

read_email = PatternText(
    "mail address", EMAIL, "{} is not a mail address", "an address such as ops@example.com", ("ops@example.com",)
)
"""Reads the mail address of an account."""


@written(build_text("host name", r"[A-Za-z0-9_.-]+", "api.example.com"))
def read_domain(value: object) -> str:
    """Read a name for a certificate, in lower case and without a trailing dot."""
    text = read_text(value, A_DOMAIN)
    name = text.lower().removesuffix(".")
    if name.startswith("*."):
        hint = "list each name, or name files of another ACME client in certificates"
        raise value_error(f"{format_value(text)} needs a challenge over DNS, which the edge does not answer", hint)
    if addresses.is_address(name.strip("[]")):
        raise value_error(f"{format_value(text)} is an IP address", A_DOMAIN)
    if not addresses.HOST.fullmatch(name):
        raise value_error(f"{format_value(text)} is not a host name", A_DOMAIN)
    return name


@written(build_text("URL", r"https://[^/?#@\s]+(/\S*)?", LETS_ENCRYPT))
def read_acme_directory(value: object) -> str:
    """Read the URL of an authority's directory. `http://` is for loopback addresses alone."""
    text = read_text(value, A_DIRECTORY)
    try:
        parts = urlsplit(text)
        is_usable = parts.scheme == "https" or addresses.is_loopback(parts.hostname or "")
    except ValueError:
        is_usable = False
    if not is_usable or not parts.hostname or parts.scheme not in ("http", "https") or "@" in parts.netloc:
        raise value_error(f"{format_value(text)} is not the URL of an authority's directory", A_DIRECTORY)
    return text


def accept_terms(is_accepted: bool) -> bool:
    """Return True. Raises value_error if the terms of the authority are not accepted."""
    if not is_accepted:
        hint = "read the terms of the authority, and write terms_accepted: true"
        raise value_error("is false, and an authority issues nothing without it", hint)
    return True


class Acme(Part):
    """A certificate that the edge requests by ACME (RFC 8555) and renews, see [TLS](tls.md#certificates-by-acme).

    ```yaml
    listen:
      - 0.0.0.0:80
      - address: 0.0.0.0:443
        tls:
          acme: {domains: [api.example.com], email: ops@example.com, terms_accepted: true}
    ```

    Needs `pip install 'edgeproxy[acme]'`.
    """

    domains: Annotated[
        tuple[Annotated[str, BeforeValidator(read_domain)], ...],
        Field(min_length=1, max_length=DOMAINS_MAX),
        BeforeValidator(read_list),
    ] = Field(
        description="Names of the certificate. Each must lead to this edge. Wildcards and IP addresses are refused."
    )
    email: Annotated[str, BeforeValidator(read_email)] | None = Field(
        default=None, description="Mail address of the account at the authority. By default none."
    )
    directory: Annotated[str, BeforeValidator(read_acme_directory)] = Field(
        default=LETS_ENCRYPT, description="URL of the authority's directory. By default Let's Encrypt."
    )
    terms_accepted: Annotated[Switch, AfterValidator(accept_terms)] = Field(
        description="`true`: you have read the authority's terms of service, and accept them."
    )

    def get_file(self, state: Path) -> Path:
        """Return the file of the certificate, its chain and its key, in the state directory of an edge."""
        named = "\n".join((self.directory, *sorted(self.domains)))
        return state / ACME_FOLDER / f"{self.domains[0]}-{hashlib.sha256(named.encode()).hexdigest()[:12]}.pem"


ACME_FOLDER = "acme"
"""Folder in the state directory with accounts, certificates and their keys."""


class ListenerTls(Part):
    """TLS towards clients: at least one certificate, as `cert` and `key`, in `certificates`, or by `acme`.

    `check` reads the files, and reports an error for anything that OpenSSL would refuse.
    """

    cert: File | None = Field(
        default=None,
        description="Certificate and its intermediates, in PEM. It is short for `certificates` with one member.",
    )
    key: File | None = Field(default=None, description="Private key of `cert`, in PEM and without a password.")
    certificates: tuple[Certificate, ...] = Field(
        default=(),
        description="Several certificates. A client gets the one for the name that it asks for (SNI), else the first.",
    )
    acme: Acme | None = Field(
        default=None,
        description="[Certificate that the edge requests and renews](tls.md#certificates-by-acme), instead of files.",
    )
    client_ca: File | None = Field(
        default=None,
        description="Authorities of client certificates. If set, a client must have a certificate from one of them.",
    )

    @property
    def pairs(self) -> tuple[Certificate, ...]:
        """All certificates in configured files, starting with `cert` and `key`."""
        if self.cert is None or self.key is None:
            return self.certificates
        return (Certificate(cert=self.cert, key=self.key), *self.certificates)

    def list_pairs(self, state: Path) -> tuple[Certificate, ...]:
        """List all certificates: those in configured files, or the one by `acme`, which stands in a state directory."""
        if self.acme is None:
            return self.pairs
        file = self.acme.get_file(state)
        return (Certificate(cert=file, key=file),)


class Listener(Part):
    """An address where clients connect.

    ```yaml
    listen:
      - 0.0.0.0:80
      - address: 0.0.0.0:443
        tls: {cert: certs/edge.pem, key: certs/edge.key}
    ```
    """

    address: Address = Field(
        description="Address to listen on. `0.0.0.0` is every IPv4 address, `[::]` every IPv6 address; port 0 is any "
        "free port."
    )
    tls: ListenerTls | None = Field(default=None, description="TLS towards clients. By default HTTP without TLS.")
    http2: Annotated[bool, BeforeValidator(units.read_switch)] = Field(
        default=True,
        description="Also speaks [HTTP/2](http2.md): over TLS with clients that choose it (ALPN), without TLS with "
        "clients that start with it (prior knowledge). Never on a listener with `authorize`.",
    )
    authorize: Literal["original", "forwarded", "path"] | None = Field(
        default=None,
        description="Makes this a listener for [proxies that ask](authorize.md) whether their request may pass. The "
        "value says [where the proxy states the request](authorize.md#where-the-request-is-stated): nginx in "
        "`X-Original-*` (`original`), Traefik and Caddy in `X-Forwarded-*` (`forwarded`), Envoy in the `path`. "
        "Nothing is forwarded, and only `trusted_proxies` get answers.",
    )

    proxy_protocol: Annotated[bool, BeforeValidator(units.read_switch)] = Field(
        default=False,
        description="Requires a header of the [PROXY protocol](tls.md#proxy-protocol), version 1 or 2, at the "
        "beginning of each connection. It states the client's address. Only `trusted_proxies` may connect.",
    )

    @property
    def speaks_http2(self) -> bool:
        """True if it accepts HTTP/2. Proxies that ask for permission use HTTP/1.1."""
        return self.http2 and self.authorize is None
