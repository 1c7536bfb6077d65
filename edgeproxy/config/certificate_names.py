"""Names in clients' certificates, which replace keys."""

import hashlib

from edgeproxy.config.forms import build_text, written
from edgeproxy.config.units import format_value, read_text, value_error

CERTIFICATE = b"certificate\0"
"""Prefix of a certificate's name before its SHA-256 is computed. No key from a client begins with it."""


def compute_certificate_digest(name: str) -> bytes:
    """Return the digest of the name in a client's certificate, among the digests of keys."""
    return hashlib.sha256(CERTIFICATE + name.encode()).digest()


@written(lambda inner: inner)
def add_certificate_digest(key: object) -> object:
    """Add the digest of the certificate's name to a key that has such a name instead of `sha256`."""
    if isinstance(key, dict) and "sha256" not in key and isinstance(name := key.get("certificate"), str):
        return {**key, "sha256": compute_certificate_digest(name).hex()}
    return key


@written(build_text("text", r".+", "acme"))
def read_certificate_name(value: object) -> str:
    """Read the name in a certificate."""
    name = read_text(value, A_CERTIFICATE_NAME)
    if not name or not name.isprintable():
        raise value_error(f"{format_value(name)} is not the name in a certificate", A_CERTIFICATE_NAME)
    return name


A_CERTIFICATE_NAME = "the name as it stands in the certificate, such as acme"
