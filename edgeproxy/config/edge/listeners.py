"""The edge's listeners, and their TLS."""

from typing import Literal

from edgeproxy.config.field_types import Address, File
from edgeproxy.config.part import Part
from edgeproxy.config.tls import Certificate


class ListenerTls(Part):
    """TLS towards clients."""

    cert: File | None = None
    """The certificate where there is one: short for `certificates` with one member."""
    key: File | None = None
    """The private key of `cert`."""
    certificates: tuple[Certificate, ...] = ()
    """Several; clients get the one that has the name they ask for (SNI), else the first."""
    client_ca: File | None = None
    """With it, clients must have a certificate that one of those in this file vouches for."""

    @property
    def pairs(self) -> tuple[Certificate, ...]:
        """All certificates, that of the short form first."""
        if self.cert is None or self.key is None:
            return self.certificates
        return (Certificate(cert=self.cert, key=self.key), *self.certificates)


class Listener(Part):
    """An address to listen on."""

    address: Address
    """HOST:PORT."""
    tls: ListenerTls | None = None
    """TLS; by default HTTP without it."""
    authorize: Literal["original", "forwarded", "path"] | None = None
    """In which fields trusted proxies state the requests that they ask about here; nothing is forwarded."""
