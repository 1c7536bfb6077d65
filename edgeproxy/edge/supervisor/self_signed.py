"""Certificates that the edge signs itself: until an authority has issued one, and for challenges of RFC 8737."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

LIFE = timedelta(days=30)
"""The life of such a certificate. The alerts report certificates that expire within two weeks."""


def create_self_signed(names: Sequence[str], *extensions: x509.ExtensionType) -> bytes:
    """Create a key and its certificate for these host names, as PEM. `extensions` are added as critical ones."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject, now = x509.Name([]), datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFE)
        # Critical, because the subject is empty (RFC 5280 section 4.2.1.6).
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return dump_key(key) + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def dump_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM, without a password."""
    form, lock = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, lock)


def is_expired(content: bytes) -> bool:
    """Return whether a file has a certificate that the edge signed and that has expired. A damaged one has not."""
    try:
        certificate = x509.load_pem_x509_certificate(content)
    except ValueError:
        return False
    return is_self_signed(certificate) and certificate.not_valid_after_utc <= datetime.now(UTC)


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Return whether the edge signed a certificate: only its own name no issuer."""
    return certificate.issuer == x509.Name([])
