"""The edge's listeners, and their TLS."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgeproxy.config import units
from edgeproxy.config.field_types import Address, File
from edgeproxy.config.part import Part
from edgeproxy.config.tls import Certificate


class ListenerTls(Part):
    """TLS towards clients: at least one certificate, as `cert` and `key` or in `certificates`.

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
    client_ca: File | None = Field(
        default=None,
        description="Authorities of client certificates. If set, a client must have a certificate from one of them.",
    )

    @property
    def pairs(self) -> tuple[Certificate, ...]:
        """All certificates, starting with `cert` and `key`."""
        if self.cert is None or self.key is None:
            return self.certificates
        return (Certificate(cert=self.cert, key=self.key), *self.certificates)


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
