"""An authority of the tests' own, and the certificates that it signs, as files."""

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KEY_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Pair(NamedTuple):
    """The files of a certificate and its key."""

    cert: Path
    key: Path

    def replace(self, other: "Pair") -> None:
        """Put another certificate and key in place of these, one file after the other, each at once."""
        for old, new in zip(self, other, strict=True):
            fresh = old.with_suffix(".fresh")
            fresh.write_bytes(new.read_bytes())
            os.replace(fresh, old)


class Authority:
    """A certificate authority that signs all requests. `file` holds its own certificate."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = named(name)
        self._issued = 0
        builder = self._builder(self._name, self._key, timedelta(0), timedelta(days=3650))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        signs = dict.fromkeys(KEY_USAGES, False) | {"key_cert_sign": True, "crl_sign": True}
        builder = builder.add_extension(x509.KeyUsage(**signs), critical=True)
        self.certificate = builder.sign(self._key, hashes.SHA256())
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(pem(self.certificate))

    def issue(
        self,
        *names: str,
        days: float = 90.0,
        age: float = 1.0,
        common: str = "",
        subject: x509.Name | None = None,
        key: PrivateKey | None = None,
        names_as: x509.ExtensionType | None = None,
    ) -> Pair:
        """A certificate for host names and addresses: it was made `age` days ago, and is good for `days` from now.

        `common` is its common name, `subject` stands in the place of a subject with that alone; `names_as` stands in
        the place of the extension that has the names.
        """
        self._issued += 1
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(subject or named(common), key, timedelta(days=age), timedelta(days=days))
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(signer, critical=False)  # Python 3.13 insists on it.
        if names or names_as:
            written = names_as or x509.SubjectAlternativeName([general(name) for name in names])
            is_nameless = not (subject or common)  # Java reads none of these otherwise (RFC 5280, 4.1.2.6).
            builder = builder.add_extension(written, critical=is_nameless)
        stem = self._folder / f"{names[0] if names else 'nameless'}-{self._issued}"
        pair = Pair(stem.with_name(f"{stem.name}.pem"), stem.with_name(f"{stem.name}.key"))
        pair.cert.write_bytes(pem(builder.sign(self._key, hashes.SHA256())))
        pair.key.write_bytes(private(key))
        return pair

    def revoked(self) -> bytes:
        """A list of revoked certificates, with none on it."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder(self._name, now, now + timedelta(days=1))
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _builder(self, subject: x509.Name, key: PrivateKey, age: timedelta, left: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - age)
            .not_valid_after(now + left)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )


def named(name: str) -> x509.Name:
    """A distinguished name that has a common name alone, or nothing."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])


def general(name: str) -> x509.GeneralName:
    """A host name or an address as certificates have it."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def pem(certificate: x509.Certificate) -> bytes:
    """A certificate as files have it."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def private(key: PrivateKey, password: str = "") -> bytes:
    """A private key as files have it."""
    locked: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        locked = serialization.BestAvailableEncryption(password.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
