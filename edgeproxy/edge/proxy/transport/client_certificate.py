"""The certificate of a client: the names in it that can identify the customer.

OpenSSL has checked its issuer and its expiry in the handshake.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

NAME_CHARACTERS_MAX = 1024


class ClientCertificate(NamedTuple):
    """The relevant parts of a certificate."""

    names: Mapping[str, str]
    """The names of the kinds CN, DNS, URI and email. A kind is present only if the certificate has exactly one name of
    it.
    """
    expires: float
    """Unix seconds."""


NO_CERTIFICATE = ClientCertificate(MappingProxyType({}), 0.0)
"""The certificate of a client that has shown none, or an unreadable one."""


def parse_certificate(der: bytes | None) -> ClientCertificate:
    """Parse the client's certificate; None means that it has shown none."""
    if der is None:
        return NO_CERTIFICATE
    # Imported only if certificates occur: the package takes megabytes.
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        certificate = x509.load_der_x509_certificate(der)
        values_by_kind: dict[str, Iterable[object]] = {
            "CN": [attribute.value for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        }
        try:
            others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            pass
        else:
            values_by_kind["DNS"] = others.get_values_for_type(x509.DNSName)
            values_by_kind["URI"] = others.get_values_for_type(x509.UniformResourceIdentifier)
            values_by_kind["email"] = others.get_values_for_type(x509.RFC822Name)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return NO_CERTIFICATE
    names = {kind: name for kind, listed in values_by_kind.items() if (name := _get_single(listed)) is not None}
    return ClientCertificate(names, certificate.not_valid_after_utc.timestamp())


def _get_single(names: Iterable[object]) -> str | None:
    """Return the only name; None if there are several, or if it is unprintable or too long."""
    listed = list(names)
    name = listed[0] if len(listed) == 1 else None
    return name if isinstance(name, str) and name.isprintable() and 0 < len(name) <= NAME_CHARACTERS_MAX else None
